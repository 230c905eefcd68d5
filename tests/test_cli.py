"""The command line as a person uses it: real commands, real digits, wrong inputs."""

import contextlib
import csv
import hashlib
import inspect
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import typing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scene_fixture import write_cityscapes

import srblock
from srblock import cli
from srblock.cli import running
from srblock.cli.options import StudyOptions, WorkOptions
from srblock.experiments import session as experiment
from srblock.report.published import markdown, published
from srblock.runs.again import again
from srblock.runs.records import read_run
from srblock.statistics.equivalence import MARGIN
from srblock.training import runtime
from srblock.variants.notation import parse

DIGITS = ["--data", "digits", "--epochs", "1"]
PLAIN, BLOCK = "R8", "R8 + SR(M=3, P=4)"
pytestmark = pytest.mark.usefixtures("unpainted")  # the module's `compared` is drawn: it comes before


@dataclass
class Result:
    exit_code: int
    output: str


def invoke(*words: object) -> Result:
    """Run as `srblock ...` would, in this process; what it prints on either stream is its output."""
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        patch.setattr(sys, "argv", ["srblock", *map(str, words)])
        patch.setattr(sys.modules["srblock.cli.app"], "START", time.monotonic())
        with pytest.raises(SystemExit) as left:
            cli.main()
    return Result(int(left.value.code or 0), shown.getvalue())


def error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> str:
    """Run as `srblock ...` would and return its one line on standard error."""
    monkeypatch.setattr(sys, "argv", ["srblock", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("out")
    return out, invoke("compare", PLAIN, BLOCK, *DIGITS, "--seeds", 2, "--out", out)


def test_compare_prints_a_table_and_leaves_a_report(compared: tuple[Path, Result]) -> None:
    out, result = compared
    assert result.exit_code == 0, result.output
    for text in ("test top-1", "95% interval", "P(A > B)", "overhead"):
        assert text in result.output
    report = next(out.glob("compare-digits-*/report.html")).read_text()
    assert report.count("<svg") >= 3
    assert "Class by class" in report
    with next(out.glob("compare-digits-*/classes.csv")).open() as file:
        assert [row["class"] for row in csv.DictReader(file)] == list("0123456789")
    with next(out.glob("compare-digits-*/results.csv")).open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["variant"], row["seed"]) for row in rows].count((BLOCK, "1")) == 1
    assert len(rows) == 4
    assert all(0 <= float(row["test_top1"]) <= 100 for row in rows)


def test_the_same_command_again_trains_nothing(compared: tuple[Path, Result]) -> None:
    out, first = compared
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*") if path.name != ".lock"}
    again = invoke("compare", PLAIN, BLOCK, *DIGITS, "--seeds", 2, "--out", out)
    assert again.exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    figures = re.compile(r"\d\d\.\d\d ± \d\.\d\d")
    assert figures.findall(again.output) == figures.findall(first.output) != []


def test_one_seed_says_that_nothing_can_be_said(compared: tuple[Path, Result]) -> None:
    out, _ = compared
    result = invoke("compare", PLAIN, BLOCK, *DIGITS, "--seeds", 1, "--out", out)
    assert result.exit_code == 0
    assert "one seed" in result.output.lower()
    assert "±" not in result.output.split("Test top-1")[0]
    page = max(out.glob("compare-digits-*/report.html"), key=lambda file: file.stat().st_mtime_ns).read_text()
    found = re.search(r"alone has (\d+), R8 alone (\d+)\.", page)
    assert found is not None
    alone = [int(count) for count in found.groups()]
    assert sum(alone) > 0, "one epoch's networks differ on some of 359 images"
    assert page.count('<img src="data:image/png;base64,') == sum(min(8, count) for count in alone)


def test_a_dry_run_plans_and_trains_nothing(tmp_path: Path) -> None:
    result = invoke("compare", PLAIN, BLOCK, *DIGITS, "--seeds", 5, "--out", tmp_path, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "10 runs" in result.output
    assert "overhead" in result.output
    assert not list(tmp_path.iterdir()), "a plan leaves nothing behind"


def test_fine_tuning_random_weights_is_remarked_upon(tmp_path: Path) -> None:
    words = ["compare", PLAIN, BLOCK, "--data", "digits", "--recipe", "finetune", "--dry-run", "--out", tmp_path]
    said = "is for trained weights, and these networks start from random ones"
    assert said in " ".join(invoke(*words).output.split())
    (tmp_path / "weights.pth").touch()
    assert said not in " ".join(invoke(*words, "--weights", tmp_path / "weights.pth").output.split())


def test_a_plan_with_nothing_left_measures_nothing(compared: tuple[Path, Result]) -> None:
    out, _ = compared
    result = invoke("compare", PLAIN, BLOCK, *DIGITS, "--seeds", 2, "--out", out, "--dry-run")
    assert re.search(r"R8 .* M +- ", result.output), result.output


def test_a_dry_run_without_the_data_has_its_published_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRBLOCK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("a plan must download nothing"))
    words = ["reproduce", "table1", "--rows", "R18 + SR", "--seeds", 5, "--out", tmp_path / "out"]
    planned = invoke(*words, "--dry-run")
    assert planned.exit_code == 0, planned.output
    text = " ".join(planned.output.split())
    assert "50,000 training and 10,000 test images of 32x32 in 100 classes" in text
    assert "R18 11,220,132 0.00% 1.11 G - 5 of 5 -" in text
    assert "R18 + SR(M=4, P=2) 11,237,172 0.15% 1.11 G - 5 of 5 -" in text
    assert "10 runs. cifar100 is not at hand" in text
    assert not list(tmp_path.iterdir())
    imagenet = invoke("reproduce", "table3", "--rows", "R50 + SR", "--dry-run").output
    assert "1,281,167 training and 50,000 test images of 224x224 in 1000 classes" in " ".join(imagenet.split())


