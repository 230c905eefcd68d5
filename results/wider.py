"""The plain network of protocols/open-memory.md that has the parameters of a block without one.

    PYTHONPATH=results srblock train wider:airbench94 ...

A run is known by this file's source, so it stays as it is once the first run is made.
"""

from __future__ import annotations

from srblock.models.airbench import Airbench94

WIDTH = 257  # of groups 2 and 3, 256 in Airbench94: adds 14,535 parameters


def airbench94() -> Airbench94:
    """Build Airbench94 for CIFAR-100 with `WIDTH` channels in its second and third group."""
    return Airbench94(classes=100, widths=(64, WIDTH, WIDTH))
