"""The queue: what it says, what is run next, and that calls of a minute get it done."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from srblock.data.sources import SOURCES
from srblock.executors.queue import Pace, Pending, choose, read_queue
from srblock.runs.archive import add_records
from srblock.runs.run_one import Work
from srblock.training import loop, runtime
from srblock.training.loop import TrainingDiverged

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / "benchmarks" / "run_queue.py"
FOUR = ["R18", "R18 + SR(M=4, P=2)", "R18 + D2D", "R18 + D2D + SR(M=4, P=12)"]

TINY = """
[[entry]]
name = "tiny"
data = "digits"
seeds = 1
epochs = 4
variants = ["R8", "R8 + SR(M=3, P=2)"]

[[entry]]
name = "elsewhere"
data = "cifar10"
seeds = 2
tables = ["V"]
"""


def write_queue(folder: Path, text: str) -> Path:
    (folder / "records").mkdir(parents=True, exist_ok=True)
    path = folder / "queue.toml"
    path.write_text(text)
    return path


# --- the queue of this repository ------------------------------------------------------------------------------------


def test_the_queue_orders_what_the_issue_asks_for() -> None:
    entries = read_queue(REPOSITORY / "results" / "queue.toml")
    found = [(e.data, e.seeds, e.epochs, [str(v) for v in e.variants]) for e in entries]
    assert found[0] == ("cifar100", 5, None, FOUR)
    assert found[1] == ("cifar100", 30, 30, FOUR)
    networks = [{variant.network for variant in entry.variants} for entry in entries]
    assert networks[2:6] == [{"R18"}, {"R34"}, {"VGG16"}, {"R50"}]
    assert [len(entry.variants) for entry in entries[2:6]] == [12, 12, 2, 12]
    assert {(e.data, e.seeds, e.epochs) for e in entries[2:6]} == {("cifar100", 5, None)}
    assert (entries[6].data, entries[6].seeds, len(entries[6].variants)) == ("cifar10", 5, 28)
    assert len(entries) == 7


def test_rows_of_the_paper_bring_what_they_are_compared_with(tmp_path: Path) -> None:
    path = write_queue(
        tmp_path, 'entry = [{name = "x", data = "cifar100", seeds = 1, tables = ["I", "II"], rows = "*18 * SR*"}]'
    )
    (entry,) = read_queue(path)
    assert {str(variant) for variant in entry.variants} == {
        "R18", "R18 + D", "R18 + D2D", "R18 + DB", "R18 + CBAM", "R18 + SE",
        "R18 + D + SR(M=3)", "R18 + D2D + SR(M=4, P=12)", "R18 + DB + SR(M=3, P=2)", "R18 + SR(M=4, P=2)",
        "R18 + CBAM + SR(M=3, P=6)", "R18 + SE + SR(M=3, P=2)",
    }  # fmt: skip


GOOD = {"name": '"x"', "data": '"digits"', "seeds": "2", "variants": '["R8"]'}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": "3"}, r"queue.toml, entry 1: unknown epoch; known are name, data, seeds"),
        ({"seeds": None}, r"entry 1 lacks seeds"),
        ({"seeds": '"5"'}, r"seeds must be a whole number, got '5'"),
        ({"seeds": "true"}, r"seeds must be a whole number, got True"),
        ({"seeds": "0"}, r"\(x\): seeds and epochs are at least 1"),
        ({"epochs": "0"}, r"\(x\): seeds and epochs are at least 1"),
        ({"variants": "[1]"}, r"variants must be a list of texts"),
        ({"variants": "[]"}, r"variants must be a list of texts"),
        ({"variants": '["R19"]'}, r"\(x\): 'R19': unknown network 'R19'.* did you mean R18"),
        ({"data": '"cifar"'}, r"unknown data 'cifar'; known are digits, cifar10, cifar100"),
        ({"tables": '["I"]'}, r"either variants, or tables and maybe rows"),
        ({"rows": '"R18*"'}, r"either variants, or tables and maybe rows"),
        ({"variants": None}, r"either variants, or tables and maybe rows"),
        ({"variants": None, "tables": '["VI"]'}, r"\(x\): the paper has no table 'VI'; there are table1"),
        ({"variants": None, "tables": '["I"]'}, r"\(x\): table I is of cifar100, not of digits"),
        (
            {"variants": None, "data": '"cifar100"', "tables": '["I"]', "rows": '"R19*"'},
            r"\(x\): no row of I fits 'R19\*'",
        ),
        ({"variants": '["R8"'}, r"is no TOML"),
    ],
)
def test_what_no_run_can_be_made_of_is_refused(tmp_path: Path, change: dict[str, str | None], message: str) -> None:
    lines = [f"{key} = {value}" for key, value in (GOOD | change).items() if value is not None]
    with pytest.raises(ValueError, match=message):
        read_queue(write_queue(tmp_path, "[[entry]]\n" + "\n".join(lines)))


def test_names_and_tables_are_checked(tmp_path: Path) -> None:
    entry = "[[entry]]\n" + "\n".join(f"{key} = {value}" for key, value in GOOD.items()) + "\n"
    with pytest.raises(ValueError, match="two entries are named 'x'"):
        read_queue(write_queue(tmp_path, 2 * entry))
    with pytest.raises(ValueError, match=r"expected \[\[entry\]\] tables only, got entries"):
        read_queue(write_queue(tmp_path, entry.replace("[[entry]]", "[[entries]]")))
    with pytest.raises(ValueError, match=r"expected .* got entry as one table"):
        read_queue(write_queue(tmp_path, entry.replace("[[entry]]", "[entry]")))


# --- what to run next ------------------------------------------------------------------------------------------------

SLOW, QUICK = Pace(5, 10, 15), Pace(0, 1, 1)


def never(run: Pending) -> Pace:
    raise AssertionError(f"{run.name} was measured")


def pick(*pending: Pending, left_s: float, whole_s: float = 500) -> str | None:
    chosen = choose(pending, left_s, whole_s, never)
    return None if chosen is None else chosen.name


def test_the_first_that_fits_is_started() -> None:
    first, second = Pending("first", SLOW, 0, 8), Pending("second", QUICK, 0, 8)
    assert pick(first, second, left_s=100) == "first"  # takes 5 + 80 + 15
    assert pick(first, second, left_s=99.9) == "second"
    assert pick(first, second, left_s=8) is None


def test_finishing_goes_before_starting() -> None:
    new = Pending("new", QUICK, 0, 8)
    far, near = Pending("far", SLOW, 1, 50), Pending("near", SLOW, 40, 50)
    assert pick(new, far, near, left_s=50) == "near"
    assert pick(new, far, near, left_s=14.9) == "new"  # not one epoch of the others fits: start and epoch take 15
    assert pick(new, Pending("tested next", SLOW, 50, 50), left_s=20) == "tested next"  # only the finish is left
    assert pick(new, Pending("tested next", SLOW, 50, 50), left_s=19) == "new"


def test_what_never_fits_is_started_last_and_what_fits_the_next_call_is_not() -> None:
    long, short = Pending("long", SLOW, 0, 100), Pending("short", QUICK, 0, 8)
    assert pick(long, short, left_s=400) == "short"
    assert pick(long, left_s=400) == "long"  # takes 1020 of a whole call's 500
    assert pick(long, left_s=14) is None
    assert pick(Pending("long", SLOW, 0, 40), left_s=400) is None  # takes 420: the next call finishes it
    assert pick(left_s=400) is None


def test_only_what_is_next_is_measured() -> None:
    measured = []

    def measure(run: Pending) -> Pace:
        measured.append(run.name)
        return SLOW

    pending = [Pending("first", None, 0, 20), Pending("second", None, 0, 1), Pending("third", QUICK, 0, 8)]
    chosen = choose(pending, 100, 500, measure)
    assert chosen is not None
    assert chosen.name == "third"
    assert measured == ["first"]


# --- the script ------------------------------------------------------------------------------------------------------


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_queue", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class SlowMachine:
    """A clock that moves by 5 s whenever training looks at it: an epoch takes 10 s, half of it validation."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def look(self, *_: object) -> float:
        self.seconds += 5
        return self.seconds


