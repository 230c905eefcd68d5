"""The loop on images made so that the answer is known."""

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from srblock.block import SqueezeRemember2d
from srblock.data import Loader
from srblock.training import checkpoint
from srblock.training.classification import Classification
from srblock.training.files import write_pieces
from srblock.training.loop import Loaders, TrainingDiverged, train
from srblock.training.recipe import Recipe
from srblock.training.task import evaluate

CPU = torch.device("cpu")
TASK = Classification()
RECIPE = Recipe(epochs=4, batch_size=16, learning_rate=0.05, schedule="cosine", padding=1, flip=False)


def striped(images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with a bright half: class 0 left, class 1 right."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % 2
    pixels = torch.randint(0, 100, (images, 1, 8, 8), generator=generator)
    for half in (0, 1):
        pixels[labels == half, :, :, 4 * half : 4 * half + 4] += 120
    return pixels.to(torch.uint8), labels


def loaders(recipe: Recipe = RECIPE, seed: int = 0) -> Loaders:
    def part(images: int, part_seed: int, training: bool) -> Loader:
        pixels, labels = striped(images, part_seed)
        mean, std = [0.43], [0.26]
        return Loader(
            pixels, labels, None, batch_size=recipe.batch_size, mean=mean, std=std, device=CPU, dtype=torch.float32,
            memory_format=torch.channels_last, padding=recipe.padding if training else 0, flip=False,
            shuffle=training, seed=seed,
        )  # fmt: skip

    return Loaders(part(96, 1, True), part(32, 2, False), part(32, 3, False))


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(512, 2),
        )


def run(directory: Path, model: nn.Module | None = None, recipe: Recipe = RECIPE, **options: Any) -> dict[str, Any]:
    options = {"run": "test", "seed": 0, "device": CPU} | options
    return train(model or network(), loaders(recipe), TASK, recipe, directory=directory, **options)


def lines(directory: Path) -> list[dict[str, Any]]:
    """The recorded epochs without their wall times."""
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if "seconds" not in key} for record in records]


def test_learns_and_records(tmp_path: Path) -> None:
    model = network()
    result = run(tmp_path, model, header={"said": "so"}, probe=lambda m: {"weight": float(m[0].weight.sum())})
    records = lines(tmp_path)
    assert result["test_top1"] == 100
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    assert records[-1]["train_loss"] < 0.5 * records[0]["train_loss"]
    assert records[-1]["validation_loss"] < 0.1
    assert len({record["probe"]["weight"] for record in records}) == 4, "the probe sees the weights of each epoch"
    assert all(0 <= record["lr"] <= 0.05 for record in records)
    saved = load_file(tmp_path / "checkpoint.safetensors")
    with safe_open(tmp_path / "checkpoint.safetensors", framework="pt") as file:
        assert file.metadata() == {"said": "so"}
    assert saved.keys() == model.state_dict().keys()
    assert all(torch.equal(saved[key], value) for key, value in model.state_dict().items())


