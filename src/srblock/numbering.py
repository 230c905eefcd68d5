"""The paper's stage numbers (M in its tables, 1-based) for any network.

They are given to children of one module: the one whose children show most resolutions, provided that they hold half of
the network's convolutions and linear layers. Children with at most one of these (a stem, a transition, a head) end no
stage.

- Siblings numbered by their author (`layer1..4`, `stages.0..3`, `blocks.0..6`, `features.0..7`): a stage ends where the
  next such child has other channels or another resolution.
- Siblings named otherwise or with pooling layers between them, or more than eight stages by the rule above: where the
  resolution changes.
- Single layers in a row (VGG, AlexNet): after each max-pool, as the paper counts VGG's groups; without pooling, where
  the resolution changes.

Stages count from 1, unless every stage is one child with a word and a number of its own (ShuffleNet's `stage2..4`).

Where a stage's last child cannot take a block, as DenseNet's dense blocks take every child for a layer, the number goes
to the next place that hands on a map of the same shape and can: `features.transition3.norm` is stage 3, the map after
`denseblock3`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

from torch import nn

MOST_STAGES = 8
POOLS = (nn.MaxPool2d, nn.AvgPool2d)


def number_stages(model: nn.Module, maps: dict[str, tuple[int, ...]]) -> dict[int, str]:
    """Give the paper's stage numbers (rule at the top of this file) to children of one module; {} if none fits.

    Args: maps: (C, H, W) by name, in the order of the forward pass.
    """
    best: list[str] = []
    most = 0
    order = {name: place for place, name in enumerate(maps)}
    enough = _layers(model) / 2
    for parent, module in sorted(model.named_modules(), key=lambda pair: len(pair[0].split("."))):
        children = {f"{parent}.{name}".lstrip("."): child for name, child in module.named_children()}
        members = sorted((name for name in children if name in maps), key=order.__getitem__)
        ends = (
            _ends(members, children, maps)
            if members and sum(_layers(children[name]) for name in members) >= enough
            else []
        )
        if (resolutions := len({maps[name][1:] for name in ends})) > most:
            best, most = ends, resolutions
    return dict(zip(_own_numbers(best) or range(1, len(best) + 1), best, strict=True))


def renumber(numbers: dict[int, str], maps: dict[str, tuple[int, ...]], usable: Collection[str]) -> dict[int, str]:
    """Move stage numbers from places that cannot take a block (rule at the top of this file); without one it goes.

    Args: maps: (C, H, W) by name, in the order of the forward pass; usable: the names that can take a block.
    """
    order = list(maps)
    moved = {}
    for number, name in numbers.items():
        later = [place for place in order[order.index(name) :] if not name.startswith(f"{place}.")]
        fitting = [place for place in later if place in usable and maps[place] == maps[name]]
        if fitting:  # the first, or the whole of which it is a part: a norm of several layers
            moved[number] = min((place for place in fitting if f"{fitting[0]}.".startswith(f"{place}.")), key=len)
    return moved


def _ends(members: list[str], children: dict[str, nn.Module], maps: dict[str, tuple[int, ...]]) -> list[str]:
    """Name the children at which a stage ends."""
    composite = [name for name in members if _layers(children[name]) > 1]
    if not composite:
        pools = [name for name in members if isinstance(children[name], POOLS)]
        return pools or _last_of_runs(members, [maps[name][1:] for name in members])
    plain = _last_of_runs(composite, [maps[name][1:] for name in composite])
    word = Counter(re.sub(r"\d+$", "", name) for name in composite).most_common(1)[0][0]
    siblings = [name for name in composite if re.fullmatch(re.escape(word) + r"\d+", name)]
    # Next to numbered siblings at most one resolution may belong to others: a stem of several layers.
    alone = len({maps[name][1:] for name in plain}) - len({maps[name][1:] for name in siblings}) > 1
    if alone or len(siblings) < 2:
        return plain
    between = members[members.index(siblings[0]) : members.index(siblings[-1])]
    pooled = any(isinstance(children[name], POOLS) for name in between)
    ends = _last_of_runs(siblings, [maps[name][pooled:] for name in siblings])
    return ends if len(ends) <= MOST_STAGES else _last_of_runs(siblings, [maps[name][1:] for name in siblings])


def _last_of_runs(names: list[str], keys: list[tuple[int, ...]]) -> list[str]:
    return [name for name, key, after in zip(names, keys, [*keys[1:], None], strict=True) if key != after]


def _own_numbers(ends: list[str]) -> list[int]:
    """Read `word1, word2, ...` as numbers if there is nothing between them; [] if the names are not like that."""
    found = [re.fullmatch(r"(.*[A-Za-z_])(\d+)", name) for name in ends]
    matches = [match for match in found if match]
    numbers = [int(match[2]) for match in matches]
    alike = len(matches) == len(ends) and len({match[1] for match in matches}) == 1
    return numbers if alike and numbers == list(range(max(numbers[0], 1), numbers[0] + len(ends))) else []


def _layers(module: nn.Module) -> int:
    return sum(isinstance(part, (nn.Conv2d, nn.Linear)) for part in module.modules())