def test_when_all_runs_diverge_the_command_fails(tmp_path: Path) -> None:
    result = invoke("compare", PLAIN, BLOCK, *DIGITS, "--seeds", 1, "--lr", 1e30, "--out", tmp_path)
    assert result.exit_code == 1
    assert result.output.count("failed") == 2
    assert not list(tmp_path.glob("compare-*"))


def test_train_then_evaluate(tmp_path: Path) -> None:
    trained = invoke("train", BLOCK, *DIGITS, "--seed", 3, "--out", tmp_path)
    assert trained.exit_code == 0, trained.output
    folder = next((tmp_path / "runs").iterdir())
    assert str(folder) in trained.output
    tested = invoke("evaluate", folder)
    assert tested.exit_code == 0, tested.output
    percent = re.findall(r"(\d+\.\d\d)%", tested.output)
    assert percent[0] == percent[1]


def test_options_reach_the_recipe(tmp_path: Path) -> None:
    options = {"--schedule": "poly", "--epoch-steps": 7, "--memory-lr-scale": 4.0, "--memory-weight-decay": 0.0,
               "--lr": 0.05, "--batch-size": 32, "--clip-norm": 1.0}  # fmt: skip
    trained = invoke("train", BLOCK, *DIGITS, "--out", tmp_path, *(word for pair in options.items() for word in pair))
    assert trained.exit_code == 0, trained.output
    recipe = json.loads(next(tmp_path.glob("runs/*/config.json")).read_text())["recipe"]
    names = [name.removeprefix("--").replace("-", "_") for name in options]
    recipe["lr"] = recipe["learning_rate"]
    assert {name: recipe[name] for name in names} == dict(zip(names, options.values(), strict=True))


def test_training_starts_from_a_weights_file(tmp_path: Path) -> None:
    """An epoch at a rate of nearly zero from trained weights is far better than one from scratch."""
    invoke("train", PLAIN, "--data", "digits", "--epochs", 6, "--out", tmp_path)
    weights = next((tmp_path / "runs").iterdir()) / "checkpoint.safetensors"
    frozen = ["--data", "digits", "--epochs", 1, "--lr", 1e-9, "--out", tmp_path / "b"]
    figures = {}
    for name, options in (("scratch", []), ("trained", ["--weights", weights])):
        result = invoke("train", BLOCK, *frozen, *options)
        assert result.exit_code == 0, result.output
        figures[name] = float(re.findall(r"test top-1 (\d+\.\d\d)%", result.output)[0])
    assert figures["trained"] > 80 > 40 > figures["scratch"]


def test_other_starting_weights_make_another_report(tmp_path: Path) -> None:
    invoke("train", PLAIN, *DIGITS, "--out", tmp_path)
    weights = next((tmp_path / "runs").iterdir()) / "checkpoint.safetensors"
    for options in ([], ["--weights", weights]):
        result = invoke("compare", PLAIN, BLOCK, *DIGITS, "--seeds", 1, "--out", tmp_path, *options)
        assert result.exit_code == 0, result.output
    assert len(list(tmp_path.glob("compare-*/report.html"))) == 2


