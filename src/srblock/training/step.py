"""One optimization step: forward, loss, backward, update, count; eager, compiled, or replayed as one CUDA graph."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from srblock.training import runtime
from srblock.training.average import Average
from srblock.training.optimizer import BATCH_NORMS, keep_rates_on, scale_rates, set_rate
from srblock.training.recipe import Recipe
from srblock.training.task import Task


@runtime_checkable
class Scheduled(Protocol):
    """A layer that may change over a run, such as dropblock."""

    scheduled: bool
    """Whether this one does."""

    def follow(self, progress: float) -> None:
        """Adapt to a point of the run: 0 is its first epoch, 1 its last."""


FORMS = 1024
WARM_UP = 3  # steps on a side stream before a graph is captured: libraries choose algorithms and allocate in them


class Step:
    """Train a model on one batch after another, without waiting for the device.

    Batch norms that are frozen when it is made (`optimizer.freeze`) neither use nor note the statistics of a batch.

    `recipe.engine` says how: "eager" operation by operation, "compile" with forward and backward compiled, "graph"
    with the whole step (update and sums too) captured once and replayed, so that a step costs one launch,
    "compile+graph" with both. Batches of another shape than the first, that is an epoch's last one, run eagerly.

    Args:
        model: the network, in its place; `Step` calls it and nothing else, so a wrapped one will do.
        optimizer: of its parameters; each of its groups keeps its own rate and decay (see `optimizer`).
        task: says what the loss is and what is summed.
        average: of the model's weights, if the recipe says so; `train_epoch` tells it of every step.

    Attributes:
        meter: the task's sums over the batches since the last `start`.
        inference: the model as validation should call it: compiled where training is.

    Raises: ValueError for a graph on a device that has none.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        task: Task,
        recipe: Recipe,
        device: torch.device,
        average: Average | None = None,
    ) -> None:
        if "graph" in recipe.engine and device.type != "cuda":
            raise ValueError(f"engine {recipe.engine} replays CUDA graphs, and {device} has none; use eager or compile")
        self.model, self.optimizer, self.task, self.recipe, self.device = model, optimizer, task, recipe, device
        self.average = average
        scale_rates(optimizer)
        self.meter = task.meter(device)
        self.inference: nn.Module = model
        if "compile" in recipe.engine:
            _allow_many_forms()
            self.inference = torch.compile(model, dynamic=False)  # type: ignore[assignment]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: tuple[Tensor, Tensor] | None = None  # where a graph reads images and target
        self._shape: torch.Size | None = None
        self._steps = 0
        self._frozen = _frozen_norms(model, optimizer)
        self._scheduled = [m for m in model.modules() if isinstance(m, Scheduled) and m.scheduled]
        if self._scheduled and "compile" in recipe.engine:
            raise ValueError(
                f"engine {recipe.engine} would compile anew at each epoch of a layer's schedule; use eager or graph"
            )
        if "graph" in recipe.engine:
            keep_rates_on(device, optimizer)

    def start(self, progress: float = 0.0) -> None:
        """Begin a pass: training mode, sums at zero, layers with a schedule told where the run stands.

        Args:
            progress: 0 for a run's first epoch, 1 for its last.
        """
        self.model.train()
        for norm in self._frozen:
            norm.eval()
        self.meter.reset()
        for module in self._scheduled:
            module.follow(progress)
            self._graph, self._steps = None, 0  # its numbers are part of a captured graph

    def __call__(self, images: Tensor, target: Tensor, rate: float, scale: float = 1.0) -> None:
        """Train on a batch at a learning rate.

        Shapes: images (N, C, H, W), target (N, ...) as the task has it.

        Args:
            scale: factor of the loss that is trained on, for one of several processes (`distributed.loss_scale`).
        """
        set_rate(self.optimizer, rate)
        self._shape = self._shape or images.shape
        if images.shape != self._shape:
            self._run(self.model, images, target, scale)
        elif "graph" in self.recipe.engine:
            self._replay(images, target)
        else:
            self._run(self.inference, images, target, scale)

    def _run(self, model: nn.Module, images: Tensor, target: Tensor, scale: float = 1.0) -> None:
        with runtime.autocast(self.recipe, self.device):
            output = model(images)
        loss = self.task.training_loss(output, target, label_smoothing=self.recipe.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        (loss if scale == 1 else loss * scale).backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.meter.add(loss, output, target)

    def _replay(self, images: Tensor, target: Tensor) -> None:
        """Run the first steps on a side stream, as CUDA asks before a capture; capture; from then on replay."""
        self._steps += 1
        if self._steps <= WARM_UP:
            here = torch.cuda.current_stream(self.device)
            side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            side.wait_stream(here)
            with torch.cuda.stream(side):
                self._run(self.inference, images, target)
            here.wait_stream(side)
            return
        if self._graph is None or self._batch is None:
            self._batch = images.clone(), target.clone()
            self._graph = torch.cuda.CUDAGraph()
            self.optimizer.zero_grad(set_to_none=True)  # so that gradients are allocated in the graph's own memory
            # Other threads may use the device meanwhile: only calls of this one could spoil the capture.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._run(self.inference, *self._batch)  # only records: the replay below is its step
        else:
            self._batch[0].copy_(images)
            self._batch[1].copy_(target)
        self._graph.replay()


def _allow_many_forms() -> None:
    """Let all variants of a network be compiled in one process, three forms each: they share the code of its forward.

    Dynamo's limit is 8, after which it would run the others eagerly, with a line in the log.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(FORMS, torch._dynamo.config.recompile_limit)
    torch._dynamo.config.accumulated_recompile_limit = max(8 * FORMS, torch._dynamo.config.accumulated_recompile_limit)


def _frozen_norms(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[nn.Module]:
    """List the batch norms whose scale or shift is in a group that is frozen now.

    One that has neither there goes with the nearest module around it that has parameters there.
    """
    trained = {id(p): p.requires_grad for group in optimizer.param_groups for p in group["params"]}
    if all(trained.values()):
        return []
    found: list[nn.Module] = []
    for name, norm in model.named_modules():
        if isinstance(norm, BATCH_NORMS):
            around, known = name, _of(norm, trained)
            while not known and around:
                around = around.rpartition(".")[0]
                known = _of(model.get_submodule(around), trained)
            if not all(known):
                found.append(norm)
    return found


def _of(module: nn.Module, trained: dict[int, bool]) -> list[bool]:
    """Look up a module's parameters."""
    return [trained[id(parameter)] for parameter in module.parameters() if id(parameter) in trained]
