"""The page: self-contained, valid, escaped, and what it says."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_fixture import BASELINE, WITH_SR, write_run, write_runs

from srblock.inspection.recall import greatest_change
from srblock.report import html
from srblock.report.page import typeset
from srblock.report.units import probability
from srblock.runs.records import Run
from srblock.statistics.comparison import comparison
from srblock.training.classification import Classification
from srblock.training.task import Figure

COMMAND = "srblock compare R8 'R8 + SR(M=3, P=8)' --seeds 3"
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects tags, ids, references and text of a page, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.references: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            assert not name.startswith("on"), f"<{tag} {name}> is a script"
            if name == "id":
                self.ids[str(value)] += 1
            if name in ("src", "href", "data", "action", "srcset", "poster", "xlink:href"):
                self.references.append((tag, str(value)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_title_claims_no_comparison_without_the_baseline(tmp_path: Path) -> None:
    variants = "R8 + SR(M=2, P=8)", "R8 + SR(M=3, P=8)"
    runs = write_runs(tmp_path, variants)
    path = tmp_path / "report.html"
    html.write_report(path, runs, comparison(runs, variants=(BASELINE, *variants)), COMMAND)
    text = path.read_text(encoding="utf-8")
    assert "<h1>R8 + SR(M=2, P=8), R8 + SR(M=3, P=8)</h1>" in re.sub(r"\s*(</?h1>)\s*", r"\1", text)
    assert "No seed of R8 finished: there is nothing to compare with." in text


def render(folder: Path, runs: list[Run], command: str = COMMAND) -> tuple[str, Page]:
    path = folder / "report.html"
    html.write_report(path, runs, comparison(runs), command)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_page_is_self_contained_and_valid(tmp_path: Path) -> None:
    text, page = render(tmp_path, write_runs(tmp_path))
    for tag, target in page.references:
        assert target.startswith(("#", "data:image/png;base64,")) or tag == "a", f"<{tag}> refers to {target}"
    assert not page.tags.keys() & {"script", "link", "iframe", "object", "base"}
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert text.startswith('<!doctype html>\n<html lang="en">')
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert page.tags["title"] == page.tags["h1"] == page.tags["main"] == 1
    assert all(times == 1 for times in page.ids.values()), "ids must be unique"
    svgs = re.findall(r"<svg[^>]*>", text)
    assert len(svgs) == 10  # differences, seeds, curves, recall weights and memory, each wide and narrow
    assert all('role="img" aria-label="' in svg for svg in svgs)
    assert "prefers-color-scheme: dark" in text


@pytest.mark.usefixtures("unpainted")
def test_page_is_the_same_on_every_run(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, seeds=[0])
    assert render(tmp_path, runs)[0] == render(tmp_path, runs)[0]


@pytest.mark.parametrize(
    ("values", "answer", "headline"),
    [
        (
            (95.0, 95.2, 95.1),
            "It helps here: +5.00 points. Next: keep it, if that is worth 3% more parameters.",
            f"{WITH_SR} does better than {BASELINE}",
        ),
        ((85.0, 85.2, 85.1), "5.00 points. Next: leave it out.", f"{WITH_SR} does worse than {BASELINE}"),
        (
            (89.0, 90.0, 91.5),
            "could only have seen differences above",
            f"Undecided between {WITH_SR} and {BASELINE}",
        ),
        (
            (90.11, 90.1, 90.09),
            "It makes no difference here that is larger than 0.2 points. Next: leave it out",
            f"No difference larger than 0.2 between {WITH_SR} and {BASELINE}",
        ),
        ((95.0,), "+5.00 points from one seed may be chance. Next: --seeds 5", "Nothing can be said yet about"),
    ],
)
@pytest.mark.usefixtures("unpainted")
def test_answer_comes_first(tmp_path: Path, values: tuple[float, ...], answer: str, headline: str) -> None:
    runs = [write_run(tmp_path, BASELINE, seed, test_top1=90.0 + seed / 10) for seed, _ in enumerate(values)]
    runs += [write_run(tmp_path, WITH_SR, seed, test_top1=value) for seed, value in enumerate(values)]
    _, page = render(tmp_path, runs)
    assert answer in page.text
    assert page.text.index(answer) < page.text.index(headline) < page.text.index("Accuracy and cost")
    if len(values) == 1:
        assert "+5.00 percentage points, from one seed each" in page.text
        assert "95% interval (Student)" not in page.text


@pytest.mark.usefixtures("unpainted")
def test_answer_without_any_spread(tmp_path: Path) -> None:
    _, page = render(tmp_path, write_runs(tmp_path, test_top1=100.0))
    assert f"No test is possible of {WITH_SR} against {BASELINE}" in page.text


def test_answer_where_every_seed_differs_by_the_same(tmp_path: Path) -> None:
    """The paired test has nothing to measure against, although Welch's has."""
    runs = [
        write_run(tmp_path, variant, seed, test_top1=90.0 + seed + more)
        for variant, more in ((BASELINE, 0.0), (WITH_SR, 0.5))
        for seed in range(8)
    ]
    text, _ = render(tmp_path, runs)
    assert "No test is possible" in text
    rows = comparison(runs)
    assert html.behind(rows[1], rows[0]).difference == "+0.50"


