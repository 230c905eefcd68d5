"""results/next.sh: what it runs, in which order, and when it stops; the engine that benchmarks/on_gpu.sh gives it."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from run_fixture import write_run
from torch import nn

from srblock import cli, parameter_count
from srblock.cli.options import StudyOptions
from srblock.data.sources.published import stand_in
from srblock.models.airbench import Airbench94
from srblock.paper.select import select, variants_of
from srblock.report.published import study_name
from srblock.runs.archive import add_records
from srblock.runs.protocol import read_protocols
from srblock.runs.records import OF_SEED, RunConfig
from srblock.runs.study import describe_data, recipe_for
from srblock.variants.build import build
from srblock.variants.custom import locate
from srblock.variants.identity import identity_of
from srblock.variants.notation import parse

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / "results" / "next.sh"


def imported(path: Path) -> ModuleType:
    """Import a script of a folder that is no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


screening = imported(REPOSITORY / "results" / "screening.py")
PROTOCOLS = {plan.name: plan for plan in read_protocols(REPOSITORY / "results")}
FINGERPRINT = "960bf4776d49ff7c86af0f72956195eb163a25e56f0b44da89a06699700341cb"  # of CIFAR-100, as the records say
CUDA = ("--device", "cuda")
FOUR = ["R18", "R18 + SR(M=4, P=2)", "R18 + D2D", "R18 + D2D + SR(M=4, P=12)"]

# Writes its arguments as a line of JSON and ends with the next of the given statuses.
FAKE = """
import json, os, sys
from pathlib import Path
log = Path(os.environ["FAKE_LOG"])
number = len(log.read_text().splitlines()) if log.exists() else 0
with log.open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
statuses = [int(word) for word in os.environ["FAKE_STATUSES"].split()]
sys.exit(statuses[number] if number < len(statuses) else 0)
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def call(folder: Path, *more: str, minutes: str = "9", statuses: str = "", out: Path | None = None, **environment: str):
    """Call next.sh with a command in place of srblock; return the process and what the command was given."""
    (folder / "fake.py").write_text(FAKE)
    (log := folder / "log").unlink(missing_ok=True)
    environment = os.environ | {"FAKE_LOG": str(log), "FAKE_STATUSES": statuses} | environment
    environment["SRBLOCK"] = f"{sys.executable} {folder / 'fake.py'}"
    words = ["bash", str(SCRIPT), minutes, "cifar100:here", str(out or folder / "out"), *more]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    given = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return done, given


def value(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def variants_in(words: list[str]) -> tuple[str, ...]:
    """Return what stands before the options."""
    return tuple(words[1 : next(i for i, word in enumerate(words) if word.startswith("--"))])


def study_of(words: list[str]) -> str:
    """Name the study that a command's runs belong to."""
    changes = {"epochs": int(value(words, "--epochs")), "batch_size": int(value(words, "--batch-size"))}
    changes |= {"learning_rate": float(value(words, "--lr"))} if "--lr" in words else {}
    options = StudyOptions(recipe=value(words, "--recipe"), tta=value(words, "--tta"),
                           precision=value(words, "--precision"), **changes)  # fmt: skip
    data = stand_in("cifar100")
    recipe = recipe_for(data, torch.device("cpu"), options.recipe, **options.changes())
    weights = f"{OF_SEED}{'0' * 64}" if "--weights" in words else None
    described = describe_data(data) | {"fingerprint": FINGERPRINT}
    return study_name(RunConfig(parse(words[1]), 0, recipe, described, weights=weights))


def page(protocol: str) -> str:
    """Return the words of a protocol's page, with single spaces."""
    return " ".join((REPOSITORY / "results" / "protocols" / f"{protocol}.md").read_text().split())


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    done, given = call(tmp_path_factory.mktemp("next"), *CUDA, "--engine", "graph", CIFAR10="cifar10:there")
    assert done.returncode == 0, done.stderr
    return given


def test_it_asks_for_the_papers_claim_first_and_the_dear_networks_last(everything: list[list[str]]) -> None:
    first, second, *others = everything
    assert first[:5] == second[:5] == ["compare", *FOUR]
    assert (value(first, "--seeds"), "--epochs" in first) == ("5", False)
    assert (value(second, "--seeds"), value(second, "--epochs")) == ("30", "30")
    asked = [
        (words[1], value(words, "--rows") if "--rows" in words else "*", value(words, "--data")) for words in others
    ]
    rows = [("table1", "R18*"), ("table2", "R18*"), ("table1", "R34*"), ("table2", "R34*"), ("table1", "VGG16*"),
            ("table1", "R50*"), ("table2", "R50*")]  # fmt: skip
    assert asked == [*((table, pattern, "cifar100:here") for table, pattern in rows), ("table5", "*", "cifar10:there")]
    networks = [{variant.network for variant in variants_of(select(table, pattern))} for table, pattern in rows]
    assert networks == [{"R18"}, {"R18"}, {"R34"}, {"R34"}, {"VGG16"}, {"R50"}, {"R50"}]
    for text in FOUR:
        assert str(parse(text)) == text


