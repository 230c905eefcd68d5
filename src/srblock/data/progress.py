"""How loading tells a caller how far it is: progress(what, done, total), total None while it is unknown."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
