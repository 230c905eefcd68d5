"""Work through results/queue.toml for some minutes; called again and again, it goes on where it stopped.

    PYTHONPATH=src python benchmarks/run_queue.py --minutes 9 --data cifar100=PATH --work FOLDER --pack records.tar.gz

Runs lie in FOLDER/runs, outside the repository, as `srblock compare --out FOLDER` would leave them. A call resumes
partial runs first (the one with the least left in front), then starts runs that fit into the time left as a whole, in
the queue's order; a run too long for any call is started once nothing else fits. How long an epoch takes is read from
the runs in FOLDER, or measured in a few steps. At the limit a run stops at the end of an epoch. Runs with a record in
results/ are skipped, runs that failed too (while FOLDER/failed says so).

Whenever a run finishes, the records that results/ does not have yet are packed into --pack; bring that file back and
`srblock results add records.tar.gz`. Checkpoints are not packed: where FOLDER does not outlast the call, a partial run
is lost, which is why finishing goes before starting. --parallel K lets K processes share the queue and the device.
"""

# ruff: noqa: E402

from __future__ import annotations

import time

START = time.monotonic()  # before torch is imported: that counts too

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from filelock import FileLock, Timeout

from srblock.data import ImageData, load
from srblock.data.sources import SOURCES
from srblock.executors.execute import Work, make_folder, run_study
from srblock.executors.queue import Entry, Pace, Pending, choose, read_queue
from srblock.report.units import duration
from srblock.runs.archive import pack_run, write_archive
from srblock.runs.records import RunConfig, epochs_done, finished
from srblock.runs.study import Study, measure_ms_per_image, recipe_for
from srblock.training import runtime

REPOSITORY = Path(__file__).resolve().parents[1]
CAUTION = 1.1  # epochs may take longer than they did


@dataclass(frozen=True)
class Planned:
    """A run of the queue: its entry, and a study of this run alone."""

    entry: Entry
    study: Study
    config: RunConfig


class Stop(BaseException):
    """End a run at a safe point. Not an Exception, so that nothing takes it for the run's failure."""


@dataclass
class Clock:
    """Watch one run: stop it at the end of an epoch when the next thing to do does not fit."""

    planned: Planned
    deadline: float
    earlier: list[dict[str, Any]]
    failure: str | None = None
    result: dict[str, Any] | None = None
    since: float = field(default_factory=time.monotonic)

    def started(self, run: RunConfig) -> None:
        """Training starts."""

    def epoch(self, run: RunConfig, record: dict[str, Any]) -> None:
        """Raise Stop where neither another epoch nor the finish fits; the epoch is saved already."""
        done, whole = record["epoch"], run.recipe.epochs
        if record in self.earlier and done < whole:
            return  # made by an earlier call (one that was killed may have left records of epochs that are repeated)
        now = time.monotonic()
        took_s, self.since = max(now - self.since, record["seconds"]), now
        needed_s = took_s if done < whole else 0.0
        if done >= whole - 1:
            needed_s += _finish_s(self.planned.study, record["seconds"] - record["train_seconds"])
        if now + CAUTION * needed_s > self.deadline:
            raise Stop(f"stopped after epoch {done} of {whole}")

    def finished(self, run: RunConfig, result: dict[str, Any]) -> None:
        """The run has its result."""
        self.result = result

    def failed(self, run: RunConfig, error: Exception) -> None:
        """The run diverged, ran out of memory or raised an error; its log says more."""
        self.failure = str(error)

    def waiting(self, run: RunConfig) -> None:
        """Another process trains this run, one that does not ask for our locks: leave it alone."""
        raise Stop("another process is at it")


def main(arguments: Sequence[str] | None = None, start: float | None = None) -> int:
    """Work through the queue for so many minutes since `start`; return 1 if a run or a process failed."""
    options = _options(arguments)
    start = START if start is None else start
    whole_s = 60 * options.minutes
    deadline = start + whole_s - min(20.0, 0.05 * whole_s)  # the rest is for packing
    make_folder(options.work)
    if options.parallel > 1:
        ok = supervise(options, start + whole_s - min(10.0, 0.025 * whole_s))
    else:
        device = runtime.pick_device(options.device)
        planned = plan(read_queue(options.results / "queue.toml"), options, device)
        ok = work(planned, options, device, deadline, deadline - start)
    if not options.worker:
        print(pack(options), flush=True)
    return 0 if ok else 1