def test_the_study_is_run_as_its_protocol_says(tmp_path: Path) -> None:
    """All that the protocol says of variants, seeds, margin and recipe is in the command."""
    done, given = call(tmp_path, STUDY="sr-on-airbench")
    assert done.returncode == 0, done.stderr
    assert len(given) == 1
    protocol = PROTOCOLS["sr-on-airbench"]
    words = given[0]
    assert variants_in(words) == protocol.variants
    assert value(words, "--seeds") == str(protocol.seeds)
    assert protocol.margin == 0.2, "what compare takes without an option"
    command = shlex.join(["srblock", *words[: words.index("--out")]]).replace("cifar100:here", "cifar100:FOLDER")
    text = page("sr-on-airbench")
    assert command.replace("'", '"') in text.replace(" \\ ", " ")
    assert study_of(words) == protocol.study
    assert value(call(tmp_path, STUDY="sr-on-airbench", SEEDS="3-15")[1][0], "--seeds") == "3-15"


def test_without_a_gpu_the_confirmation_comes_first(tmp_path: Path, everything: list[list[str]]) -> None:
    done, given = call(tmp_path, SEEDS="18-19")
    assert done.returncode == 0, done.stderr
    assert [words[:2] for words in given[3:]] == [words[:2] for words in everything[:-1]]
    first = [words[: words.index("--minutes")] for words in given[:3]]
    alone = call(tmp_path, STUDY="open-memory", SEEDS="18-19")[1]
    assert first == [words[: words.index("--minutes")] for words in alone]
    seeds, others = ([value(words, "--seeds") for words in commands] for commands in (given, everything[:-1]))
    assert seeds == [*["18-19"] * 3, *others], "the other commands have all of theirs"


def test_the_confirmation_is_run_as_its_protocol_says(tmp_path: Path) -> None:
    """Two seeds at a time: the plain networks first, then on from these, then all five variants."""
    protocol, second = PROTOCOLS["open-memory"], PROTOCOLS["open-memory-trained-on"]
    done, given = call(tmp_path, "--workers", "2", STUDY="open-memory")
    assert done.returncode == 0, done.stderr
    pairs = [f"{seed}-{seed + 1}" for seed in range(16, 32, 2)]
    assert [value(words, "--seeds") for words in given] == [pair for pair in pairs for _ in range(3)]
    assert (protocol.first, protocol.seeds) == (second.first, second.seeds) == (16, 16)
    assert protocol.variants[:2] == second.variants
    assert protocol.margin == second.margin == 0.2, "what compare takes without an option"
    out = tmp_path / "out"
    for first, on, whole in zip(given[::3], given[1::3], given[2::3], strict=True):
        assert variants_in(first) == variants_in(on) == second.variants
        assert variants_in(whole) == protocol.variants
        assert study_of(first) == study_of(whole) == protocol.study
        assert study_of(on) == second.study
        assert value(first, "--out") == value(whole, "--out") == str(out)
        assert value(on, "--out") == f"{out}/trained-on"
    on = given[1]
    cli.app.parse_args(on, print_error=False, exit_on_error=False)
    command = shlex.join(["srblock", *on[: on.index("--minutes")]]).replace(f"{out}", "OUT").replace(":here", ":FOLDER")
    assert command.replace("'", '"') in page("open-memory-trained-on").replace(" \\ ", " ")
    for plan in (protocol, second):
        assert plan.scope in page(plan.name)
        assert all(f"`{variant}`" in page("open-memory") for variant in plan.variants)


@pytest.mark.parametrize(("seeds", "pairs"), [("20-22", ["20-21", "22-22"]), ("19-19", ["19-19"])])
def test_a_part_of_the_confirmation_is_named_by_seeds(tmp_path: Path, seeds: str, pairs: list[str]) -> None:
    done, given = call(tmp_path, STUDY="open-memory", SEEDS=seeds)
    assert done.returncode == 0, done.stderr
    assert [value(words, "--seeds") for words in given[::3]] == pairs