def test_each_seed_starts_from_weights_of_its_own(tmp_path: Path) -> None:
    """At a rate of nearly zero each seed tests as the network that it starts from, and both seeds are one study."""
    before = invoke("compare", PLAIN, BLOCK, "--data", "digits", "--epochs", 3, "--seeds", 2, "--out", tmp_path / "a")
    assert before.exit_code == 0, before.output
    pattern = tmp_path / "a" / "runs" / "r8-s{seed}-*" / "checkpoint.safetensors"
    frozen = ["--data", "digits", "--epochs", 1, "--lr", 1e-9, "--out", tmp_path / "b", "--weights", pattern]
    after = invoke("compare", PLAIN, BLOCK, *frozen, "--seeds", 2)
    assert after.exit_code == 0, after.output
    assert "from trained weights, of each seed its own" in next(tmp_path.glob("b/compare-*/report.html")).read_text()
    runs = {(str(run.variant), run.seed): run for run in map(read_run, (tmp_path / "b" / "runs").iterdir())}
    started = {run.seed: run for run in map(read_run, (tmp_path / "a" / "runs").glob("r8-s[0-9]-*"))}
    for (_, seed), run in runs.items():
        digest = hashlib.sha256((started[seed].directory / "checkpoint.safetensors").read_bytes()).hexdigest()
        assert run.config.weights == f"seed:{digest}"
        assert run.config.start == "seed:"
        assert again(run.config, {}).options.endswith("--weights 'FILE{seed}'")
        assert again(run.config, {}).unsaid == (f"FILE has the SHA-256 {digest}",)
        own, *others = (
            load_file(there.directory / "checkpoint.safetensors")["conv1.weight"] for there in (run, *started.values())
        )
        assert [torch.allclose(own, other) for other in others] == [seed == there for there in started]
    (study,) = published(list(runs.values()))
    assert [row.seeds for row in study.rows] == [(0, 1), (0, 1)]
    assert "Training starts from trained weights, of each seed its own." in markdown(study)

    for number in (2, 20):  # of seed 2 "s{seed}*" is no pattern of s20
        (tmp_path / f"c-s{number}0.pth").touch()
    missing = invoke("train", PLAIN, *frozen[:-1], tmp_path / "c-s{seed}*.pth", "--seed", 2)
    assert "for seed 2 to start from; check --weights" in " ".join(missing.output.split())
    missing = invoke("compare", PLAIN, BLOCK, *frozen, "--seeds", 3)
    assert missing.exit_code == 2
    assert "for seed 2 to start from; check --weights" in " ".join(missing.output.split())
    next(tmp_path.glob("a/runs/r8-s1-*")).joinpath("checkpoint.safetensors").unlink()
    shutil.copytree(next(tmp_path.glob("a/runs/r8-s0-*")), tmp_path / "a" / "runs" / "r8-s0-other")
    several = invoke("compare", PLAIN, BLOCK, *frozen, "--seeds", 1)
    assert several.exit_code == 2
    assert "there are 2 files for it" in " ".join(several.output.split())


def test_stages() -> None:
    listed = invoke("stages", "torchvision/resnet18", "--input-size", 64)
    assert listed.exit_code == 0, listed.output
    assert re.search(r"layer3\s+M=3\s+256\s+4x4", listed.output)
    assert "conv1" not in listed.output
    whole = invoke("stages", "torchvision/resnet18", "--input-size", 64, "--all").output
    assert whole.index("layer4 ") < whole.index("conv1"), "the stages come first"
    unnumbered = invoke("stages", "timm/hrnet_w18_small", "--input-size", 64).output
    assert "the stages of timm/hrnet_w18_small cannot be numbered" in unnumbered
    assert re.search(r"conv1\s+-\s+64\s+32x32", unnumbered)


def test_only_commands_that_train_say_that_epochs_are_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["srblock.cli.app"], "take_options", interrupt)
    for words, said in (
        (["overhead"], "\nstopped.\n"),
        (["train", "R8"], "\nstopped. Finished epochs are kept; go on"),
    ):
        monkeypatch.setattr(sys, "argv", ["srblock", *words])
        with pytest.raises(SystemExit, match="130"):
            cli.main()
        assert capsys.readouterr().err.startswith(said)