def plan(entries: Sequence[Entry], options: argparse.Namespace, device: torch.device) -> list[Planned]:
    """List the queue's runs on the data at hand in its order, every run once, and say what each entry comes to."""
    unused = set(options.data) - {entry.data for entry in entries}
    if unused:
        raise ValueError(f"--data {', '.join(sorted(unused))}: no entry of the queue uses it")
    at_hand = {name: load(spec) for name, spec in options.data.items()}
    seen: dict[str, Planned] = {}
    for entry in entries:
        if entry.data not in at_hand:
            say(options, f"{entry.name}: skipped, {entry.data} is not at hand (--data {entry.data}=PATH)")
            continue
        fresh = {planned.config.name: planned for planned in _runs(entry, at_hand[entry.data], options.data, device)}
        new = {name: planned for name, planned in fresh.items() if name not in seen}
        done = sum(published(options, name) or finished(options.work / "runs" / name) for name in fresh)
        shared = f", {len(fresh) - len(new)} of them of an entry before" if len(new) < len(fresh) else ""
        say(options, f"{entry.name}: {done} of {len(fresh)} runs done{shared}")
        seen |= new
    return list(seen.values())


def work(
    planned: Sequence[Planned], options: argparse.Namespace, device: torch.device, deadline: float, whole_s: float
) -> bool:
    """Run what fits until the deadline; tell whether nothing failed."""
    aside: set[str] = set()  # claimed by others, stopped or failed: not again in this call
    by_name = {one.config.name: one for one in planned}
    measured: dict[Any, Pace] = {}
    ok = True

    def measure(run: Pending) -> Pace:
        one = by_name[run.name]
        if _kind(one) not in measured:
            measured[_kind(one)] = _measured(one.study, device)
        return measured[_kind(one)]

    while True:
        pending = [_pending(one, planned, options) for one in planned if _is_open(one, options, aside)]
        left_s = deadline - time.monotonic()
        chosen = choose(pending, left_s, whole_s, measure)
        if chosen is None:
            rest = f"{len(pending)} runs are left, none of which fits" if pending else "nothing is left to do"
            say(options, f"{rest}; {duration(left_s)} not used")
            return ok
        with claim(options.work, chosen.name) as ours:
            if not ours or finished(options.work / "runs" / chosen.name):
                aside.add(chosen.name)
                continue
            text, failed = _run(by_name[chosen.name], options, device, deadline)
        print(f"{chosen.name}: {text}", flush=True)
        ok = ok and not failed
        aside.add(chosen.name)
        if not options.worker:
            pack(options)


def supervise(options: argparse.Namespace, hard_deadline: float) -> bool:
    """Let several processes work on the queue, pack whenever one finishes a run, and end them at the limit."""
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // options.parallel)))
    command = [
        sys.executable, str(Path(__file__).resolve()), "--work", str(options.work), "--results", str(options.results),
        "--device", options.device, "--minutes", str((hard_deadline - time.monotonic()) / 60),
        *(word for pair in options.given for word in ("--data", pair)), "--worker",
    ]  # fmt: skip
    workers = [subprocess.Popen([*command, str(number)], env=environment) for number in range(1, options.parallel + 1)]
    packed = 0
    try:
        while any(worker.poll() is None for worker in workers) and time.monotonic() < hard_deadline:
            time.sleep(0.2)
            results = len(list(options.work.glob("runs/*/result.json")))
            if results != packed:
                packed = results
                pack(options)
    finally:
        for worker in workers:
            worker.terminate()  # files are whole at any moment; what is left of a run is resumed
        for worker in workers:
            worker.wait()
    failed = [number for number, worker in enumerate(workers, 1) if worker.returncode != 0]
    if failed:
        print(f"workers {', '.join(map(str, failed))} were ended at the limit or failed; see above", flush=True)
    return not failed


def pack(options: argparse.Namespace) -> str:
    """Pack the finished runs of the work folder that results/ does not have, and say so."""
    folders = [folder for folder in sorted((options.work / "runs").glob("*")) if finished(folder)]
    new = [folder for folder in folders if not published(options, folder.name)]
    if options.pack is None or not new:
        return f"{len(new)} finished runs in {options.work} have no record in {options.results} yet"
    records = []
    for folder in new:
        try:
            records.append(pack_run(folder))
        except ValueError as error:
            print(f"not packed: {error}", flush=True)
    size = write_archive(options.pack, records)
    return f"packed {len(records)} records into {options.pack} ({size / 1000:.0f} kB)"


def published(options: argparse.Namespace, name: str) -> bool:
    """Tell whether results/ has a run's record."""
    return (options.results / "records" / f"{name}.json").exists()