@pytest.fixture
def machine(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowMachine]:
    slow = SlowMachine()
    monkeypatch.setattr(runtime, "now", slow.look)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: slow.seconds)
        yield slow


def call(script: ModuleType, machine: SlowMachine, tmp_path: Path, *more: str, minutes: float = 1) -> int:
    options = ["--minutes", str(minutes), "--data", "digits", "--work", str(tmp_path / "work"), "--device", "cpu"]
    results = ["--results", str(tmp_path / "results"), "--pack", str(tmp_path / "records.tar.gz")]
    code: int = script.main([*options, *results, *more], start=machine.seconds)
    return code


def test_calls_of_a_minute_resume_finish_pack_and_skip(
    script: ModuleType, machine: SlowMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run takes 4 epochs of 10 s and is given 50 s for its tests: no call of a minute can do it in one go."""
    write_queue(tmp_path / "results", TINY)
    lines = []
    for _ in range(3):
        assert call(script, machine, tmp_path) == 0
        lines.append(capsys.readouterr().out)
    assert "tiny: 0 of 2 runs done" in lines[0]
    assert "elsewhere: skipped, cifar10 is not at hand (--data cifar10=PATH)" in lines[0]
    assert "stopped after epoch 3 of 4" in lines[0]
    assert "stopped after epoch 4 of 4" in lines[1]
    assert "r8-s0-" in lines[2]
    assert "test top-1" in lines[2]  # finished; then the other run is started in the time left
    assert "r8-sr-m3-p2-s0-" in lines[2]
    assert "packed 1 records" in lines[2]
    with tarfile.open(tmp_path / "records.tar.gz") as tar:
        (name,) = tar.getnames()
    add_records(tmp_path / "records.tar.gz", tmp_path / "results")
    record = json.loads((tmp_path / "results" / "records" / name).read_text())
    assert len(record["epochs"]) == 4
    assert "flops_per_image" in record["result"]

    (tmp_path / "work" / "runs" / name.removesuffix(".json")).rename(tmp_path / "lost")  # as on a fresh machine
    for _ in range(2):
        assert call(script, machine, tmp_path) == 0
        lines.append(capsys.readouterr().out)
    assert "tiny: 1 of 2 runs done" in lines[3]
    assert "r8-s0-" not in lines[3] + lines[4]  # it has its record
    added = add_records(tmp_path / "records.tar.gz", tmp_path / "results")
    assert [name[:6] for name in added.added] == ["r8-sr-"]
    record = json.loads((tmp_path / "results" / "records" / f"{added.added[0]}.json").read_text())
    assert "probe/layer3/memory_rms" in record["columns"]

    assert call(script, machine, tmp_path) == 0
    assert "nothing is left to do" in capsys.readouterr().out


def test_no_call_takes_longer_than_it_may(script: ModuleType, machine: SlowMachine, tmp_path: Path) -> None:
    write_queue(tmp_path / "results", TINY)
    for minutes in (1, 0.7, 2, 3):
        before = machine.seconds
        call(script, machine, tmp_path, minutes=minutes)
        assert machine.seconds - before <= 60 * minutes


def test_a_run_that_fits_is_done_in_one_call(
    script: ModuleType, machine: SlowMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_queue(tmp_path / "results", TINY)
    assert call(script, machine, tmp_path, minutes=5) == 0
    assert capsys.readouterr().out.count("test top-1") == 2


def test_a_run_that_diverged_is_not_tried_again(
    script: ModuleType,
    machine: SlowMachine,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_queue(tmp_path / "results", TINY.replace('"R8", ', ""))

    def diverge(*_: object) -> None:
        raise TrainingDiverged("the loss became nan in epoch 1")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_epoch", diverge)
        assert call(script, machine, tmp_path, minutes=5) == 1
    assert "failed: the loss became nan in epoch 1" in capsys.readouterr().out
    assert call(script, machine, tmp_path, minutes=5) == 0
    said = capsys.readouterr().out
    assert "nothing is left to do" in said
    assert "test top-1" not in said
    (reason,) = (tmp_path / "work" / "failed").iterdir()
    assert reason.read_text() == "the loss became nan in epoch 1\n"


def test_a_crash_of_a_run_does_not_end_the_others(
    script: ModuleType,
    machine: SlowMachine,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_queue(tmp_path / "results", TINY)

    def crash(*_: object) -> None:
        raise RuntimeError("CUDA error: unspecified")

    monkeypatch.setattr(script, "Work", lambda study, out: Work(study, out, inspect=crash))  # at the end of each run
    assert call(script, machine, tmp_path, minutes=9) == 1
    said = capsys.readouterr().out
    assert said.count("RuntimeError: CUDA error: unspecified") == 2


def test_a_run_that_another_process_has_is_left_alone(
    script: ModuleType, machine: SlowMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_queue(tmp_path / "results", TINY)
    options = script._options(["--minutes", "9", "--data", "digits", "--work", str(tmp_path / "work")])
    device = runtime.pick_device("cpu")
    first, _ = script.plan(read_queue(tmp_path / "results" / "queue.toml"), options, device)
    (tmp_path / "work").mkdir()
    with script.claim(tmp_path / "work", first.config.name) as ours:
        assert ours
        with script.claim(tmp_path / "work", first.config.name) as again:
            assert not again
        assert call(script, machine, tmp_path, minutes=9) == 0
    said = capsys.readouterr().out
    assert said.count("test top-1") == 1
    assert f"{first.config.name}: " not in said


def test_mistakes_are_one_line(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_queue(tmp_path, TINY)
    common = ["--minutes", "1", "--results", str(tmp_path), "--device", "cpu"]
    with pytest.raises(SystemExit):
        script.main([*common, "--work", str(REPOSITORY / "out")])
    assert "lies in the repository; name a folder outside it" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--data cifar100: no entry of the queue uses it"):
        script.main([*common, "--work", str(tmp_path / "work"), "--data", "cifar100=x"])
    assert "cifar100" in SOURCES  # so that x is a path for it


def test_processes_share_the_queue(tmp_path: Path) -> None:
    """Two workers from the command line do two runs, each once, and the records come back in one file."""
    text = TINY.replace("epochs = 4", "epochs = 1")
    write_queue(tmp_path / "results", text)
    command = [sys.executable, str(SCRIPT), "--minutes", "3", "--data", "digits", "--work", str(tmp_path / "work")]
    command += ["--results", str(tmp_path / "results"), "--device", "cpu", "--parallel", "2"]
    done = subprocess.run(
        [*command, "--pack", str(tmp_path / "records.tar.gz")],
        env={"PYTHONPATH": str(REPOSITORY / "src"), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("test top-1") == 2
    assert done.stdout.count("tiny: 0 of 2 runs done") == 1
    assert len(add_records(tmp_path / "records.tar.gz", tmp_path / "results").added) == 2
