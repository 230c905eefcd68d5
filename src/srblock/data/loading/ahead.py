"""Work done ahead of the device, in worker processes: requests go in, answers come out in their order."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from srblock.data.loading.workers import end_with_parent, fork_server

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Ahead(Generic[Request, Answer]):
    """Have requests answered ahead of the one who takes the answers.

    Args:
        dataset: gives the answer to a request, or says what is wrong with the files that it needs.
        workers: processes, started with the first requests and kept; 0 answers in this one.
        pin_memory: whether answers are to be copied to an accelerator.
    """

    def __init__(self, dataset: Dataset[Answer | str], workers: int, *, pin_memory: bool) -> None:
        self.dataset, self.workers = dataset, workers
        self._requests = _Requests[Request]()
        self._passes = 0
        self._loader: DataLoader[Answer | str] = DataLoader(
            dataset,
            batch_size=None,  # a request is a whole batch
            sampler=self._requests,
            num_workers=workers,
            multiprocessing_context=fork_server([type(dataset).__module__]) if workers else None,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            worker_init_fn=_start if workers else None,
            generator=torch.Generator(),  # the global one would be advanced by every pass
        )

    def answers(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """Yield the answer to each request.

        Raises: ValueError with what is wrong with the files; RuntimeError if a worker ended, or if other requests were
        made before these were answered.
        """
        self._passes += 1
        mine = self._passes
        self._requests.values = requests
        with self._naming_workers():
            results = iter(self._loader)
        for _ in requests:
            if mine != self._passes:
                raise RuntimeError("another epoch of this loader was begun; take one after the other, or two loaders")
            with self._naming_workers():
                result = next(results)
            if isinstance(result, str):
                raise ValueError(result)
            yield result

    @contextmanager
    def _naming_workers(self) -> Iterator[None]:
        """Say of what comes from a worker that ended what it is, and what to do."""
        try:
            yield
        except (RuntimeError, EOFError, OSError) as error:  # OSError: what a worker held went with it
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            what = str(error) or type(error).__name__
            raise RuntimeError(
                f"a worker process that decodes images ended ({what}); if memory or /dev/shm "
                f"ran out, take fewer with SRBLOCK_WORKERS (now {self.workers}); a script of your own needs "
                '`if __name__ == "__main__":` around what trains'
            ) from error


class _Requests(Generic[Request]):
    """The requests of a pass, for the DataLoader, which is made before them.

    It knows nothing of `Ahead`: what is in a reference cycle is freed in an order in which the workers' queues close
    before the workers are told to end, and each of them is then waited for, for 5 seconds.
    """

    values: Sequence[Request] = ()

    def __iter__(self) -> Iterator[Request]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)


def _start(worker: int) -> None:
    """Prepare a worker: Pillow warns of damaged Exif data, which ImageNet has and nobody can do anything about."""
    warnings.filterwarnings("ignore", module="PIL")
    end_with_parent()
