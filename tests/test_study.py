"""Studies: what makes two runs the same run, what is shared by a seed, what is reused."""

import json
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_resume import Silent, nothing
from test_resume import study as tiny_study

from srblock.data import ImageData
from srblock.executors.execute import run_study
from srblock.runs import records, run_one
from srblock.runs.analyze import _open
from srblock.runs.evaluate import evaluate_run
from srblock.runs.input import read_input
from srblock.runs.plan import measure_ms_per_image
from srblock.runs.records import read_result
from srblock.runs.run_one import Work, _refuse_another, make_folder, reuse
from srblock.runs.study import Study, recipe_for
from srblock.surgery import blocks
from srblock.training import checkpoint, runtime
from srblock.variants.notation import parse

CPU = torch.device("cpu")


def image_data(name: str = "cifar100", side: int = 32, flip: bool = True) -> ImageData:
    images, labels = torch.zeros(20, 3, side, side, dtype=torch.uint8), torch.arange(20) % 2
    return ImageData(
        name=name, train_images=images, train_labels=labels, test_images=images, test_labels=labels,
        classes=("a", "b"), fingerprint="f" * 64, flip=flip,
    )  # fmt: skip


def run(
    study: Study, out: Path, *, progress: Silent | None = None, probe: Any = nothing, inspect: Any = nothing
) -> list[records.Run]:
    return run_study(Work(study, out, probe, inspect), device=CPU, progress=progress or Silent())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path, list[records.Run]]:
    out = tmp_path_factory.mktemp("finished")
    study = tiny_study(2)
    return study, out, run(study, out, inspect=lambda model, test, *_: {"inspected": len(test)})


@pytest.mark.parametrize(
    ("name", "side", "flip", "expected"),
    [
        ("cifar100", 32, True, {"epochs": 200, "gamma": 0.2, "padding": 4, "flip": True}),
        ("cifar10", 32, True, {"epochs": 200, "gamma": 0.1, "weight_decay": 1e-4}),
        ("flowers", 64, True, {"schedule": "cosine", "padding": 8, "flip": True}),
        ("digits", 8, False, {"schedule": "cosine", "padding": 1, "flip": False}),
    ],
)
def test_the_recipe_follows_the_data(name: str, side: int, flip: bool, expected: dict[str, Any]) -> None:
    recipe = recipe_for(image_data(name, side, flip), CPU)
    assert {key: getattr(recipe, key) for key in expected} == expected
    assert recipe.precision == "float32", "bfloat16 is slower on a CPU"


