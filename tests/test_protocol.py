"""Protocols: what was planned is compared and nothing else, and nothing is shown before its time."""

import csv
from pathlib import Path

import pytest
from run_fixture import write_run
from test_published import REPOSITORY

from srblock.report.published import study_name, write_tables
from srblock.runs.archive import add_records, read_records
from srblock.runs.protocol import Protocol, read_protocols
from srblock.variants.notation import parse

PLAN = ("R8", "R8 + SR(M=3, P=8)", "R20")
TOML = """\
title = "Does it help?"
study = "{study}"
variants = ["R8", "R8 + SR(M=3, P=8)", "R20"]
seeds = 3
margin = 0.4
"""


def tables(tmp_path: Path, seeds: dict[str, int], *, more: str = "", toml: str = TOML) -> dict[str, str]:
    """Publish so many runs of each variant under the protocol and return the tables' files."""
    out, results = tmp_path / "out", tmp_path / "results"
    for variant, count in seeds.items():
        for seed in range(count):
            write_run(
                out, variant, seed, test_top1=97 + 0.5 * PLAN.index(variant) + 0.1 * seed if variant in PLAN else 50
            )
    (results / "records").mkdir(parents=True)
    add_records(out, results)
    (results / "protocols").mkdir()
    name = study_name(read_records(results)[0].config)
    (results / "protocols" / "help.toml").write_text(toml.format(study=name) + more)
    write_tables(results)
    return {path.name: path.read_text() for path in (results / "tables").iterdir()}


def test_all_planned_variants_are_compared_with_the_first(tmp_path: Path) -> None:
    """R20, which has no block, too; Holm's family is the two that were planned."""
    made = tables(tmp_path, dict.fromkeys(PLAN, 3))
    assert set(made) == {"index.md", "help.md", "help.csv"}
    page = made["help.md"]
    assert page.startswith("# Does it help? (digits, 20 epochs)\n")
    assert "[protocol](../protocols/help.md)" in page
    assert "R8 against R8 + SR(M=3, P=8), R20. 3 of 3 seeds are in." in page
    assert "| R20 | 3 | 98.10 ± 0.10 | +1.00 |" in page
    assert "Every variant is compared with R8: difference" in page
    assert "[help](help.md)" in made["index.md"]
    assert page.count("better") == 2


def test_no_figure_is_shown_before_the_last_seed(tmp_path: Path) -> None:
    made = tables(tmp_path, {"R8": 3, "R8 + SR(M=3, P=8)": 3, "R20": 2})
    assert set(made) == {"index.md", "help.md"}
    assert "2 of 3 seeds are in. No figure is shown before the last one." in made["help.md"]
    assert "| digits | 20 | 8 | R8, R8 + SR(M=3, P=8), R20 (under way) |" in made["index.md"], "eight runs, none shown"
    assert not any(figure in "".join(made.values()) for figure in ("97.", "98.", "±", "verdict |"))


def test_a_study_that_ended_early_shows_its_whole_seeds_and_says_so(tmp_path: Path) -> None:
    seeds = {"R8": 3, "R8 + SR(M=3, P=8)": 3, "R20": 2}
    made = tables(tmp_path, seeds, more='ended = "2026-12-01, the machine went away"\n')
    assert "2 of 3 seeds are in. It ended before the last one: 2026-12-01, the machine went away." in made["help.md"]
    rows = list(csv.DictReader(made["help.csv"].splitlines()))
    assert [(row["variant"], row["seed"]) for row in rows] == [(v, s) for v in PLAN for s in "01"]


def test_a_diverged_run_is_counted_and_named(tmp_path: Path) -> None:
    """It has no record; the page need not wait for one, and its seed leaves the comparison."""
    seeds = {"R8": 3, "R8 + SR(M=3, P=8)": 3, "R20": 2}
    made = tables(tmp_path, seeds, more='diverged = [["R20", 2]]\n')
    said = "2 of 3 seeds are in. The loss of R20 with seed 2 diverged; these seeds leave the comparison.\n"
    assert said in made["help.md"]
    rows = list(csv.DictReader(made["help.csv"].splitlines()))
    assert [(row["variant"], row["seed"]) for row in rows] == [(v, s) for v in PLAN for s in "01"]
    early = tables(tmp_path / "early", seeds | {"R8": 2}, more='diverged = [["R20", 1]]\n')["help.md"]
    assert "diverged; these seeds leave the comparison. No figure is shown before the last one." in early


def test_other_pairs_are_tested_alone(tmp_path: Path) -> None:
    plain = tables(tmp_path / "a", dict.fromkeys(PLAN, 3))["help.md"]
    page = tables(tmp_path / "b", dict.fromkeys(PLAN, 3), more=f"contrasts = [{[PLAN[2], PLAN[1]]}]\n")["help.md"]
    assert "| R20 | R8 + SR(M=3, P=8) | 3 | +0.50 | +0.27 to +0.73 | 0.0036 | 0.856 |" in page, "scipy.stats"
    assert page[: page.index("\n\nBeside these comparisons the protocol names others")] + "\n" == plain
    assert "diverged" not in page
    assert "| parameters |" in plain


def test_the_page_says_what_its_figures_are_about(tmp_path: Path) -> None:
    scope = "This is about R8 on digits and nothing else."
    page = tables(tmp_path / "a", dict.fromkeys(PLAN, 3), more=f'scope = "{scope}"\n')["help.md"]
    said = f"\n\nFrom the protocol: {scope}"
    assert said in page
    assert page.replace(said, "") == tables(tmp_path / "b", dict.fromkeys(PLAN, 3))["help.md"]
    early = tables(tmp_path / "c", dict.fromkeys(PLAN, 2), more=f'scope = "{scope}"\n')["help.md"]
    assert scope not in early, "there are no figures"