def test_tests_the_epoch_best_on_validation(tmp_path: Path) -> None:
    class Forgets(nn.Module):
        """Answers the opposite from its fourth validation on."""

        def __init__(self) -> None:
            super().__init__()
            self.body = network()
            self.register_buffer("validations", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.body(x)
            return -logits if self.validations >= 3 and not self.training else logits

    model = Forgets()
    result = run(tmp_path, model, probe=lambda m: m.validations.add_(1) and {})
    records = lines(tmp_path)
    best = max(record["validation_top1"] for record in records)
    assert result["best_epoch"] < 4
    assert result["validation_top1"] == best > 90
    assert result["test_top1"] > 90
    assert result["last_validation_top1"] == records[-1]["validation_top1"] < 10
    assert result["last_test_top1"] < 10


def apart(model: nn.Module) -> list[dict[str, Any]]:
    """Sort the parameters in another order than the model's."""
    head = list(model[5].parameters())  # type: ignore[index]
    rest = [parameter for parameter in model.parameters() if all(parameter is not other for other in head)]
    return [{"params": head, "lr_scale": 0.5, "weight_decay": 0.1}, {"params": rest}]


@pytest.mark.parametrize(
    "options",
    [{}, {"groups": apart}, {"recipe": replace(RECIPE, epoch_steps=4, schedule="poly")}],
    ids=["plain", "groups", "steps"],
)
def test_resumes_bit_for_bit(tmp_path: Path, options: dict[str, Any]) -> None:
    """Dropout's random state, momentum, batch statistics and the place in a pass (6 batches) all continue."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    expected = run(whole, **options)
    for stop in (1, 3):

        def interrupt(record: dict[str, Any], stop: int = stop) -> None:
            if record["epoch"] == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(parts, on_epoch=interrupt, **options)
        assert len(lines(parts)) == stop
        torch.rand(7)  # other work in between must not matter
    seen: list[int] = []
    result = run(parts, on_epoch=lambda record: seen.append(record["epoch"]), **options)
    assert seen == [1, 2, 3, 4], "earlier epochs are reported again"
    assert lines(parts) == lines(whole)
    assert (parts / "checkpoint.safetensors").read_bytes() == (whole / "checkpoint.safetensors").read_bytes()
    timeless = [key for key in expected if not key.endswith(("_s", "_ms_per_image"))]
    assert {key: result[key] for key in timeless} == {key: expected[key] for key in timeless}


def test_a_run_half_finished_when_blocks_had_no_parts_resumes_bit_for_bit(tmp_path: Path) -> None:
    """The keys of its weights are older; momentum goes by the order of the parameters."""

    def with_block() -> nn.Module:
        torch.manual_seed(0)
        conv, *rest = network()
        return nn.Sequential(conv, SqueezeRemember2d(8, 8, blocks=3), *rest)

    def interrupt(record: dict[str, Any]) -> None:
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    run(whole, expected := with_block())
    with pytest.raises(KeyboardInterrupt):
        run(parts, with_block(), on_epoch=interrupt)
    with safe_open(parts / "trainer.safetensors", "pt") as file:
        tensors, header = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    del header["sha256"]  # younger than that
    older = {key.replace("1.address.", "1.").replace("1.memory.values", "1.memory"): tensors[key] for key in tensors}
    assert {key for key in older if key.startswith(("model/1.", "best/1."))} == {
        f"{part}/1.{name}" for part in ("model", "best") for name in ("squeeze", "fc1", "fc2", "memory")
    }
    (parts / "trainer.safetensors").write_bytes(save(older, header))
    run(parts, again := with_block())
    assert lines(parts) == lines(whole)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in expected.state_dict().items())
    assert again[1].memory.values.abs().max() > 0


def test_saves_no_more_often_than_costs_a_twentieth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first epoch, the last, and those so far from the save before that it cost at most 1/20 of the pause."""
    clock, saved = 0.0, []

    def write(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
        nonlocal clock
        clock += 1.0
        saved.append(len(lines(tmp_path)) + 1)  # the state is written before its epoch is told of
        write_pieces(path, pieces)

    def tick(record: dict[str, Any]) -> None:
        nonlocal clock
        clock += 7.0

    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock)
    monkeypatch.setattr(checkpoint, "write_pieces", write)
    monkeypatch.setattr(checkpoint, "save_weights", lambda *given: None)
    run(tmp_path, recipe=replace(RECIPE, epochs=9), on_epoch=tick)
    assert saved == [1, 4, 7, 9], "3 epochs of 7 s pass before a save of 1 s may be followed by another"


def test_a_caller_who_stops_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping at an epoch that was not saved saves it; a kill there would go back to the last save."""
    monkeypatch.setattr(checkpoint, "RARITY", math.inf)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    run(whole)

    def stop(record: dict[str, Any]) -> None:
        if record["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(parts, on_epoch=stop)
    assert checkpoint.read_trainer(parts / "trainer.safetensors", "test").state.epoch == 3
    told = []
    run(parts, on_epoch=lambda record: told.append(record["epoch"]))
    assert told == [1, 2, 3, 4]
    assert lines(parts) == lines(whole)
    assert (parts / "checkpoint.safetensors").read_bytes() == (whole / "checkpoint.safetensors").read_bytes()


def test_epochs_after_the_last_save_are_repeated_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a kill: metrics.jsonl knows three epochs, the state one."""
    monkeypatch.setattr(checkpoint, "RARITY", math.inf)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    run(whole)
    early = {}

    def stop(record: dict[str, Any]) -> None:
        if record["epoch"] == 1:
            early["state"] = (parts / "trainer.safetensors").read_bytes()
        if record["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(parts, on_epoch=stop)
    (parts / "trainer.safetensors").write_bytes(early["state"])
    assert len(lines(parts)) == 3
    seen = []
    run(parts, on_epoch=lambda record: seen.append((record["epoch"], len(lines(parts)))))
    assert seen == [(1, 1), (2, 2), (3, 3), (4, 4)], "the history is cut back to the saved epochs"
    assert lines(parts) == lines(whole)
    assert (parts / "checkpoint.safetensors").read_bytes() == (whole / "checkpoint.safetensors").read_bytes()


def test_the_best_weights_are_brought_to_the_cpu_once(tmp_path: Path) -> None:
    model = network().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    state = checkpoint.TrainerState([{"epoch": 1}], checkpoint.copy_weights(model))
    saver = checkpoint.Saver(tmp_path / "state", "test", model, optimizer, CPU)
    saver.save(state)
    first = {key: value.data_ptr() for key, value in state.best.items()}
    assert all(value.is_contiguous() and value.device == CPU for value in state.best.values())
    state.metrics.append({"epoch": 2})
    saver.save(state)
    assert {key: value.data_ptr() for key, value in state.best.items()} == first
    found = checkpoint.read_trainer(tmp_path / "state", "test")
    assert found.state.epoch == 2
    assert all(torch.equal(found.state.best[key], value) for key, value in model.state_dict().items())


def test_another_seed_or_rate_is_another_result(tmp_path: Path) -> None:
    """Guards the test above: bit equality must not come for free."""
    changes: list[dict[str, Any]] = [
        {}, {"seed": 1}, {"recipe": replace(RECIPE, weight_decay=0.0)}, {"recipe": replace(RECIPE, epoch_steps=4)},
        {"groups": apart},
    ]  # fmt: skip
    records = []
    for number, options in enumerate(changes):
        (tmp_path / str(number)).mkdir()
        run(tmp_path / str(number), **options)
        records.append(lines(tmp_path / str(number)))
    assert all(records[0] != other for other in records[1:])


def test_an_epoch_of_as_many_steps_as_a_pass_has_is_a_pass(tmp_path: Path) -> None:
    for name, steps in (("pass", None), ("steps", 6)):
        (tmp_path / name).mkdir()
        run(tmp_path / name, recipe=replace(RECIPE, epoch_steps=steps))
    assert lines(tmp_path / "pass") == lines(tmp_path / "steps")


def test_the_schedule_runs_over_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 epochs of 4 steps, whatever a pass has."""
    rates: list[float] = []
    monkeypatch.setattr("srblock.training.step.set_rate", lambda optimizer, rate: rates.append(rate))
    run(tmp_path, recipe=replace(RECIPE, epoch_steps=4, schedule="poly", power=1.0))
    assert rates == pytest.approx([0.05 * (1 - step / 16) for step in range(16)])
    assert [record["lr"] for record in lines(tmp_path)] == pytest.approx(rates[3::4])


def test_a_nan_names_the_epoch_and_keeps_what_was_written(tmp_path: Path) -> None:
    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.steps = network(), 0

        def forward(self, x: Tensor) -> Tensor:
            self.steps += self.training
            logits: Tensor = self.body(x)
            return logits * math.nan if self.steps > 2 * len(loaders().train) else logits

    with pytest.raises(TrainingDiverged, match=r"training loss became nan in epoch 3 of 4.*lower learning rate"):
        run(tmp_path, Breaks())
    assert [record["epoch"] for record in lines(tmp_path)] == [1, 2]
    assert (tmp_path / "trainer.safetensors").exists()


def test_a_probe_that_is_not_finite_ends_the_run_before_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="memory became inf in epoch 1 of 4"):
        run(tmp_path, probe=lambda model: {"memory": math.inf})
    assert lines(tmp_path) == []
    assert run(tmp_path)["test_top1"] == 100


def test_clipping_bounds_the_first_step(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1, momentum=0.0, weight_decay=0.0, clip_norm=1e-3, batch_size=96)
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    run(tmp_path, model, recipe)
    step = sum(float((p.detach() - q).square().sum()) for p, q in zip(model.parameters(), before, strict=True)) ** 0.5
    assert 0 < step <= 1.001 * 1e-3 * recipe.learning_rate


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    def stop(record: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, on_epoch=stop)
    state = tmp_path / "trainer.safetensors"
    with pytest.raises(checkpoint.CheckpointError, match="belongs to run 'test', expected 'other'"):
        run(tmp_path, run="other")
    with pytest.raises(checkpoint.CheckpointError, match="does not fit the network"):
        run(tmp_path, nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))
    whole = state.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"PK\x03\x04" + whole):
        state.write_bytes(damaged)
        with pytest.raises(
            checkpoint.CheckpointError, match=r"missing, damaged or no safetensors file.*delete the folder .* anew"
        ):
            run(tmp_path)
    checkpoint.save_weights(state, {"weight": torch.zeros(1)})
    with pytest.raises(checkpoint.CheckpointError, match="is not a trainer state of this version"):
        run(tmp_path)


def test_bfloat16_runs_under_autocast() -> None:
    seen = []
    model = network()
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    figures = evaluate(model, loaders().test.epoch(0), TASK, replace(RECIPE, precision="bfloat16"), CPU)
    assert set(seen) == {torch.bfloat16}
    assert math.isfinite(figures["loss"])
    assert 0 <= figures["top1"] <= 100


def test_evaluation_counts_every_image_once() -> None:
    """17 images in batches of 16: the last batch weighs one image, not a sixteenth more."""
    pixels, labels = striped(17, 5)
    model = network().eval()
    parts = [(pixels[:16].float(), labels[:16]), (pixels[16:].float(), labels[16:])]
    figures = evaluate(model, parts, TASK, RECIPE, CPU)
    with torch.no_grad():
        logits = model(pixels.float())
    assert math.isclose(figures["loss"], float(nn.functional.cross_entropy(logits, labels)), rel_tol=1e-5)
    assert math.isclose(figures["top1"], 100 * float((logits.argmax(1) == labels).float().mean()), rel_tol=1e-6)


def test_a_layer_with_a_schedule_sees_the_run_from_0_to_1(tmp_path: Path) -> None:
    class Ramp(nn.Identity):
        scheduled = True
        told: ClassVar[list[float]] = []

        def follow(self, progress: float) -> None:
            self.told.append(progress)

    run(tmp_path, nn.Sequential(Ramp(), *network()))
    assert Ramp.told == [0, 1 / 3, 2 / 3, 1]