def test_options_override_the_recipe_and_none_does_not() -> None:
    recipe = recipe_for(image_data(), CPU, "short", 7, batch_size=32, learning_rate=None, precision="bfloat16")
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.precision) == (7, 32, 0.1, "bfloat16")
    with pytest.raises(ValueError, match="no recipe 'long'; there are: auto, cifar10, cifar100, imagenet, cityscapes"):
        recipe_for(image_data(), CPU, "long")


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("short", {"scene_scale": 0.5}, "scene_scale belongs to scenes and would do nothing here, got scene_scale 0.5"),
        ("short", {"photometric": True}, "photometric belongs to scenes"),
        ("short", {"inference": "whole"}, "inference belongs to scenes"),
        ("short", {"end_lr": 0.01}, "end_lr belongs to the schedule poly"),
        ("short", {"augment_magnitude": 5}, "augment_magnitude belongs to randaugment"),
        ("finetune", {"augment_magnitude": 5}, "augment_magnitude belongs to randaugment"),
        ("short", {"milestones": [3]}, "milestones belongs to the schedule multistep"),
        ("short", {"gamma": 0.5}, "gamma belongs to the milestones of multistep"),
        ("short", {"crop": "resized", "padding": 4}, "padding belongs to the crop padded"),
        ("short", {"padding": 0, "padding_mode": "reflect"}, "padding_mode belongs to a padding above 0"),
        ("short", {"schedule": "multistep"}, "multistep lowers the rate at milestones, and there are none"),
    ],
)
def test_what_would_do_nothing_is_refused(name: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        recipe_for(image_data("flowers"), CPU, name, **changes)


def test_none_is_a_value_where_a_recipe_can_be_without() -> None:
    assert recipe_for(image_data("photos", 224), CPU, "finetune").clip_norm == 1.0
    plain = {"clip_norm": None, "norm_weight_decay": None, "test_resize": None, "learning_rate": None}
    recipe = recipe_for(image_data("photos", 224), CPU, "finetune", **plain)
    assert (recipe.clip_norm, recipe.norm_weight_decay, recipe.test_resize) == (None, None, None)
    assert recipe.learning_rate == 1e-3


@pytest.mark.parametrize("changes", [{"flip": "no"}, {"nesterov": "false"}, {"epochs": 2.5}, {"test_resize": "64"}])
def test_values_of_another_kind_are_refused(changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(ValueError, match=f"recipe {name} is .*, expected"):
        recipe_for(image_data(), CPU, "short", **changes)


def test_what_is_so_anyway_may_be_said() -> None:
    said = {"scene_scale": 1.0, "photometric": False, "padding_mode": "zeros", "end_lr": 0.0, "test_square": False}
    assert recipe_for(image_data(), CPU, "short", **said) == recipe_for(image_data(), CPU, "short")
    changed = {"auto_augment": "randaugment", "augment_magnitude": 5, "schedule": "multistep", "milestones": [3, 5]}
    assert recipe_for(image_data(), CPU, "short", **changed).augment_magnitude == 5
    assert recipe_for(image_data(), CPU, "airbench", schedule="cosine", padding_mode="zeros").padding == 2


def test_a_runs_name_tells_runs_apart() -> None:
    study = tiny_study()
    config = study.runs[0]
    others = [
        replace(config, seed=1),
        replace(config, variant=parse("R8 + D(p=0.2)")),
        replace(config, recipe=replace(config.recipe, weight_decay=0.0)),
        replace(config, data={**config.data, "fingerprint": "other"}),
        replace(config, weights="pretrained"),
    ]
    names = [config.name, *(other.name for other in others)]
    assert len(set(names)) == len(names)
    assert replace(config, data={**config.data, "name": "moved"}).name == config.name, "a folder may be renamed"
    assert config.name.startswith("r8-d-s0-")


def test_a_seed_shares_split_order_and_initial_weights() -> None:
    study = tiny_study()
    plain, with_block = (study.build(variant, 0).state_dict() for variant in study.variants)
    assert set(plain) < set(with_block)
    assert all(torch.equal(plain[key], with_block[key]) for key in plain)
    first, again, other = (study.loaders(seed, CPU) for seed in (0, 0, 1))
    labels = [[y.tolist() for _, y in loaders.train.epoch(0)] for loaders in (first, again, other)]
    assert labels[0] == labels[1] != labels[2]
    assert len(first.train.epoch(0).__next__()[0]) == study.recipe.batch_size


def test_a_segmentation_network_is_for_data_of_its_task_and_has_the_stem_of_its_weights() -> None:
    variant, data = parse("FCN-R18"), image_data()
    study = replace(tiny_study(), variants=(variant,), data=data)
    with pytest.raises(
        ValueError, match="FCN-R18 says of every pixel what it shows, and cifar100 has one class for an"
    ):
        study.build(variant, 0)
    study = replace(study, data=replace(data, task="segmentation"))
    assert {name: "conv1.weight" in study.build(variant, 0, stem=name).state_dict() for name in ("v1c", "7x7")} == {
        "v1c": False,
        "7x7": True,
    }


def test_memories_are_a_group_only_where_the_recipe_treats_them_differently() -> None:
    """Else the optimizer's one group is the model's parameters in their order: old half-finished runs resume by it."""
    study = tiny_study()
    plain, with_block = (study.build(variant, 0) for variant in study.variants)
    scaled, undecayed = ({"memory_lr_scale": 3.0}, {"memory_weight_decay": 0.0})
    for model, changes in ((plain, {}), (with_block, {}), (plain, scaled), (plain, undecayed)):
        (group,) = replace(study, recipe=replace(study.recipe, **changes)).groups(model)
        assert group.keys() == {"params"}
        assert all(ours is own for ours, own in zip(group["params"], model.parameters(), strict=True))
    (memory,) = (block.memory.values for block in blocks(with_block).values())
    for changes, expected in ((scaled, {"lr_scale": 3.0}), (undecayed, {"weight_decay": 0.0})):
        rest, memories = replace(study, recipe=replace(study.recipe, **changes)).groups(with_block)
        assert memories.pop("params") == [memory]
        assert memories == expected
        assert len(rest["params"]) == len(list(with_block.parameters())) - 1


def test_the_memorys_rate_and_decay_reach_a_run_with_a_block_and_no_other(
    finished: tuple[Study, Path, list[records.Run]], tmp_path: Path
) -> None:
    study, _, as_before = finished
    recipe = replace(study.recipe, memory_lr_scale=3.0, memory_weight_decay=0.0)
    runs = run(replace(study, recipe=recipe), tmp_path)
    for number, (now, before) in enumerate(zip(runs, as_before, strict=True)):
        ours, theirs = (load_file(each.directory / "checkpoint.safetensors") for each in (now, before))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs) == (number == 0)
        assert now.directory.name != before.directory.name


def test_weights_that_were_replaced_since_the_plan_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "start.safetensors"
    study = replace(tiny_study(), weights=file)
    save_file({"a": torch.zeros(2)}, file)
    config = study.runs[0]
    _refuse_another(study, config)
    save_file({"a": torch.ones(2)}, file)
    with pytest.raises(
        ValueError, match="the weights file for seed 0 has changed since the study began; start it anew"
    ):
        _refuse_another(study, config)


def test_runs_come_seed_by_seed() -> None:
    study = replace(tiny_study(), seeds=(0, 1))
    assert [(config.seed, str(config.variant)[:6]) for config in study.runs] == [
        (0, "R8 + D"), (0, "R8 + D"), (1, "R8 + D"), (1, "R8 + D"),
    ]  # fmt: skip


def test_results_say_what_was_done(finished: tuple[Study, Path, list[records.Run]]) -> None:
    study, _, (plain, with_block) = finished
    assert plain.overhead_percent == 0
    added = with_block.parameters - plain.parameters
    assert added == 64 + 4 * 8 + 8 * 3 + 3 * 64 * 4  # Eq. (1) with C = 64, 2x2, U = 8, P = 3
    assert with_block.overhead_percent == pytest.approx(100 * added / plain.parameters)
    assert read_result(plain.directory)["inspected"] == len(study.loaders(0, CPU).test)
    assert plain.environment["torch"] == torch.__version__.split("+")[0]
    assert plain.config.recipe == study.recipe
    assert len(plain.metrics) == 2
    assert not (plain.directory / "trainer.safetensors").exists(), "a finished run needs no trainer state"


def test_finished_runs_are_reused(finished: tuple[Study, Path, list[records.Run]]) -> None:
    study, out, runs = finished
    epochs: list[int] = []

    class Watch(Silent):
        def epoch(self, run: records.RunConfig, record: dict[str, Any]) -> None:
            epochs.append(record["epoch"])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = run(study, out, progress=Watch())
    assert epochs == []
    assert again == runs


def test_reuse_from_another_machine_warns(
    finished: tuple[Study, Path, list[records.Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, out, _ = finished
    monkeypatch.setattr(torch, "get_num_threads", lambda: 999)
    with pytest.warns(UserWarning, match=r"is reused but was made with threads \d+ \(now 999\)"):
        run(study, out)


class Interrupt(Silent):
    def epoch(self, run: records.RunConfig, record: dict[str, Any]) -> None:
        raise KeyboardInterrupt


def test_going_on_elsewhere_warns_and_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, study = torch.get_num_threads(), tiny_study(2)
    with pytest.raises(KeyboardInterrupt):
        run(study, tmp_path, progress=Interrupt())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 999)
    with pytest.warns(UserWarning, match=rf"goes on but was started with threads {threads} \(now 999\)"):
        first, second = run(study, tmp_path)
    assert first.environment["started_on"]["threads"] == threads
    assert "started_on" not in second.environment


def test_going_on_with_other_code_warns_and_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tiny_study(1)
    monkeypatch.setattr(runtime, "_commit", lambda: "0123456789ab")
    with pytest.raises(KeyboardInterrupt):
        run(study, tmp_path, progress=Interrupt())
    monkeypatch.setattr(runtime, "_commit", lambda: "ba9876543210")
    with pytest.warns(UserWarning, match=r"was started with commit 0123456789ab \(now ba9876543210\)"):
        first, *_ = run(study, tmp_path)
    assert (first.environment["commit"], first.environment["started_on"]["commit"]) == ("ba9876543210", "0123456789ab")


def test_published_weights_of_another_version_of_their_library_are_said(
    finished: tuple[Study, Path, list[records.Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, (first, *_) = finished
    here = first.environment | {"torchvision": "0.0", "timm": "0.0", "commit": "ba9876543210"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reuse(first.directory, first.config, here)
    pretrained = replace(first, config=replace(first.config, weights="pretrained"))
    monkeypatch.setattr(run_one, "read_run", lambda directory: pretrained)
    with pytest.warns(UserWarning, match=r"is reused but was made with torchvision [0-9.+a-z]+ \(now 0.0\); use"):
        reuse(first.directory, pretrained.config, here)


def test_where_a_run_began_is_known_after_further_interruptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, study = torch.get_num_threads(), tiny_study(3)
    with pytest.raises(KeyboardInterrupt):
        run(study, tmp_path, progress=Interrupt())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 999)
    with pytest.warns(UserWarning, match="goes on but was started"), pytest.raises(KeyboardInterrupt):
        run(study, tmp_path, progress=Interrupt())
    first, _ = run(study, tmp_path)
    assert first.environment["threads"] == 999
    assert first.environment["started_on"]["threads"] == threads


def test_a_trainer_state_left_by_a_late_kill_is_removed(finished: tuple[Study, Path, list[records.Run]]) -> None:
    study, out, runs = finished
    scrap = runs[0].directory / "trainer.safetensors"
    scrap.touch()
    run(study, out)
    assert not scrap.exists()


def test_a_diverging_variant_does_not_end_the_others(tmp_path: Path) -> None:
    failed: list[str] = []

    class Watch(Silent):
        def failed(self, run: records.RunConfig, error: Exception) -> None:
            failed.append(f"{run.variant}: {error}")

    study = tiny_study(1)
    good = run(study, tmp_path)
    breaking = replace(study, recipe=replace(study.recipe, learning_rate=1e30))
    assert run(breaking, tmp_path, progress=Watch()) == []
    assert len(failed) == 2
    assert "epoch 1 of 1" in failed[0]
    assert run(study, tmp_path) == good


def test_a_failing_run_does_not_end_the_others(tmp_path: Path) -> None:
    """Whatever it raises; its traceback is in its log. The same command tries it again."""
    told: list[str] = []

    class Watch(Silent):
        def failed(self, run: records.RunConfig, error: Exception) -> None:
            told.append(f"{run.variant}: {error}")

    def probe(model: torch.nn.Module) -> dict[str, float]:
        if not blocks(model):
            raise LookupError("nothing like that here")
        return {}

    study = tiny_study(1)
    (made,) = run(study, tmp_path, progress=Watch(), probe=probe)
    assert made.variant == study.variants[1]
    log = tmp_path / "runs" / study.runs[0].name / "log.txt"
    assert told == [f"R8 + D: LookupError: nothing like that here; see {log}"]
    assert log.read_text().startswith("Traceback")
    assert len(run(study, tmp_path)) == 2


def test_what_the_display_raises_is_no_failure_of_a_run(tmp_path: Path) -> None:
    class Broken(Silent):
        def epoch(self, run: records.RunConfig, record: dict[str, Any]) -> None:
            raise BrokenPipeError(32, "nobody reads")

        def failed(self, run: records.RunConfig, error: Exception) -> None:
            raise AssertionError

    with pytest.raises(BrokenPipeError, match="nobody reads"):
        run(tiny_study(1), tmp_path, progress=Broken())
    assert len(run(tiny_study(1), tmp_path)) == 2


def test_evaluating_again_gives_the_recorded_figure(
    finished: tuple[Study, Path, list[records.Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _, runs = finished
    monkeypatch.setattr("srblock.runs.reopen.load_data", lambda source, image_size: study.data)
    for each in runs:
        found = evaluate_run(each.directory, device=CPU)
        assert found.value == found.recorded == each.score
        assert (found.loss, found.figures[0][0].label) == (each.test_loss, "top-1")


def test_evaluating_on_other_data_warns_or_refuses(
    finished: tuple[Study, Path, list[records.Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _, runs = finished
    other = replace(study.data, fingerprint="other")
    monkeypatch.setattr("srblock.runs.reopen.load_data", lambda source, image_size: other)
    with pytest.warns(UserWarning, match="is not the data that the run was trained on"):
        evaluate_run(runs[0].directory, device=CPU)
    other = replace(study.data, classes=("up", "down"))
    with pytest.raises(ValueError, match="was trained on 2 classes of 8x8 images; stripes has 2 classes"):
        evaluate_run(runs[0].directory, device=CPU)


def test_other_data_is_normalized_as_the_network_was_trained(
    finished: tuple[Study, Path, list[records.Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What images the other set has to train on is nothing to the test."""
    study, _, runs = finished
    darker = replace(study.data, fingerprint="darker", train_images=study.data.train_images // 4)
    monkeypatch.setattr("srblock.runs.reopen.load_data", lambda source, image_size: darker)
    for each in runs:
        with pytest.warns(UserWarning, match="is not the data that the run was trained on"):
            found = evaluate_run(each.directory, device=CPU)
        assert (found.value, found.loss) == (each.score, each.test_loss)
    (block,) = (each for each in runs if each.variant.sr_blocks)
    with pytest.warns(UserWarning, match="is not the data that the run was trained on"):
        opened = _open(block.directory, None, None, CPU)
    assert opened.test.mean == opened.part(10).mean == study.loaders(block.seed, CPU).test.mean
    header = read_input(block.directory / "checkpoint.safetensors")
    monkeypatch.setattr("srblock.runs.loaders.read_input", lambda path: read_input(path.with_name("config.json")))
    assert header.mean == opened.test.mean
    with pytest.warns(UserWarning, match="is not the data|are normalized") as said:
        evaluate_run(block.directory, device=CPU)
    assert any("images are normalized by the training part of this data" in str(one.message) for one in said)


def test_damaged_runs_are_named(
    finished: tuple[Study, Path, list[records.Run]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _, runs = finished
    with pytest.raises(FileNotFoundError, match="holds no finished run"):
        records.read_run(tmp_path)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in runs[0].directory.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    for damaged in (b'{"variant": ', b"{}", b"[]", b"null", b"\xff\xfe", b""):
        (copy / "result.json").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"is damaged .*; delete the folder to train it anew"):
            records.read_run(copy)
    (copy / "result.json").write_text(json.dumps(read_result(runs[0].directory)))
    whole = (copy / "checkpoint.safetensors").read_bytes()
    (copy / "checkpoint.safetensors").write_bytes(whole[:-10])
    monkeypatch.setattr("srblock.runs.reopen.load_data", lambda source, image_size: study.data)
    with pytest.raises(checkpoint.CheckpointError, match=r"no whole safetensors file .* delete the folder .* anew"):
        evaluate_run(copy, device=CPU)


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot make the folder .*choose a writable one with --out"):
        make_folder(tmp_path / "file" / "runs")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=r"cannot write into .*--out"):
        make_folder(tmp_path / "locked")


def test_a_full_disk_keeps_finished_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up in the second run; after space is made the same study goes on."""
    study, replace_file, files = tiny_study(2), os.replace, []

    def filling(source: Any, target: Any) -> None:
        files.append(Path(target).name)
        if files.count("result.json") == 1 and files.count("trainer.safetensors") == 3:
            raise OSError(28, "No space left on device")
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", filling)
    with pytest.raises(OSError, match=r"cannot write .*trainer\.safetensors: No space left on device\. Finished runs"):
        run(study, tmp_path)
    monkeypatch.undo()
    first, second = (tmp_path / "runs" / config.name for config in study.runs)
    assert records.finished(first)
    assert not records.finished(second)
    before = (first / "result.json").read_bytes()
    assert len(run(study, tmp_path)) == 2
    assert (first / "result.json").read_bytes() == before


def test_the_measured_time_is_one_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps 2 s with every turn, which is a step of 16 images: 125 ms each."""
    clock = iter((100.0, 102.0) * 3)
    monkeypatch.setattr("srblock.training.runtime.now", lambda device: next(clock))
    variant = parse("R8 + D")
    assert measure_ms_per_image(tiny_study(1), [variant], CPU) == {variant: pytest.approx(125)}