@pytest.mark.parametrize("seeds", ["16", "a-b", "16-", "16-17-18", "20-19", "3-15", "30-32"])
def test_other_words_for_seeds_are_refused(tmp_path: Path, seeds: str) -> None:
    done, given = call(tmp_path, STUDY="open-memory", SEEDS=seeds)
    assert (done.returncode, given) == (2, [])
    assert "by its first and last seed, such as 18-31" in done.stderr


def test_the_wider_network_has_the_winners_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many or more, by the smallest width that does; and it is found by its name."""
    monkeypatch.syspath_prepend(REPOSITORY / "results")
    opened, wider = PROTOCOLS["open-memory"].variants[1], PROTOCOLS["open-memory"].variants[4]
    network = build(parse(wider), classes=100, image_size=32, seed=0, custom=locate(wider))
    narrower = Airbench94(classes=100, widths=[64, *[network.layer3.conv2.out_channels - 1] * 2])
    least = count(build(parse(opened), classes=100, image_size=32, seed=0))
    assert count(narrower) < least <= count(network)
    text = page("open-memory")
    assert f"{count(network) - 1_995_832:,} parameters" in text


def test_the_wider_network_stays_what_its_records_were_trained_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed word in its file would make its next seeds runs of another network, and the study one without end."""
    monkeypatch.syspath_prepend(REPOSITORY / "results")
    wider = PROTOCOLS["open-memory"].variants[4]
    records = [json.loads(path.read_text()) for path in (REPOSITORY / "results" / "records").glob("wider-*.json")]
    assert len(records) >= 2
    for record in records:
        assert record["config"]["code"] == identity_of(locate(wider), record["config"]["seed"], wider)


def test_the_screening_of_the_memory_is_run_as_its_protocol_says(tmp_path: Path) -> None:
    done, given = call(tmp_path, "--workers", "2", STUDY="open-memory-screening")
    assert done.returncode == 0, done.stderr
    (words,) = given
    assert words[1 : words.index("--data")] == screening.VARIANTS
    assert study_of(words) == screening.PROTOCOL.study == PROTOCOLS["sr-on-airbench"].study
    assert value(call(tmp_path, STUDY="open-memory-screening", SEEDS="2-3")[1][0], "--seeds") == "2-3"
    assert value(words, "--seeds") == str(len(screening.SEEDS))
    text = page("open-memory-screening")
    command = shlex.join(["srblock", *words[: words.index("--out")]]).replace("cifar100:here", "cifar100:FOLDER")
    assert command.replace("'", '"') in text.replace(" \\ ", " ")
    cli.app.parse_args(words, print_error=False, exit_on_error=False)
    for variant in screening.VARIANTS:
        network = build(parse(variant), classes=100, image_size=32, seed=0)
        added = count(network) - 1_995_832
        said = f"| `{parse(variant)}` | "
        assert f" {added:,} ({added / 19_958.32:.2f}%) " in text[text.index(said) :][: len(said) + 120], variant
        options = parse(variant).sr_blocks[0].options
        grid = None if options.grid is None else options.grid
        large = parameter_count(1024, 14, blocks=10, hidden=16, rank=options.rank, grid=grid)
        assert f" {large / 255_570.32:.2f}% " in text[text.index(said) :][: len(said) + 120], variant
    done, given = call(tmp_path, STUDY="another")
    assert (done.returncode, given) == (2, [])


def test_the_cheapest_of_the_best_wins() -> None:
    gains = {"a": [0.3, 0.5], "b": [0.31, 0.32], "c": [0.2, 0.2]}
    assert screening.winner(gains, {"a": 100, "b": 10, "c": 1}) == "b"
    assert screening.winner(gains, {"a": 1, "b": 10, "c": 1}) == "a"
    assert screening.winner({"a": [1.0], "b": [0.5]}, {"a": 100, "b": 1}) == "a"


def test_the_screening_reads_validation_and_asks_for_every_run(tmp_path: Path) -> None:
    runs = []
    for number, variant in enumerate((screening.PLAIN, screening.VARIANTS[0])):
        for seed in screening.SEEDS:
            run = write_run(tmp_path, variant, seed)
            runs.append(replace(run, validation={"top1": 60.0 + seed + number}))
    assert screening.differences(runs, screening.VARIANTS[:1]) == {screening.VARIANTS[0]: [1, 1, 1, 1]}
    with pytest.raises(ValueError, match=r"SR\(M=2, P=8, gain=8, logits=standardized\) has no run of seed 0 yet"):
        screening.differences(runs, screening.VARIANTS)


