"""Numbers as people read them."""

from __future__ import annotations


def operations(value: float | None) -> str:
    """Print floating-point operations with a prefix: 1.60 M, 3.34 G."""
    if value is None:
        return "-"
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:.2f} {prefix}"
    return f"{value:.0f}"


def milliseconds(value: float | None) -> str:
    """Print a time in ms with three digits that count: 0.0421, 3.10, 125."""
    if value is None:
        return "-"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3 if value >= 0.1 else 4
    return f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """Print a time in its two largest units: 8 s, 2 min 05 s, 3 h 20 min, 2 d 4 h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(whole / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(minutes / 60)
    return f"{hours // 24} d {hours % 24} h"


def mean_and_std(mean: float, std: float | None) -> str:
    """Print accuracies as 98.06 ± 0.31, or the single value there is."""
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"


def signed(value: float | None) -> str:
    """Print a number with its sign; what rounds to zero has none; a dash where there is no number."""
    if value is None:
        return "-"
    text = f"{value:+.2f}"
    return text[1:] if float(text) == 0 else text


def points(value: float | None) -> str:
    """Print percentage points without a sign; a dash where there are none."""
    return "-" if value is None else f"{value:.2f}"


def probability(p: float | None) -> str:
    """Print a p-value with the digits that count; a dash where there is none."""
    if p is None:
        return "-"
    if p < 0.001:
        return "<0.001"
    text = f"{p:.4f}" if p < 0.1 else f"{p:.3f}"
    return f"{p:.6f}" if text == "0.0500" and p != 0.05 else text  # on which side of 0.05 it lies counts


def p_equals(p: float) -> str:
    """Print a p-value with its letter: p = 0.0123, p < 0.001."""
    return f"p = {probability(p)}".replace("= <", "< ")


def reach(interval: tuple[float, float] | None) -> str:
    """Print an interval: -0.14 to +0.43; a dash where there is none.

    An end beside 0 has the digits that it takes to see on which side it lies: -0.45 to -0.0005.
    """
    return "-" if interval is None else " to ".join(map(_end, interval))


def _end(value: float) -> str:
    return f"{value:+.4f}" if 5e-5 <= abs(value) < 0.005 else signed(value)