def test_answer_has_figures_and_cost(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, BASELINE, seed, test_top1=90.0 + seed) for seed in range(3)]
    runs += [write_run(tmp_path, WITH_SR, seed, test_top1=92.0 + seed) for seed in range(3)]
    rows = comparison(runs)
    found = html.behind(rows[1], rows[0])
    assert found.evidence.startswith(
        "Undecided between R8 + SR(M=3, P=8) and R8. 93.00% of the test images right against 91.00%: +2.00 percentage "
        "points, "
        "95% interval -0.27 to +4.27, p = 0.0705 (3 seeds each). 360 test images measure "
        "one accuracy to ±1.4, not to ±0.2; 7 more seeds per variant would settle ±1.4 (about"
    )
    assert found.evidence.endswith("These seeds find a true difference of 3.07 four times in five.")
    assert found.difference == "+2.00, -0.27 to +4.27"
    assert found.cost == "It has 2.95% more parameters."
    assert html.behind(rows[1], rows[1]).cost.startswith("It has as many parameters")


@pytest.mark.usefixtures("unpainted")
def test_a_figure_that_is_no_share_of_the_images_is_not_called_so(tmp_path: Path, monkeypatch: Any) -> None:
    runs = write_runs(tmp_path)
    _, page = render(tmp_path, runs)
    assert "of the test images right against" in page.text
    assert "One of 360 test images is 0.278 percentage points" in page.text
    monkeypatch.setattr(Classification, "figures", (Figure("top1", "mIoU"),))
    _, page = render(tmp_path, runs)
    assert "% test mIoU against" in page.text
    assert "images right" not in page.text
    assert "One of 360" not in page.text
    assert "beyond these" not in page.text, "nothing is known of what the test images can show"


@pytest.mark.usefixtures("unpainted")
def test_page_has_the_corrected_p_and_the_pairing(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, [BASELINE, "R8 + SE", WITH_SR], seeds=range(5))
    _, page = render(tmp_path, runs)
    _, *others = comparison(runs)
    for row in others:
        assert f"{probability(row.p)} {probability(row.holm_p)}" in page.text
        assert f"{probability(row.holm_p)}, after Holm's correction (5 seeds each)" in page.text
        assert f"{row.variant} and R8, 5 shared seeds: correlation" in page.text
    for words in (
        "Holm p",
        "detectable",
        "the paired t would give",
        "Verdicts follow the p-values after Holm's correction",
    ):
        assert words in page.text
    _, page = render(tmp_path, [run for run in runs if str(run.variant) != WITH_SR])
    assert "Holm" not in page.text


@pytest.mark.usefixtures("unpainted")
def test_few_seeds_have_no_bars_to_explain(tmp_path: Path) -> None:
    values = (90.0, 90.5, 91.0, 90.2)
    runs = [write_run(tmp_path, v, seed, test_top1=x) for v in (BASELINE, WITH_SR) for seed, x in enumerate(values)]
    assert "95% interval (Student, from 4 seeds on)" in render(tmp_path, runs)[1].text
    assert "(Student" not in render(tmp_path, [run for run in runs if run.seed < 3])[1].text


