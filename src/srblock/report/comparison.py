"""A comparison in sentences: what the rows show, what their columns mean, what a reader must know."""

from __future__ import annotations

from collections.abc import Sequence

from srblock.report.recipes import selection
from srblock.report.units import mean_and_std, p_equals, reach, signed
from srblock.report.verdicts import words
from srblock.statistics.comparison import Row
from srblock.statistics.pairing import PAIRED_FROM, Pairing

ANALYSES = f"paired t where both have {PAIRED_FROM} seeds or more in common, else Welch's t"  # which test counts


def findings(rows: Sequence[Row]) -> list[str]:
    """Say of each difference what it amounts to, and what was to be seen with these seeds."""
    lines = []
    for row in rows:
        if row.verdict is None:
            continue
        line = f"{row.variant} against {row.baseline}: {words(row.verdict)}."
        if row.detectable is not None:
            line += f" Detectable with these seeds: {row.detectable:.2f}."
        lines.append(line)
    return lines


def pairings(rows: Sequence[Row]) -> list[str]:
    """Say of each comparison whether runs of a seed go together, and what the test that does not count gives."""
    paired = [(row, row.pairing) for row in rows if row.pairing is not None and row.pairing.correlation is not None]
    several = len({row.figure for row in rows}) > 1
    return [
        f"{row.variant} and {row.baseline}{f', {row.figure.label}' if several else ''}, {_pairing(row, found)}"
        for row, found in paired
    ]


def _pairing(row: Row, found: Pairing) -> str:
    text = f"{found.n} shared seeds: correlation {signed(found.correlation or 0)}"
    if found.correlation_interval is not None:
        text += f" ({reach(found.correlation_interval)})"
    if found.estimate is None:
        return f"{text}; every seed differs by the same."
    other = row.difference if row.paired else found
    name = "Welch's t, which leaves the pairing out, gives" if row.paired else "the paired t would give"
    if other is None or other.estimate is None:
        return f"{text}."
    return f"{text}; {name} {reach(other.estimate.interval())}, {p_equals(other.estimate.p)}."


def remarks(rows: Sequence[Row]) -> list[str]:
    """Say what a reader of a comparison must know and the figures do not show."""
    if not rows:
        return ["No run finished: there is nothing to compare."]
    lines = []
    if rows[0].variant != rows[0].baseline:
        lines.append(f"No seed of {rows[0].baseline} finished: there is nothing to compare with.")
    if others := [variant for variant in rows[0].absent if variant != rows[0].baseline]:
        lines.append(f"No seed finished of {', '.join(others)}: not in the table.")
    lines += unfinished(rows)
    lines += over_shared_seeds(rows)
    lines += without_looking(rows)
    if corrected(rows):
        lines.append(
            "Each interval stands for itself: among several comparisons a chance finding is likelier than 5%. "
            "Verdicts follow the p-values after Holm's correction, which counts them all."
        )
    return lines


def unfinished(rows: Sequence[Row]) -> list[str]:
    """Say which runs have no figure."""
    missing = {
        row.variant: f"{row.variant} {row.n} of {row.n + len(row.missing)} (not {', '.join(map(str, row.missing))})"
        for row in rows
        if row.missing
    }
    if not missing:
        return []
    return [f"Not all seeds finished: {', '.join(missing.values())}. The figures are of those that did."]


def over_shared_seeds(rows: Sequence[Row]) -> list[str]:
    """Say which differences are not those of the means beside them."""
    several = len({row.figure for row in rows}) > 1
    return [
        f"{row.variant} against {row.baseline}{f', {row.figure.label}' if several else ''}: difference, interval and p "
        f"are of the {found.n} seeds that both have, with means of {found.means[1]:.2f} and {found.means[0]:.2f}."
        for row in rows
        if (found := of_shared_seeds(row)) is not None
    ]


def of_shared_seeds(row: Row) -> Pairing | None:
    """Return the pairing that a row's difference is of, if it has fewer seeds than the means have; else None."""
    found, sides = row.analysis, row.difference
    if not isinstance(found, Pairing) or sides is None or found.n == max(sides.n, sides.n_baseline):
        return None
    return found


def balances(rows: Sequence[Row]) -> list[str]:
    """Give the figures that count every class alike, where the classes of the test part have very different sizes."""
    known = [(row.variant, row.balance) for row in rows if row.balance is not None]
    if not known:
        return []
    smallest, largest = known[0][1].images
    each = [
        f"{variant} {mean_and_std(found.accuracy.mean, found.accuracy.std)} and "
        f"{mean_and_std(found.macro_f1.mean, found.macro_f1.std)}"
        for variant, found in known
    ]
    said = f"Test classes have {smallest} to {largest} images. With every class counted alike, balanced accuracy and"
    return [f"{said} macro F1 are: {', '.join(each)}."]


def without_looking(rows: Sequence[Row]) -> list[str]:
    """Say of a segmentation what any network must beat."""
    if rows[0].commonest is None:
        return []
    name, figure = rows[0].commonest
    return [f"To say {name} of every pixel, without looking, gives {figure:.2f}% {rows[0].figure.label}."]


def legend(rows: Sequence[Row]) -> list[str]:
    """Say what the columns of a comparison mean, those only that have something in them."""
    if not rows:
        return []
    epoch = "" if rows[0].held_out else f" of {selection(False)}"
    spread = ", mean ± standard deviation over n seeds." if rows[0].n > 1 else "."
    labels = " and ".join(figure.label for figure in (rows[0].figure, *(other for other, _ in rows[0].others)))
    lines = [f"Test {labels} in percent{epoch}{spread}"]
    if any(row.difference is not None for row in rows):
        of = f" of {rows[0].figure.label}" if rows[0].others else ""
        lines[0] += f" The difference{of} is to {rows[0].baseline}, in percentage points."
    if any(row.estimate is not None for row in rows):
        lines[0] += f" Its interval and p are by {ANALYSES}."
    if any(p_greater(row) != "-" for row in rows):
        lines[0] += " P(A > B) is the share of seed pairs in which the variant beats it, ties count half."
    if any(row.detectable is not None for row in rows):
        lines[0] += " A true difference as large as the detectable one is found four times in five"
        lines[0] += ", after Holm's correction." if corrected(rows) else "."
    return lines


def corrected(rows: Sequence[Row]) -> bool:
    """Tell whether more than one comparison was tested, so that Holm's correction changes something."""
    return sum(row.p is not None for row in rows) > 1


def interval(row: Row) -> str:
    """Print a row's interval, or a dash where there is none."""
    return "-" if row.estimate is None else reach(row.estimate.interval())


def p_greater(row: Row) -> str:
    """Print a row's P(A > B); of one seed each it would be certainty from a single pair, so a dash."""
    found = row.difference
    if found is None or found.p_greater is None or found.n == found.n_baseline == 1:
        return "-"
    return f"{found.p_greater:.2f}"