@contextmanager
def claim(work: Path, name: str) -> Iterator[bool]:
    """Keep other workers off a run; yield False if one has it. The lock of a killed process is free."""
    (work / "claims").mkdir(exist_ok=True)
    try:
        with FileLock(work / "claims" / f"{name}.lock", blocking=False):
            yield True
    except Timeout:
        yield False


def say(options: argparse.Namespace, text: str) -> None:
    """Print what needs to be said once, not by every worker."""
    if options.worker in (0, 1):
        print(text, flush=True)


def _runs(entry: Entry, data: ImageData, sources: dict[str, str], device: torch.device) -> Iterator[Planned]:
    recipe = recipe_for(data, device, epochs=entry.epochs)
    for seed in range(entry.seeds):
        for variant in entry.variants:
            study = Study((variant,), (seed,), data, sources[entry.data], recipe)
            yield Planned(entry, study, study.runs()[0])


def _run(planned: Planned, options: argparse.Namespace, device: torch.device, deadline: float) -> tuple[str, bool]:
    """Train one run as far as it goes; return what came of it, and whether it failed."""
    directory = options.work / "runs" / planned.config.name
    clock = Clock(planned, deadline, _history(directory))
    try:
        run_study(Work(planned.study, options.work), device=device, progress=clock)
    except Stop as stop:
        return str(stop), False
    if clock.failure is not None:
        (options.work / "failed").mkdir(exist_ok=True)
        (options.work / "failed" / f"{planned.config.name}.txt").write_text(clock.failure + "\n")
        return f"failed: {clock.failure}", True
    assert clock.result is not None
    return f"test top-1 {clock.result['test_top1']:.2f}%", False


def _is_open(planned: Planned, options: argparse.Namespace, aside: set[str]) -> bool:
    name = planned.config.name
    return not (
        name in aside
        or published(options, name)
        or finished(options.work / "runs" / name)
        or (options.work / "failed" / f"{name}.txt").exists()
    )


def _pending(one: Planned, planned: Sequence[Planned], options: argparse.Namespace) -> Pending:
    """Describe an open run, with the pace of the runs of its network on its data in the work folder."""
    kin = [other for other in planned if _kind(other) == _kind(one)]
    histories = [_history(options.work / "runs" / other.config.name) for other in kin]
    records = [record for history in histories for record in history]
    pace = None
    if records:
        epoch_s = median(record["seconds"] for record in records)
        first_s = median(history[0]["seconds"] for history in histories if history)
        validation_s = median(record["seconds"] - record["train_seconds"] for record in records)
        pace = Pace(max(0.0, first_s - epoch_s), CAUTION * epoch_s, CAUTION * _finish_s(one.study, validation_s))
    done = epochs_done(options.work / "runs" / one.config.name)
    return Pending(one.config.name, pace, done, one.config.recipe.epochs)


def _kind(planned: Planned) -> tuple[str, str, int]:
    return planned.entry.data, planned.config.variant.network, planned.config.recipe.batch_size


def _history(directory: Path) -> list[dict[str, Any]]:
    path = directory / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _measured(study: Study, device: torch.device) -> Pace:
    """Measure some steps; an image is taken to be validated in a third of the time that it takes in training."""
    image_s = 1e-3 * measure_ms_per_image(study, study.variants[0], device)
    images, held = len(study.data.train_labels), study.recipe.validation_fraction
    validation_s = image_s / 3 * images * held
    epoch_s = image_s * images * (1 - held) + validation_s
    return Pace(0.0, CAUTION * epoch_s, CAUTION * _finish_s(study, validation_s))


def _finish_s(study: Study, validation_s: float) -> float:
    """Estimate the end of a run: the test images pass three or four times (two tests, recall figures)."""
    data = study.data
    return 4 * validation_s * len(data.test_labels) / (study.recipe.validation_fraction * len(data.train_labels))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True, help="end by then, packing included")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=PATH", dest="given", help="data at hand")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs, outside the repository")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "results")
    parser.add_argument("--parallel", type=int, default=1, metavar="K", help="processes that share the device")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pack", type=Path, metavar="FILE.tar.gz", help="where new records go")
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)  # its number, in --parallel
    options = parser.parse_args(arguments)
    if options.minutes <= 0 or options.parallel < 1:
        parser.error("--minutes must be above 0 and --parallel at least 1")
    if options.work.resolve().is_relative_to(REPOSITORY):
        parser.error(f"--work {options.work} lies in the repository; name a folder outside it")
    options.data = {}
    for pair in options.given:
        name, _, path = pair.partition("=")
        options.data[name] = f"{name}:{path}" if path and name in SOURCES else path or name
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