def test_what_was_not_planned_is_on_another_page_and_outside_of_holms_family(tmp_path: Path) -> None:
    alone = tables(tmp_path / "a", dict.fromkeys(PLAN, 3))["help.md"]
    made = tables(tmp_path / "b", dict.fromkeys(PLAN, 4) | {"R8 + SR(M=2, P=8)": 3})
    assert made["help.md"] == alone
    other = next(text for name, text in made.items() if name.startswith("digits-") and name.endswith(".md"))
    assert "| R8 | 4 | 97.15 ± 0.13 |" in other
    assert "| R8 + SR(M=2, P=8) | 3 | 50.00 ± 0.00 | -47.15 |" in other
    early = tables(tmp_path / "c", {"R8": 3, "R8 + SR(M=3, P=8)": 2, "R20": 2, "R8 + SR(M=2, P=8)": 3})
    assert "| 7 | R8, R8 + SR(M=3, P=8), R20 (under way) |" in early["index.md"], "the planned ones are counted"
    pages = [text for name, text in early.items() if name.endswith(".md")]
    assert not any("97." in text for text in pages), "the baseline is not shown on the other page either"


def test_a_published_study_is_not_compared_again_beside_a_run_that_was_not_planned(tmp_path: Path) -> None:
    """A fourth seed of R8, as of a pilot: R8 has a page with it, the planned variants are on theirs alone.

    That another protocol, which is not whole, plans seeds of R8 too hides none that the first has shown.
    """
    made = tables(tmp_path, dict.fromkeys(PLAN, 3) | {"R8": 4})
    (name,) = set(made) - {"index.md", "help.md", "help.csv"} - {name for name in made if name.endswith(".csv")}
    assert "| R8 | 4 | 97.15 ± 0.13 |" in made[name]
    assert "R20" not in made[name]
    assert " + SR" not in made[name]
    results = tmp_path / "results"
    later = (results / "protocols" / "help.toml").read_text().replace("seeds = 3", "seeds = 2")
    (results / "protocols" / "later.toml").write_text(later.replace('"R20"', '"R8 + SR(M=2, P=8)"'))
    write_tables(results)
    assert "No figure is shown" in (results / "tables" / "later.md").read_text()
    assert (results / "tables" / name).read_text() == made[name]
    assert (results / "tables" / "help.md").read_text() == made["help.md"]


def test_a_plan_is_read_in_canonical_notation(tmp_path: Path) -> None:
    assert Protocol("p", "t", "s", ("resnet8", "R8+SR(P=10,M=3)"), 2, 0.2).variants == ("R8", "R8 + SR(M=3)")


def test_two_protocols_of_one_study_have_seeds_of_their_own(tmp_path: Path) -> None:
    made = tables(tmp_path, dict.fromkeys(PLAN, 3))
    results = tmp_path / "results"
    (results / "protocols" / "later.toml").write_text(
        (results / "protocols" / "help.toml").read_text().replace("seeds = 3", 'seeds = "3-4"')
    )
    later = next(protocol for protocol in read_protocols(results) if protocol.name == "later")
    assert (later.first, later.seeds) == (3, 2)
    write_tables(results)
    assert (results / "tables" / "help.md").read_text() == made["help.md"], "none of its runs is in yet"
    for seed in (3, 4):
        for variant in PLAN[: 3 if seed == 3 else 2]:
            write_run(tmp_path / "out", variant, seed, test_top1=90.0)
    add_records(tmp_path / "out", results)
    write_tables(results)
    found = {path.name: path.read_text() for path in (results / "tables").glob("*.md")}
    assert found["help.md"] == made["help.md"]
    assert "1 of 2 seeds is in. No figure is shown" in found["later.md"]
    assert set(found) == {"index.md", "help.md", "later.md"}, "all runs are planned by one of them"
    assert not any("90.0" in text for text in found.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds = 3", ""), r"help.toml cannot be read \(it lacks \['seeds'\] and has \[\] too many"),
        (("margin", "marge"), r"lacks \['margin'\] and has \['marge'\] too many"),
        (('"R20"', '"R8"'), "two or more different variants, got R8, R8 . SR.*, R8"),
        (('"R20"', '"R19"'), "unknown network 'R19'"),
        (("0.4", "0"), "a margin above 0, got 3, 0"),
        (("title =", "title"), "help.toml cannot be read"),
        (
            ("seeds = 3", 'seeds = 3\ncontrasts = [["R20", "R34"]]'),
            "contrasts or diverged runs of what it does not plan",
        ),
        (("seeds = 3", 'seeds = 3\ndiverged = [["R20", 3]]'), "contrasts or diverged runs of what it does not plan"),
    ],
)
def test_a_plan_that_cannot_be_read_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    (tmp_path / "protocols").mkdir()
    (tmp_path / "protocols" / "help.toml").write_text(TOML.replace(*change))
    with pytest.raises(ValueError, match=message):
        read_protocols(tmp_path)


def test_the_repositorys_protocols_can_be_read_and_have_a_text() -> None:
    for protocol in read_protocols(REPOSITORY / "results"):
        text = (REPOSITORY / "results" / "protocols" / f"{protocol.name}.md").read_text()
        assert all(variant in text for variant in protocol.variants)
        assert f"{protocol.seeds} seeds" in text
        assert protocol.scope in " ".join(text.split()), "what is printed beside the figures was written before them"
        assert len(parse(protocol.variants[0]).sr_blocks) == 0