def test_tables_for_other_programs() -> None:
    places = invoke("stages", "torchvision/resnet18", "--input-size", 64, "--format", "csv")
    assert places.exit_code == 0, places.output
    assert places.output.splitlines()[3] == f"layer3,3,256,4,4,{256 + 16 * 8 + 8 * 10 + 10 * 256 * 16}"  # Eq. (1)
    assert len(list(csv.DictReader(io.StringIO(invoke("audit", "--format", "csv").output)))) == 44
    assert invoke("audit", "--ddof", 0, "--format", "latex").output.startswith("% Table I, CIFAR-100\n\\begin{tabular}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "R8"], "compare needs two variants or more"),
        (["compare", "R8", "R8"], "R8 is named twice"),
        (["compare", "R8", "R8 + SRR(M=3)"], "SR"),
        (["compare", "R9", "R8"], "R8"),
        (["compare", "R8", "R8 + SR(M=4)"], "3"),
        (["compare", "R8", "R8 + SE", "--data", "no/such/folder"], "no/such/folder"),
        (["compare", "R8", "R8 + SE", "--recipe", "long"], "there is no recipe 'long'"),
        (["compare", "R8", "R8 + SE", "--epochs", "0"], "epochs must be at least 1"),
        (["compare", "R8", "R8 + SE", "--lr", "-1"], "learning_rate must be positive"),
        (["compare", "R8", "R8 + SE", "--device", "quantum"], "--device auto or cpu"),
        (["compare", "R8", "R8 + SE", "--device", "meta"], "training runs on cpu and cuda, not on meta"),
        (["compare", "R8", "R8 + SE", "--precision", "float16"], "precision must be one of"),
        (["compare", "R8", "R8 + SE", "--weights", "none.pth"], "there is no file none.pth"),
        (["compare", "R8", "R8 + SE", "--weights", "x.pth", "--pretrained"], "give one of them"),
        (["compare", "R8", "R8 + SE", "--pretrained"], "weights"),
        (["evaluate", "no/such/run"], "holds no finished run"),
        (["stages", "torchvision/resnet19"], "resnet18"),
        (["train", "VGG16", "--data", "digits"], "--image-size 32"),
    ],
)
def test_wrong_input_is_one_clear_line(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    text = error(capsys, monkeypatch, *words)
    assert text.startswith("error: ")
    assert message in text
    assert not list(tmp_path.glob("out/runs/*/*.json*")), "nothing was trained"


def test_seeds_can_be_named_and_have_a_report_of_their_own(tmp_path: Path) -> None:
    """Runs are found by their seed, however it was asked for; the report of seeds 1 and 2 replaces no other."""
    words = ["compare", PLAIN, BLOCK, *DIGITS, "--out", tmp_path]
    assert invoke(*words, "--seeds", "1-2").exit_code == 0
    assert sorted(json.loads(path.read_text())["seed"] for path in tmp_path.glob("runs/*/config.json")) == [1, 1, 2, 2]
    planned = invoke(*words, "--seeds", "2", "--dry-run").output
    assert "4 runs: 2 finished, 0 started, 2 not started" in planned, "seed 1 of both is there, seed 0 is not"
    (report,) = tmp_path.glob("compare-*/results.csv")
    assert report.parent.name.endswith("-seeds-1-2")


def test_a_reports_study_file_repeats_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ["--out", tmp_path / "out"]
    options = [
        "--image-size",
        12,
        "--lr",
        0.05,
        "--no-flip",
        "--seeds",
        "1-2",
        "--margin",
        0.5,
        "--precision",
        "float32",
    ]
    first = invoke("compare", PLAIN, BLOCK, *DIGITS, *options, *out)
    assert first.exit_code == 0, first.output
    (study,) = (tmp_path / "out").glob("compare-*/study.toml")
    assert f"again:       {study}" in first.output
    again = invoke("compare", "--config", study, *out)
    assert again.exit_code == 0, again.output
    assert len(re.findall(r"^\[./4\].* found ", again.output, re.MULTILINE)) == 4, "the same runs"
    assert len(list((tmp_path / "out").glob("compare-*"))) == 1
    more = invoke("compare", f"--config={study}", "--seeds", "1-3", "--epochs", 2, "--dry-run", *out)
    assert "12x12" in more.output
    assert "2 epochs of batches of 64, seeds 1, 2, 3" in " ".join(more.output.split()), "the command line counts"
    assert "3 of 3" in invoke("compare", "R8", "R20", "--config", study, "--seeds", 3, "--dry-run", *out).output
    assert "R20" not in invoke("compare", *DIGITS, PLAIN, BLOCK, "--dry-run", *out).output, "forgotten afterwards"
    assert invoke("compare", "--config", study, "--margin", 1, *out).exit_code == 0
    assert len(list((tmp_path / "out").glob("compare-*"))) == 2, "another margin overwrites nothing"
    for text, message in (
        ("variants = 3", 'variants are texts, such as ["R18", "R18 + SR(M=4)"], got 3'),
        ("image-sise = 3", 'Unknown option: "[image-sise]"'),
        ("image-size = 'a'", "unable to convert"),
        ("variants", "cannot be read"),
        ("no-flip = true", "an option in a file has no 'no-' before it; write flip = false"),
        ("no_lookahead = false", "write lookahead = true"),
        ("epochs = 3.7", 'Invalid value "3.7" for --epochs. Must be a whole number.'),
    ):
        study.write_text(text)
        assert message in error(capsys, monkeypatch, "compare", "--config", study)
    assert "there is no file" in error(capsys, monkeypatch, "compare", "--config", tmp_path / "none.toml")


def test_an_output_folder_in_the_way(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    text = error(capsys, monkeypatch, "compare", PLAIN, BLOCK, *DIGITS, "--out", tmp_path / "taken" / "out")
    assert "choose a writable one with --out" in text


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize(
    ("number", "status", "more"),
    [(signal.SIGINT, 130, []), (signal.SIGTERM, 143, ["--workers", "2"])],
)
def test_a_signal_ends_a_study_cleanly_and_the_same_command_goes_on(
    tmp_path: Path, number: signal.Signals, status: int, more: list[str]
) -> None:
    words = ["compare", PLAIN, BLOCK, "--data", "digits", "--epochs", "5", "--seeds", "1", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "srblock", *words, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a parent in the background ignores it
    )
    deadline = time.time() + 120
    while not any(path.stat().st_size for path in tmp_path.glob("runs/*/metrics.jsonl")):
        assert process.poll() is None
        assert time.time() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    assert "go on with the same command" in errors
    assert f"--out {tmp_path}" in errors
    assert not list(tmp_path.glob("runs/*/result.json")), "it was to be stopped in the midst of a run"
    assert "started, " in (planned := invoke(*words, "--dry-run").output)
    assert "0 started" not in planned
    done = invoke(*words)  # workers of its own would take their time to start
    assert done.exit_code == 0, done.output
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 2


COMMANDS = ("compare", "train", "evaluate", "reproduce", "sweep", "stages", "overhead", "audit", "results pack",
            "results add", "results tables")  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_narrow_terminal_and_shows_an_example_that_can_be_given(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = invoke(*command.split(), "--help")
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert max(map(len, lines)) <= 80
    summary = lines[2:4]
    assert summary[1] == "", f"the first sentence takes more than a line: {summary}"
    (example,) = [line.removeprefix("Example: ") for line in lines if line.startswith("Example: ")]
    name, *words = shlex.split(example)
    assert (name, words[: len(command.split())]) == ("srblock", command.split())
    cli.app.parse_args(words, print_error=False, exit_on_error=False)


def test_help_has_headings_for_the_options() -> None:
    shown = invoke("reproduce", "--help").output
    for heading in ("What to run", "Data", "Training", "Where it runs", "Output"):
        assert f"─ {heading} " in shown


def test_without_arguments_there_is_help() -> None:
    assert invoke().output == invoke("--help").output
    assert "--install-completion" in invoke().output
    assert invoke("--version").output.strip() == srblock.__version__


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare"], "compare needs two variants or more, got none"),
        (["compare", "R8", "R18", "--sedes", "3"], "Did you mean --seeds?"),
        (["compair", "R8"], 'Did you mean "compare"?'),
        (["compare", "R8", "R18", "--seeds", "many"], "--seeds must be how many, such as 5, or from which to which"),
        (["compare", "R8", "R18", "--seeds", "0"], "such as 5-9, got 0"),
        (["compare", "R8", "R18", "--seeds=-3"], "such as 5-9, got -3"),
        (["compare", "R8", "R18", "--seeds", "9-5"], "such as 5-9, got 9-5"),
        (["compare", "R8", "R18", "--image-size", "-3"], "Must be >= 1"),
        (["train"], "VARIANT requires an argument"),
        (["train", "R8", "--no-pretrained"], "Unknown option"),
        (["stages", "R18", "R34"], "R34"),
        (["reproduce", "table1", "--activation", "tanh"], 'Choose from: "relu"'),
        (["reproduce", "table1", "--dropout-stages", "last"], "numbers such as 4 or 3+4, got 'last'"),
        (["reproduce", "table1", "--rows", "R18 + SR", "--dropout-rate", "0.2"], "none of these rows has it: R18, R18"),
    ],
)
def test_wrong_options_are_one_line_that_helps(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = error(capsys, monkeypatch, *words)
    assert text.startswith("error: ")
    assert message in text
    assert len(text.splitlines()) <= 2


def test_a_time_budget_ends_a_study_and_the_same_command_goes_on(tmp_path: Path) -> None:
    words = ["compare", PLAIN, BLOCK, "--data", "digits", "--epochs", 60, "--seeds", 2, "--out", tmp_path]
    stopped = invoke(*words, "--minutes", 0.1)
    assert stopped.exit_code == 75, stopped.output
    text = " ".join(stopped.output.split())
    assert re.search(
        r"The time is up with [34] runs left, about .*\d s\. Go on with the same command: srblock compare", text
    )
    planned = invoke(*words, "--dry-run").output
    assert re.search(r"[1-9] (finished|started)", planned), "what was done in the time is kept"


def test_what_is_finished_when_the_time_is_up_is_reported(compared: tuple[Path, Result], tmp_path: Path) -> None:
    out, _ = compared
    for folder in (out / "runs").iterdir():
        (tmp_path / "runs").mkdir(exist_ok=True)
        (tmp_path / "runs" / folder.name).symlink_to(folder)
    stopped = invoke("compare", PLAIN, BLOCK, *DIGITS, "--seeds", 3, "--out", tmp_path, "--minutes", 1e-6)
    assert stopped.exit_code == 75, stopped.output
    assert "with 2 runs left, about" in " ".join(stopped.output.split())
    assert list(tmp_path.glob("compare-*/report.html"))
    nothing = invoke("compare", PLAIN, BLOCK, *DIGITS, "--seeds", 3, "--out", tmp_path / "b", "--minutes", 1e-6)
    assert nothing.exit_code == 75
    assert not list(tmp_path.glob("b/compare-*")), "nothing to compare yet"
    alone = invoke("train", PLAIN, *DIGITS, "--out", tmp_path / "b", "--minutes", 1e-6)
    assert alone.exit_code == 75
    assert "1 run left." in alone.output


def test_a_budget_counts_from_the_start_and_leaves_time_for_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["srblock.cli.app"], "START", 1000.0)
    for minutes, expected in ((None, None), (60, 1000 + 3600 - 10), (0.5, 1000 + 30 - 7.5)):
        assert running.asked(StudyOptions(minutes=minutes), WorkOptions()).deadline == expected


def test_a_report_waits_until_there_is_something_to_compare_or_nothing_more_to_come() -> None:
    plain, block = SimpleNamespace(variant=PLAIN), SimpleNamespace(variant=BLOCK)
    for runs, left, expected in (([], 0, False), ([plain], 3, False), ([plain, block], 2, True), ([plain], 0, True)):
        assert experiment.Done(runs, left=left).worth_a_report is expected  # type: ignore[arg-type]


def test_the_module_is_the_command() -> None:
    environment = os.environ | {"COLUMNS": "100"}
    shown = subprocess.run(
        [sys.executable, "-m", "srblock", "--help"], capture_output=True, text=True, env=environment, check=True
    ).stdout
    for name in ("compare", "train", "evaluate", "stages", "overhead"):
        assert name in shown


def test_reproduce_sets_the_paper_beside_ours(tmp_path: Path) -> None:
    words = ["reproduce", "table1", "--rows", "R18 + SR", "--seeds", 1, "--out", tmp_path, *DIGITS]
    planned = invoke(*words, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "2 runs: 0 finished" in planned.output
    assert not list(tmp_path.iterdir())
    leave_finished(tmp_path, "R18", {"top1": 50.0})
    leave_finished(tmp_path, "R18 + SR(M=4, P=2)", {"top1": 51.5})
    done = invoke(*words)
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    for part in ("76.74 ± 0.33 51.50 1", "+0.27 -0.14 to +0.68 +1.50 -", "one seed: nothing can be said",
                 "table is of cifar100; these runs are of digits"):  # fmt: skip
        assert part in text, text
    assert "| R18 + SR (M=4, P=2, U=8) |" in next(tmp_path.glob("reproduce-table1-digits-*/table.md")).read_text()


def test_table_iv_is_planned_without_its_data() -> None:
    planned = invoke("reproduce", "table4", "--dry-run")
    assert planned.exit_code == 0, planned.output
    text = " ".join(planned.output.split())
    assert "2,975 training and 500 test images of 1024x2048 in 19 classes; 10 epochs of 8000 batches of 8" in text
    assert re.search(r"FCN-R50 \+ SR\(M=3, 55,855,846 12.85% .* of 5 - P=3, U=32\) DLv3-R50 68,113,030 0.00%", text)
    assert "DLv3-R50 + SR(M=3, 85,022,374 24.83%" in text
    assert "20 runs. cityscapes is not at hand" in text


def test_table_iv_has_both_metrics(tmp_path: Path) -> None:
    data = f"cityscapes:{write_cityscapes(tmp_path / 'data', {'train': 3, 'val': 1})}"
    variants = {"FCN-R50": (50.25, 60.5), "FCN-R50 + SR(M=3, P=3, U=32)": (51.75, 60.0)}
    for variant, (miou, macc) in variants.items():
        leave_finished(tmp_path, variant, {"miou": miou, "macc": macc}, data=data, epoch_steps=1, crop_size="32x64",
                       batch_size=2)  # fmt: skip
    words = ["reproduce", "table4", "--rows", "F-CONV + SR", "--data", data, "--seeds", 1, "--out", tmp_path,
             "--epochs", 1, "--epoch-steps", 1, "--crop-size", "32x64", "--batch-size", 2]  # fmt: skip
    done = invoke(*words)
    assert done.exit_code == 0, done.output
    assert len(re.findall(r"^\[./2\].* found ", done.output, re.MULTILINE)) == 2, done.output
    table = next(tmp_path.glob("reproduce-table4-cityscapes-*/table.md")).read_text()
    for line in (
        "| F-CONV mIoU | 77.33 ± 0.16 | 50.25 | 1 |",
        "| F-CONV mAcc | 85.02 ± 0.26 | 60.50 | 1 |",
        "| F-CONV + SR (M=2 from 0, P=3, U=32) mIoU | 77.53 ± 0.23 | 51.75 | 1 |",
        "| F-CONV + SR (M=2 from 0, P=3, U=32) mAcc | 85.15 ± 0.29 | 60.00 | 1 |",
    ):
        assert line in table


def leave_finished(out: Path, variant: str, test: dict[str, float], **options: Any) -> None:
    """Leave a finished run of seed 0, of one epoch on digits or as the options say, as a command will look for it."""
    asked = running.asked(StudyOptions(**{"data": "digits", "epochs": 1} | options), WorkOptions())
    session = experiment.prepare(asked, [parse(variant)])
    (config,) = experiment.make_study(session, [parse(variant)], [0]).runs
    folder = out / "runs" / config.name
    folder.mkdir(parents=True)
    figures = {f"{part}{key}": value for part in ("test_", "last_test_", "validation_", "last_validation_")
               for key, value in test.items()}  # fmt: skip
    figures |= {"test_loss": 1.0, "best_epoch": 1, "parameters": 10, "overhead_percent": 1.0, "wall_s": 1.0,
                "environment": runtime.environment(torch.device("cpu"))}  # fmt: skip
    (folder / "result.json").write_text(json.dumps(config.as_dict() | figures))
    epoch = {"epoch": 1, "lr": 0.1, "train_loss": 1.0, "validation_loss": 1.0, "train_seconds": 0.5, "seconds": 1.0}
    epoch |= {f"{part}_{key}": value for part in ("train", "validation") for key, value in test.items()}
    (folder / "metrics.jsonl").write_text(json.dumps(epoch) + "\n")


def test_sweep_chooses_on_validation_and_tests_on_fresh_seeds(tmp_path: Path) -> None:
    words = ["sweep", "R8 + SR(M=3, P={2,4})", "--seeds", 2, "--fresh", 2, "--out", tmp_path, *DIGITS]
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    for part in ("best mean validation top-1 of 2 settings on 2 seeds", "by chance alone", "on fresh seeds",
                 "Had the best been chosen by its test accuracy"):  # fmt: skip
        assert part in text, text
    folder = next(tmp_path.glob("sweep-digits-*"))
    with (folder / "settings.csv").open() as file:
        chosen_among = [(row["variant"], int(row["seed"])) for row in csv.DictReader(file)]
    with (folder / "results.csv").open() as file:
        tested = [(row["variant"], int(row["seed"])) for row in csv.DictReader(file)]
    assert {seed for _, seed in chosen_among} == {0, 1}
    assert len(chosen_among) == 6
    assert [seed for _, seed in tested] == [2, 2, 3, 3]
    assert tested[0][0] == "R8"
    stopped = invoke(*words[:4], "--fresh", 3, *words[6:], "--minutes", 1e-6)  # both halves share the budget
    assert stopped.exit_code == 75, stopped.output
    assert "2 runs left" in stopped.output
    assert "on fresh seeds" in stopped.output
    first = invoke(*words[:2], "--seeds", 3, *words[4:], "--minutes", 1e-6)
    assert first.exit_code == 75
    said = " ".join(first.output.split())
    assert "Then 2 fresh seeds each of R8 and of the setting chosen. Not one epoch was made: one takes about" in said
    assert "Go on with more --minutes: srblock" in said


def test_the_margin_of_the_commands_is_that_of_the_verdicts() -> None:
    """Written twice, as help must not wait for scipy."""
    for command in (cli.compare, cli.reproduce, cli.sweep):
        assert inspect.signature(command).parameters["margin"].default == MARGIN


def test_audit_says_what_the_printed_figures_support() -> None:
    text = " ".join(invoke("audit").output.split())
    assert "Of 44 gains, 42 are positive and 7 significant at 0.05" in text
    assert "read as divided by n." in " ".join(invoke("audit", "--ddof", 0).output.split())


def test_results_are_added_once_and_make_tables(compared: tuple[Path, Result], tmp_path: Path) -> None:
    out, _ = compared
    (tmp_path / "records").mkdir()
    first = invoke("results", "add", out, "--to", tmp_path)
    assert first.exit_code == 0, first.output
    assert "4 added, 0 known already" in first.output
    assert "0 added, 4 known already" in invoke("results", "add", out, "--to", tmp_path).output
    assert invoke("results", "tables", tmp_path).exit_code == 0
    assert "R8 + SR(M=3, P=4) (n = 2)" in (tmp_path / "tables" / "index.md").read_text()


def test_finished_runs_are_packed_for_another_place(compared: tuple[Path, Result], tmp_path: Path) -> None:
    out, _ = compared
    (tmp_path / "out" / "runs").mkdir(parents=True)
    for folder in sorted((out / "runs").iterdir())[:3]:
        (tmp_path / "out" / "runs" / folder.name).symlink_to(folder)
    (tmp_path / "out" / "runs" / "unfinished").mkdir()
    packed = invoke("results", "pack", tmp_path / "out", tmp_path / "records.tar.gz")
    assert packed.exit_code == 0, packed.output
    assert "packed 3 finished runs into" in packed.output
    assert "1 unfinished left out" in packed.output
    (tmp_path / "results" / "records").mkdir(parents=True)
    added = invoke("results", "add", tmp_path / "records.tar.gz", "--to", tmp_path / "results")
    assert "3 added, 0 known already, 0 unfinished" in added.output


@pytest.mark.parametrize("words", [["compare", PLAIN, BLOCK], ["reproduce", "table1"], ["sweep", "R8 + SR(P={2,4})"]])
def test_torchrun_is_for_train_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert f"srblock {words[0]} runs in one process and torchrun started 2" in error(capsys, monkeypatch, *words)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--executor", "slurm"], "there is no executor 'slurm'"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--gpus-per-run", "0.5"], "--executor ray"),
        (["--engine", "graph", "--device", "cpu"], "CUDA graphs"),
        (["--sync-batch-norm", "--device", "cpu"], "sync-batch-norm needs CUDA"),
        (["--epochs", "0"], "epochs must be at least 1"),
    ],
)
@pytest.mark.parametrize("command", [["compare", PLAIN, BLOCK], ["reproduce", "table1"], ["sweep", "R8 + SR(P={2,4})"]])
def test_who_works_is_checked_before_data_is_loaded(
    command: list[str],
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("srblock.data.load", lambda *_, **__: pytest.fail("nothing is to be loaded"))
    assert message in error(capsys, monkeypatch, *command, *options, "--dry-run")


@pytest.mark.parametrize(
    "words",
    [
        (["compare", PLAIN, BLOCK, "--out", "o\udce9"], r"--out: 1 path not in UTF-8: o\xe9; rename it"),
        (["train", PLAIN, "--data", "d\udce9"], r"d\xe9; rename it, or name another place"),
    ],
)
def test_paths_that_no_report_can_hold_are_refused_before_training(
    words: tuple[list[str], str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words[1] in error(capsys, monkeypatch, *words[0])
    assert not list(tmp_path.iterdir())


def test_names_reach_page_and_terminal_without_their_control_characters(tmp_path: Path) -> None:
    drawn = torch.Generator().manual_seed(0)
    for name in ("a\x1b[31mred", "=tea\x07", "plain"):
        folder = tmp_path / "se\x1b[31mt" / name
        folder.mkdir(parents=True)
        for number in range(8):
            image = torch.randint(256, (8, 8, 3), dtype=torch.uint8, generator=drawn)
            Image.fromarray(image.numpy()).save(folder / f"{number}.png")
    shown = invoke(
        "compare", PLAIN, BLOCK, "--data", folder.parent, "--epochs", "1", "--batch-size", "8", "--seeds", "1",
        "--device", "cpu", "--out", tmp_path / "out",
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    [page] = tmp_path.glob("out/compare-*/report.html")
    for text in (shown.output, page.read_text()):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
        assert r"se\x1b[31mt" in text
    assert r"a\x1b[31mred" in page.read_text()
    with (page.parent / "classes.csv").open(newline="") as file:
        assert {line["class"] for line in csv.DictReader(file)} == {"a\x1b[31mred", "'=tea\x07", "plain"}


@pytest.mark.parametrize("given", [["--epochs", "3.7"], ["--batch-size=63.5"], ["--seeds", "2", "--epochs", "25e-1"]])
def test_fractions_of_whole_numbers_are_refused(
    given: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = error(capsys, monkeypatch, "compare", PLAIN, BLOCK, "--data", "digits", *given)
    assert re.search(r"--(epochs|batch-size)", text)
    option, value = given[-1].split("=") if "=" in given[-1] else given[-2:]
    assert f"{value}" in text
    assert option in text


def test_none_turns_off_what_a_recipe_has(tmp_path: Path) -> None:
    off = StudyOptions(recipe="finetune", clip_norm="none", norm_weight_decay="none", test_resize="none", epochs=2)
    assert off.changes() == {"clip_norm": None, "norm_weight_decay": None, "test_resize": None, "epochs": 2}
    assert StudyOptions(auto_augment="none").changes() == {"auto_augment": "none"}
    words = ["--data", "digits", "--recipe", "finetune", "--clip-norm", "none", "--epochs", 1]
    done = invoke("train", PLAIN, *words, "--norm-weight-decay", "none", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    run = read_run(next((tmp_path / "runs").iterdir()))
    assert (run.config.recipe.clip_norm, run.config.recipe.norm_weight_decay) == (None, None)
    assert "--norm-weight-decay none" in again(run.config, {}).options


HUGE = "9" * 20


@pytest.mark.parametrize(
    "command", ["compare", "train", "reproduce", "sweep", "evaluate", "analyze", "predict", "stages"]
)
def test_no_option_takes_a_number_that_is_none_or_beyond_64_bits(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every option of every command, by its type: a new one is tested without a word here."""
    words = {"sweep": ["R8 + SR(P={2,3})"], "compare": [PLAIN, BLOCK], "predict": ["x", "y"]}.get(command, ["x"])
    tried = 0
    for argument in cli.app[command].assemble_argument_collection():
        name, kinds = argument.name, {argument.hint, *typing.get_args(argument.hint)}
        if not name.startswith("-"):
            continue
        given = [[f"{name}={value}"] for value in (HUGE, f"-{HUGE}")] if int in kinds else []
        given += [[f"{name}={value}"] for value in ("inf", "nan", "-inf", "1e999")] if float in kinds else []
        given += [[name, "2", "inf"], [name, "nan", "2"]] if tuple[float, float] in kinds else []
        for option in given:
            text = error(capsys, monkeypatch, command, *words, *option)
            assert f"for {name}. Must be" in text, (option, text)
            tried += 1
    assert tried >= 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", PLAIN, BLOCK, "--seeds", HUGE], "--seeds must be at most 100,000, each of at most 64 bits"),
        (["compare", PLAIN, BLOCK, "--seeds", "100001"], "--seeds must be at most 100,000"),
        (["sweep", "R8 + SR(P={2..999999999999})"], "counts more than 1,000 settings; leave some out"),
        (["compare", PLAIN, f"R8 + SR(P={HUGE})"], "P of SR must be a whole number of at most 9 digits, got '9999"),
        (["stages", "R8", "--input-size", "65537"], "for --input-size. Must be <= 65536"),
        (["compare", PLAIN, BLOCK, "--crop-size", f"{HUGE}x1"], "--crop-size must be height x width in pixels"),
    ],
)
def test_numbers_that_are_a_slip_of_the_pen(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert message in error(capsys, monkeypatch, *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reproduce", "table4"], "cityscapes is read from a folder: write cityscapes:PATH"),
        (["reproduce", "table4", "--data", "digits"], "FCN-R50 says of every pixel what it shows"),
        (["reproduce", "table4", "--rows", "R18*"], "its rows are F-CONV, F-CONV + SR, DLv3, DLv3 + SR"),
        (["reproduce", "table4", "--dropout-rate", "0.2"], "dropout's rate is given, but none of these rows has it"),
        (["reproduce", "table1", "--rows", "R19*"], "no row of table1 fits"),
        (["sweep", "R8 + SR(P={2,4)"], "braces are nested or not closed"),
        (["compare", PLAIN, BLOCK, "--engine", "turbo", *DIGITS], "engine must be one of eager, compile"),
        (["compare", PLAIN, BLOCK, "--margin", "0", *DIGITS], "margin must be above 0"),
        (["compare", PLAIN, BLOCK, "--executor", "slurm", *DIGITS], "there is no executor 'slurm'"),
        (["compare", PLAIN, BLOCK, "--gpus-per-run", "0.5", *DIGITS], "ray"),
        (["results", "add", "nowhere"], "nowhere"),
        (["results", "pack", ".", "records.tar.gz"], "holds no runs; name the --out of a study"),
    ],
)
def test_wrong_input_of_the_new_commands_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "records").mkdir(parents=True)
    assert message in error(capsys, monkeypatch, *words)