@pytest.mark.usefixtures("unpainted")
def test_a_lone_variant_has_no_difference_to_draw(tmp_path: Path) -> None:
    runs = write_runs(tmp_path)
    assert "The difference" in render(tmp_path, runs)[1].text
    assert "The difference" not in render(tmp_path, [run for run in runs if str(run.variant) == WITH_SR])[1].text


def test_unequal_seeds_are_counted(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, BASELINE, seed) for seed in range(3)] + [write_run(tmp_path, WITH_SR, 0)]
    rows = comparison(runs)
    assert "(1 seed against 3). Another seed may turn it around" in html.behind(rows[1], rows[0]).evidence
    rows = comparison([*runs, write_run(tmp_path, WITH_SR, 1)])
    assert "(2 seeds against 3)." in html.behind(rows[1], rows[0]).evidence


@pytest.mark.usefixtures("unpainted")
def test_page_has_every_figure(tmp_path: Path) -> None:
    runs = write_runs(tmp_path)
    _, page = render(tmp_path, runs)
    for run in runs:
        assert f"{run.score:.2f}" in page.text
        assert run.directory.name in page.text
    assert "gamma" not in page.text, "the default recipe has no milestones"
    for words in (COMMAND, "CPU Example 9000", "0123456789ab", "learning rate", "abababababababab", "0.278 percentage"):
        assert words in page.text
    assert str(tmp_path) not in page.text


def test_minus_signs_are_set(tmp_path: Path) -> None:
    assert typeset("-0.39 to +1.57") == "\N{MINUS SIGN}0.39 to +1.57"
    assert typeset("-") == "\N{EN DASH}"
    assert typeset("1e-05 r8-s0") == "1e-05 r8-s0"


@pytest.mark.parametrize(
    ("variation", "words"), [(0.002, "a hint that the block acts like a bias"), (0.05, "The weights differ")]
)
@pytest.mark.usefixtures("unpainted")
def test_recall_hint_follows_the_measured_deviation(tmp_path: Path, variation: float, words: str) -> None:
    runs = write_runs(tmp_path, seeds=[0], variation=variation)
    _, page = render(tmp_path, runs)
    deviation = float(runs[1].recall["layer3/std"].mean())
    assert words in page.text
    assert f"against 1/P = 0.125: {deviation:.2g} ({100 * deviation * 8:.2g}% of it) with seed 0" in page.text


def test_runs_without_recall_figures(tmp_path: Path) -> None:
    text, page = render(tmp_path, write_runs(tmp_path, recall=False, seeds=[0]))
    assert "No recall weights were recorded" in page.text
    assert text.count("<svg") == 6


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize("spread", [0.04, 4.0])
def test_change_of_what_is_added_is_bounded(tmp_path: Path, spread: float) -> None:
    runs = write_runs(tmp_path, seeds=[0], spread=spread)
    _, page = render(tmp_path, runs)
    change = 100 * greatest_change(runs[1].recall["layer3/std"], spread)
    assert f"by {100 * spread:.3g}% of its size with seed 0" in page.text
    assert f"by at most {change:.2g}% of the mean map" in page.text
    assert ("So it adds almost the same map" in page.text) == (change < 10)
    for run in runs:
        for record in run.metrics:
            record["probe"] = {}
    assert "from their mean map" not in render(tmp_path, runs)[1].text


def test_greatest_change_bounds_the_change() -> None:
    random = np.random.default_rng(3)
    for scale in (0.01, 1.0, 5.0):
        weights = np.exp(scale * random.normal(size=(200, 6)))
        weights /= weights.sum(1, keepdims=True)
        memory = random.normal(0.3, 1, (6, 40))
        bias = memory.mean(0)
        recalled = weights @ memory
        change = np.sqrt(np.square(recalled - recalled.mean(0)).sum(1).mean()) / np.linalg.norm(bias)
        spread = np.sqrt(np.square(memory - bias).sum(1).mean()) / np.linalg.norm(bias)
        bound = greatest_change(weights.std(0), spread)
        assert 0.2 * bound < change <= bound
    one = np.array([[1.0, 0.0], [0.0, 1.0]])  # two maps, each recalled alone: the bound is met
    memory = np.array([[1.0, 3.0], [3.0, 1.0]])
    assert greatest_change(one.std(0), 0.5) == pytest.approx(np.sqrt(2) / np.linalg.norm(memory.mean(0)))


