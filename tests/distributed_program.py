"""What test_distributed runs in two processes, as `torchrun ... distributed_program.py FOLDER`: one start, many checks.

Writes weights and what each process saw to the folder. The first half, also imported by the tests, makes networks and
images whose training must not depend on the number of processes: batch norm in evaluation mode, no dropout.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srblock.data import Loader, load_scenes
from srblock.runs.groups import parameter_groups
from srblock.runs.loaders import scene_loaders
from srblock.surgery import blocks, bypassed, param_groups
from srblock.training import checkpoint, distributed, runtime
from srblock.training.classification import Classification
from srblock.training.loop import Loaders, TrainingDiverged, train, train_epoch
from srblock.training.optimizer import Groups, make_optimizer
from srblock.training.recipe import Recipe
from srblock.training.step import Step
from srblock.training.task import evaluate, measure
from srblock.training.tasks import find_task
from srblock.variants.build import build
from srblock.variants.notation import parse

CPU = torch.device("cpu")
TASK = Classification()
RECIPE = Recipe(
    epochs=4, batch_size=16, learning_rate=0.05, schedule="cosine", padding=1, flip=False, label_smoothing=0.1
)
CLIPPED = replace(RECIPE, clip_norm=0.5)
FINETUNED = replace(
    RECIPE,
    optimizer="adamw",
    learning_rate=0.002,
    norm_weight_decay=0.0,
    backbone_lr_scale=0.1,
    freeze_epochs=2,
    ema=0.8,
)


def loader(recipe: Recipe, images: int, training: bool, shared: bool = True) -> Loader:
    """Noise with a bright half, shared among the processes unless told otherwise."""
    generator = torch.Generator().manual_seed(images)
    labels = torch.arange(images) % 2
    pixels = torch.randint(0, 100, (images, 1, 8, 8), generator=generator)
    for half in (0, 1):
        pixels[labels == half, :, :, 4 * half : 4 * half + 4] += 120
    return Loader(
        pixels.to(torch.uint8), labels, None, batch_size=recipe.batch_size, mean=[0.43], std=[0.26],
        memory_format=torch.channels_last, padding=recipe.padding if training else 0, shuffle=training,
        rank=distributed.rank() if shared else 0, world_size=distributed.world_size() if shared else 1,
    )  # fmt: skip


def loaders(recipe: Recipe = RECIPE) -> Loaders:
    """39 images to train on, that is two whole batches and one of 7; the 33rd to validate on is in one process only."""
    return Loaders(loader(recipe, 39, True), loader(recipe, 33, False), loader(recipe, 35, False))


def network(steady: bool = True, options: str = "") -> nn.Module:
    """R8 with a block; `steady` keeps batch norm in evaluation mode, else there is dropout too."""
    model = build(parse(f"R8 {'' if steady else '+ D'} + SR(M=3, P=4{options})"), classes=2, channels=1,
                  image_size=(8, 8), seed=0)  # fmt: skip
    for module in model.modules():
        if steady and isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign]
    return model


def apart(model: nn.Module) -> list[dict[str, Any]]:
    """Train the memories at 5 times the rate and without decay."""
    rest, memories = param_groups(model, memory_weight_decay=0.0)
    return [rest, memories | {"lr_scale": 5.0}]


def three_steps(
    recipe: Recipe, model: nn.Module, groups: Groups | None = None
) -> tuple[dict[str, Tensor], list[float]]:
    """Train on the three batches of an epoch; return weights, and loss and accuracy of training and of evaluation."""
    step = Step(distributed.wrap(model, recipe, CPU), make_optimizer(model, recipe, CPU, groups), TASK, recipe, CPU)
    assert train_epoch(step, loader(recipe, 39, True), 0) == 39
    figures = step.meter.read(), evaluate(model, loader(recipe, 33, False).epoch(0), TASK, recipe, CPU)
    return checkpoint.copy_weights(model), [value for part in figures for value in part.values()]


def run(folder: Path, model: nn.Module, recipe: Recipe = RECIPE, **options: Any) -> dict[str, Any]:
    """Train a run in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return train(model, loaders(recipe), TASK, recipe, directory=folder, run="test", seed=0, device=CPU, **options)


def finetune(folder: Path) -> dict[str, Any]:
    """Train with a backbone that thaws half way, and a moving average that is tested."""
    return run(folder, network(), FINETUNED, groups=lambda model: parameter_groups(model, FINETUNED, 2))


def stop_at(epoch: int) -> Callable[[dict[str, Any]], None]:
    """Return an `on_epoch` that stops a run as Ctrl-C would."""

    def stop(record: dict[str, Any]) -> None:
        if record["epoch"] == epoch:
            raise KeyboardInterrupt

    return stop


def ends(action: Callable[[], object]) -> list[str]:
    """Return the name and text of the exception that ends an action."""
    try:
        action()
    except BaseException as error:
        return [type(error).__name__, str(error)]
    return []


