"""A time budget: which runs to start before a deadline, and when one at work stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

from srblock.executors.watch import Watch
from srblock.runs.records import RunConfig, epochs_done, finished
from srblock.runs.run_one import Paused, Work
from srblock.runs.study import Study
from srblock.training.loop import Record
from srblock.training.segmentation import SCALES, starts

CAUTION = 1.1  # epochs may take longer than they did
EXTRA_PASSES = 8  # over the test images: the look into the blocks, the network as it is, six controls
RECENT = 20  # epochs that tell how long the next ones take


class Budget:
    """Choose what to start next, from how long epochs take.

    Args:
        deadline: a value of time.monotonic(); None if there is time for everything.
        epoch_seconds: of each variant, as far as known; what is seen counts more.
    """

    def __init__(
        self, work: Work, deadline: float | None = None, epoch_seconds: Mapping[str, float] | None = None
    ) -> None:
        self.deadline = deadline
        self._work, self._given = work, dict(epoch_seconds or {})
        self._seen: dict[str, list[float]] = {}  # by variant
        self._earlier: dict[str, list[Record]] = {}  # epochs of earlier sessions, maybe of another machine, by run
        self._since: dict[str, float] = {}  # runs at work whose first epoch is not over
        self._start_s = 0.0  # what the last start cost over its first epoch

    def order(self, pending: Sequence[RunConfig], idle: bool) -> Iterator[RunConfig]:
        """Yield the runs that may be started now, the best first; without a deadline all of them as they come.

        Finishing goes before starting: first the runs that are begun, the one with the least left in front. Then new
        ones that fit into the time left as a whole, or of which nobody knows how long they take.

        Args:
            idle: nothing else is at work. Then also new runs of which an epoch fits.
        """
        if self.deadline is None:
            yield from pending
            return
        left_s = self.deadline - time.monotonic()
        done = {config.name: epochs_done(self._work.folder(config)) for config in pending}
        found = [config for config in pending if finished(self._work.folder(config))]
        yield from found
        begun = [config for config in pending if done[config.name] and config not in found]
        begun.sort(key=lambda config: (self._rest_s(config, done[config.name]), -done[config.name]))
        yield from (config for config in begun if self._step_s(config, done[config.name]) < left_s)
        new = [config for config in pending if not done[config.name] and config not in found]
        whole = [config for config in new if self._rest_s(config, 0) < left_s]
        yield from whole
        if idle:
            yield from (config for config in new if config not in whole and self._step_s(config, 0) < left_s)

    def started(self, config: RunConfig) -> None:
        """Note that a run is put to work."""
        if self.deadline is not None:
            self._earlier[config.name] = Watch().news(self._work.folder(config))
            self._since[config.name] = time.monotonic()

    def epoch(self, config: RunConfig, record: Record) -> None:
        """Learn from an epoch, if it is of this session."""
        if self.deadline is None or record in self._earlier[config.name]:
            return
        self._seen.setdefault(str(config.variant), []).append(record["seconds"])
        if config.name in self._since:
            self._start_s = max(0.0, time.monotonic() - self._since.pop(config.name) - record["seconds"])

    def _epoch_s(self, config: RunConfig) -> float:
        """Estimate an epoch, from other variants if need be; 0 if nothing is known: then one must be tried."""
        now = {variant: median(seconds[-RECENT:]) for variant, seconds in self._seen.items()}
        variant = str(config.variant)
        if variant in now:
            return now[variant]
        if variant in self._given:
            slower = [now[other] / self._given[other] for other in now if other in self._given]
            return self._given[variant] * median(slower or [1.0])
        return median(now.values()) if now else 0.0

    def _rest_s(self, config: RunConfig, done: int) -> float:
        """Estimate the rest of a run after so many epochs."""
        epoch_s = self._epoch_s(config)
        rest_s = (config.recipe.epochs - done) * epoch_s + finish_s(self._work.study, epoch_s)
        return self._start_s + CAUTION * rest_s

    def _step_s(self, config: RunConfig, done: int) -> float:
        """Estimate what there is something to keep after: an epoch, or after the last one the finish."""
        epoch_s = self._epoch_s(config)
        step_s = epoch_s if done < config.recipe.epochs else finish_s(self._work.study, epoch_s)
        return self._start_s + CAUTION * step_s


def until(
    deadline: float | None, work: Work, config: RunConfig, tell: Callable[[Record], None] | None = None
) -> Callable[[Record], None] | None:
    """Return an `on_epoch` (see `run_one.train_one`) that tells of each epoch and pauses the run in time.

    It pauses after an epoch of this session when another one, or after the last one the finish, would not be done by
    the deadline.
    """
    if deadline is None:
        return tell
    earlier, since = Watch().news(work.folder(config)), time.monotonic()

    def on_epoch(record: Record) -> None:
        nonlocal since
        if tell is not None:
            tell(record)
        if record in earlier:
            return
        now = time.monotonic()
        took_s, since = max(now - since, record["seconds"]), now
        next_s = took_s if record["epoch"] < config.recipe.epochs else finish_s(work.study, record["seconds"])
        if now + CAUTION * next_s > deadline:
            raise Paused

    return on_epoch


def finish_s(study: Study, epoch_s: float) -> float:
    """Estimate what follows the last epoch: two tests of as many views as the recipe says, and eight of one view.

    These are the look into the blocks and their controls; a pass without gradients takes a third of the time or less.
    A scene counts as many images as windows look at it, or as a crop goes into it.
    """
    passes = (2 * _views(study.recipe.tta) + EXTRA_PASSES) * 3 / (2 + EXTRA_PASSES)
    return passes * _crops(study) * epoch_s * study.data.test_size / study.epoch_images


def _views(tta: str) -> float:
    """Count the views of an image that a prediction is averaged over, by their pixels."""
    views = 2.0 if "flip" in tta else 1.0
    if "translate" in tta:
        views *= 3
    return views * sum(scale**2 for scale in SCALES) if "multiscale" in tta else views


def _crops(study: Study) -> float:
    """Count the crops of training that a test image costs."""
    if study.recipe.crop_size is None:
        return 1.0
    (height, width), (rows, columns) = study.data.size, study.recipe.crop_size
    if study.recipe.inference == "slide":
        return float(len(starts(height, rows)) * len(starts(width, columns)))
    return height * width / (rows * columns)