@pytest.mark.usefixtures("unpainted")
def test_maps_of_one_value_are_explained(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, seeds=[0])
    words = "one value at all positions"
    assert words not in render(tmp_path, runs)[1].text
    memory = runs[1].recall["layer3/memory"]
    memory[:] = memory[:, :1, :1] * [[1, 1.0005], [1, 1]]
    assert words in render(tmp_path, runs)[1].text
    memory[:] = 0
    assert words not in render(tmp_path, runs)[1].text


@pytest.mark.usefixtures("unpainted")
def test_recall_of_some_seeds_only(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, WITH_SR, 0, recall=False), write_run(tmp_path, WITH_SR, 1)]
    assert "seed 1: red is above 1/P" in render(tmp_path, runs)[1].text


@pytest.mark.usefixtures("unpainted")
def test_variants_without_a_block_have_no_block_section(tmp_path: Path) -> None:
    assert "Inside the SR" not in render(tmp_path, write_runs(tmp_path, [BASELINE, "R8 + SE"], seeds=[0]))[1].text


def test_names_are_escaped(tmp_path: Path) -> None:
    nasty = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a&b")
    runs = write_runs(tmp_path, classes=nasty, seeds=[0])
    for run in runs:
        run.config.data["name"] = "<i>pictures</i>"
        run.environment["device"] = "<b>machine</b>"
    _, page = render(tmp_path, runs, command="srblock compare '<u>' && true")
    assert not page.tags.keys() & {"script", "img", "i", "b", "u"}
    assert "<script>alert(1)</script>, " in page.text
    assert "<i>pictures</i>" in page.text
    assert "'<u>' && true" in page.text


@pytest.mark.usefixtures("unpainted")
def test_runs_of_several_machines_are_said(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, seeds=[0, 1])
    runs[0].environment["device"] = "GPU Example"
    _, page = render(tmp_path, runs)
    assert "The runs were not all made under the same conditions" in page.text
    assert "3 of 4 runs" in page.text
    assert "GPU Example" in page.text


def test_the_page_stays_small(tmp_path: Path) -> None:
    many: dict[str, Any] = {"classes": [f"class {i}" for i in range(1000)], "size": (14, 14), "epochs": 50}
    text, page = render(tmp_path, write_runs(tmp_path, [BASELINE, "R8 + SR(M=3, P=40)"], seeds=range(12), **many))
    assert len(text) < 600_000
    assert "Of 1000 classes the 20 are shown" in page.text
    assert "and 988 more" in page.text
    assert "and 7 more seeds" in page.text


@pytest.mark.usefixtures("unpainted")
def test_many_variants_are_answered_in_a_list(tmp_path: Path) -> None:
    variants = [BASELINE, *(f"R8 + SR(M={stage})" for stage in (1, 2, 3)), "R8 + SE"]
    text, page = render(tmp_path, write_runs(tmp_path, variants, seeds=[0, 1], epochs=2))
    assert page.tags["li"] == 5 + 4
    assert text.count("<details open>") == 3


def test_nothing_to_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run finished"):
        html.write_report(tmp_path / "report.html", [], [], COMMAND)


@pytest.mark.usefixtures("unpainted")
def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = write_runs(tmp_path, seeds=[0])
    before, _ = render(tmp_path, runs)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*report\.html"):
        html.write_report(tmp_path / "report.html", runs, comparison(runs), "another command")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before


@pytest.mark.usefixtures("unpainted")
def test_a_caution_for_all_answers_is_said_once(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, [BASELINE, "R8 + SE", WITH_SR], epochs=2)
    _, page = render(tmp_path, runs)
    assert page.text.count("Caution: 2 passes over the images are very few") == 1
    assert page.text.count("Next:") == 2