class BreaksInOne(nn.Module):
    """Its logits become NaN in process 1, from the second epoch on."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.steps = network(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        logits: Tensor = self.body(x)
        return logits * math.nan if self.training and self.steps > 3 and distributed.rank() == 1 else logits


STEPS: dict[str, tuple[Recipe, Groups | None, str]] = {
    "plain": (RECIPE, None, ""),
    "clipped": (CLIPPED, None, ""),
    "apart": (RECIPE, apart, ""),
    "standardized": (RECIPE, None, ", logits=standardized, start=normal"),  # over the images of both processes
}


SCENES = Recipe(
    batch_size=6, learning_rate=0.05, crop="scene", crop_size=(24, 32), padding=0, label_smoothing=0.1, photometric=True
)


class TwoHeads(nn.Module):
    """A head for the answer and one beside it, without batch norm."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.out, self.aux = nn.Conv2d(8, classes, 1), nn.Conv2d(8, classes, 1)

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        found = self.body(x)
        return {"out": self.out(found), "aux": self.aux(found)} if self.training else self.out(found)


def scenes(folder: Path) -> tuple[dict[str, Tensor], list[Any]]:
    """Train a pass over ten scenes in batches of 6 and 4, and test on five, one after another.

    Returns the weights, and the figures of training and test with the pixels that each class was said of.
    """
    data = load_scenes(f"camvid:{folder}")
    where = distributed.rank(), distributed.world_size()
    served = scene_loaders(data, SCENES, 0, CPU, *where)
    task = find_task(data.task, len(data.classes), SCENES)
    model = TwoHeads(len(data.classes))
    step = Step(distributed.wrap(model, SCENES, CPU), make_optimizer(model, SCENES, CPU), task, SCENES, CPU)
    assert train_epoch(step, served.train, 0) == 10
    tested = measure(model, served.test.epoch(0), task, SCENES, CPU)
    return checkpoint.copy_weights(model), [step.meter.read(), tested.read(), tested.details()["confusion"]]


def check(folder: Path) -> dict[str, Any]:
    """Do everything once and return what this process saw."""
    seen: dict[str, Any] = {"rank": distributed.rank(), "world": distributed.world_size()}
    for name, (recipe, groups, options) in STEPS.items():
        weights, seen[name] = three_steps(recipe, network(options=options), groups)
        distributed.on_rank0(lambda name=name, weights=weights: checkpoint.save_weights(folder / name, weights))
    for name in ("frozen", "bypassed"):
        model = network()
        for block in blocks(model).values():
            block.requires_grad_(name == "bypassed")
        with bypassed(model) if name == "bypassed" else nullcontext():
            weights, _ = three_steps(RECIPE, model)
        distributed.on_rank0(lambda name=name, weights=weights: checkpoint.save_weights(folder / name, weights))

    os.environ["SRBLOCK_WORKERS"] = "0"
    weights, seen["scenes"] = scenes(folder / "camvid")
    distributed.on_rank0(lambda: checkpoint.save_weights(folder / "scenes", weights))

    model = network(steady=False)
    three_steps(RECIPE, model)
    statistics = [buffer for name, buffer in model.named_buffers() if "running" in name]
    seen["own statistics"] = float(torch.cat(statistics).sum())
    distributed.share_buffers(model)
    seen["shared statistics"] = float(torch.cat(statistics).sum())

    seen["alone"] = distributed.on_rank0(lambda: float(distributed.all_reduce(torch.ones(()))))
    asked: list[int] = []
    probe = lambda model: asked.append(0) or {"asked": len(asked)}  # noqa: E731
    told: list[int] = []
    run(folder / "whole", network(steady=False), probe=probe, on_epoch=lambda record: told.append(record["epoch"]))
    seen["asked"], seen["told"] = len(asked), told
    seen["stopped"] = ends(lambda: run(folder / "parts", network(steady=False), on_epoch=stop_at(2), probe=probe))
    result = run(folder / "parts", network(steady=False), probe=probe)
    seen["result"] = {key: result[key] for key in ("test_top1", "test_loss", "best_epoch")}
    run(folder / "one to two", network())
    finetune(folder / "thawed")
    seen["2 to 1"] = ends(lambda: run(folder / "two to one", network(), on_epoch=stop_at(2)))

    seen["diverged"] = ends(lambda: run(folder / "nan", BreaksInOne()))
    seen["probe"] = ends(lambda: run(folder / "inf", network(), probe=lambda model: {"memory": math.inf}))
    (folder / "damaged").mkdir(exist_ok=True)
    distributed.on_rank0(lambda: (folder / "damaged" / "trainer.safetensors").write_bytes(b"PK"))
    seen["damaged"] = ends(lambda: run(folder / "damaged", network()))
    seen["sync"] = ends(lambda: run(folder / "sync", network(), replace(RECIPE, sync_batch_norm=True)))
    seen["engine"] = ends(lambda: run(folder / "engine", network(), replace(RECIPE, engine="compile")))
    seen["one gpu"] = ends(lambda: runtime.pick_device("cuda:0"))
    seen["no gpu"] = ends(lambda: runtime.pick_device("cuda"))

    torch.manual_seed(0)
    draws = []
    for epoch in (0, 1, 0):
        distributed.reseed(0, epoch)
        draws.append(float(torch.rand(())))
    seen["draws"] = draws
    seen["processes"] = runtime.environment(CPU)["processes"]
    assert isinstance(TrainingDiverged("x"), RuntimeError)
    return seen


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    with distributed.start("cpu"):
        mine = check(out)
        (out / f"seen-{distributed.rank()}.json").write_text(json.dumps(mine))
        print("printed by process", distributed.rank())
        if sys.argv[2:] == ["--fail"]:
            if distributed.rank() == 1:
                raise ValueError("process 1 has had enough")
            distributed.all_reduce(torch.zeros(1))