def test_the_winner_is_found_in_records_and_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (results := tmp_path / "results").joinpath("records").mkdir(parents=True)
    runs = [write_run(tmp_path / "a", screening.PLAIN, seed) for seed in screening.SEEDS]
    add_records(tmp_path / "a", results)
    monkeypatch.setattr(screening, "RESULTS", results)
    monkeypatch.setattr(screening, "PROTOCOL", replace(screening.PROTOCOL, study=study_name(runs[0].config)))
    with pytest.raises(ValueError, match=r"gain=8\) has no run of seed 0 yet"):
        screening.main()
    runs += [write_run(tmp_path / "b", variant, seed) for variant in screening.VARIANTS for seed in screening.SEEDS]
    screening.main(tmp_path / "b")
    said = capsys.readouterr().out
    gains = screening.differences(runs, screening.VARIANTS)
    assert said.count("| `Airbench94 + SR(M=2, P=8, ") == len(gains) == 6
    best = screening.winner(gains, {str(run.variant): run.parameters for run in runs})
    assert said.endswith(f"winner: {best}\n")


def test_road_scenes_come_where_they_are_named(tmp_path: Path) -> None:
    """Half the size on a CPU, DeepLab v3 at full size on a GPU; every command stays one that srblock has."""
    _, on_cpu = call(tmp_path, CAMVID="camvid:there", SEEDS="16-16")
    _, on_gpu = call(tmp_path, *CUDA, CAMVID="camvid:there")
    (small,) = [words for words in on_cpu if "camvid:there" in words]
    large = on_gpu[0]
    assert small[1:3] == ["FCN-R18", "FCN-R18 + SR(M=3, P=3, U=32)"]
    assert large[1:3] == ["DLv3-R50", "DLv3-R50 + SR(M=3, P=2, U=16)"]
    assert (value(small, "--scene-scale"), value(small, "--seeds"), "--scene-scale" in large) == ("0.5", "5", False)
    for words in (small, large):
        assert value(words, "--data") == "camvid:there"
        assert all(str(parse(text)) == text for text in words[1:3])
        cli.app.parse_args(words, print_error=False, exit_on_error=False)


def test_every_command_is_one_that_srblock_has(everything: list[list[str]]) -> None:
    for words in everything:
        assert words[-4:] == [*CUDA, "--engine", "graph"]
        cli.app.parse_args(words, print_error=False, exit_on_error=False)


def test_the_time_that_is_left_is_passed_on(everything: list[list[str]]) -> None:
    minutes = [float(value(words, "--minutes")) for words in everything]
    assert 8.5 < minutes[-1] <= minutes[0] <= 9


def test_table_v_needs_cifar10(tmp_path: Path) -> None:
    done, given = call(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "table5" not in [words[1] for words in given]


@pytest.mark.parametrize(("statuses", "status", "commands"), [("0 75", 75, 2), ("0 0 1", 1, 3), ("2", 2, 1)])
def test_it_stops_where_a_command_does_not_end_well(tmp_path: Path, statuses: str, status: int, commands: int) -> None:
    done, given = call(tmp_path, statuses=statuses)
    assert done.returncode == status
    assert len(given) == commands


def test_without_time_nothing_is_started(tmp_path: Path) -> None:
    done, given = call(tmp_path, minutes="0")
    assert (done.returncode, given) == (75, [])


def test_runs_do_not_go_into_the_repository(tmp_path: Path) -> None:
    done, given = call(tmp_path, out=REPOSITORY / "results")
    assert (done.returncode, given) == (2, [])
    assert "name a folder outside of it" in done.stderr


def test_what_is_printed_can_be_given_again(tmp_path: Path) -> None:
    done, given = call(tmp_path, statuses="75")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("$ ")]
    assert shlex.split(line)[2:] == given[0]


def test_the_fastest_engine_is_read_from_the_records_of_speed(tmp_path: Path) -> None:
    module = imported(REPOSITORY / "benchmarks" / "fastest_engine.py")
    assert module.fastest(tmp_path) == "eager"
    rows = [("R18", "bare", 900), ("R18", "eager", 100), ("R18", "graph", 300), ('"R18 + SR(M=4, P=2)"', "graph", 280),
            ("R18", "compile", 200), ("R18", "compile", 800), ("R18", "compile", 210)]  # fmt: skip
    text = "".join(f"{variant},{engine},{rate}\n" for variant, engine, rate in rows)
    (tmp_path / "train_speed-gpu.csv").write_text(f"variant,engine,images_per_s\n{text}")
    assert module.fastest(tmp_path) == "graph"
