"""Many settings in one line: "R18 + SR(M={3,4}, P={2..12:2})" (the study of Sec. III-D)."""

from __future__ import annotations

import itertools
import re

from srblock.variants.notation import Variant, parse

MOST = 1000  # settings; more are a slip of the pen


def expand(text: str) -> tuple[Variant, ...]:
    """Read a variant with braces as all the variants it stands for, in the order written, the last brace fastest.

    `{3,4}` lists words, `{2..12:2}` counts from 2 to 12 in steps of 2, `{1..4}` in steps of 1; both may be mixed. All
    must be the same network without their blocks: a sweep chooses a block, not a network.

    Raises: ValueError for braces that cannot be read, one setting only, or several networks.
    """
    parts = re.split(r"(\{[^{}]*\})", text)
    if any("{" in part or "}" in part for part in parts[::2]):
        raise ValueError(f"{text!r}: braces are nested or not closed; write M={{3,4}} or P={{2..12:2}}")
    choices = [_choices(part, text) if number % 2 else [part] for number, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MOST:
        raise ValueError(f"{text!r} stands for {count:,} settings, more than {MOST:,}; leave some out")
    found = tuple(dict.fromkeys(parse("".join(words)) for words in itertools.product(*choices)))
    if len(found) < 2:
        raise ValueError(f"{text!r} is one setting; write what to choose from in braces: SR(M={{3,4}}, P={{2..12:2}})")
    if not all(variant.sr_blocks for variant in found):
        raise ValueError(f"{text!r}: a sweep chooses a block, but there is none; add SR(M={{3,4}})")
    networks = dict.fromkeys(str(variant.without_sr()) for variant in found)
    if len(networks) > 1:
        raise ValueError(f"{text!r}: a sweep chooses a block for one network, got {', '.join(networks)}")
    return found


def _choices(braces: str, text: str) -> list[str]:
    found: list[str] = []
    for word in braces[1:-1].split(","):
        word = word.strip()
        span = re.fullmatch(r"(\d+)\.\.(\d+)(?::(\d+))?", word)
        if span is None:
            if not word or ".." in word:
                raise ValueError(f"{text!r}: cannot read {braces}; write {{3,4}}, {{1..4}} or {{2..12:2}}")
            found.append(word)
            continue
        first, last, step = int(span[1]), int(span[2]), int(span[3] or 1)
        if step < 1 or first > last:
            raise ValueError(f"{text!r}: {word} counts nothing; write first..last:step, such as 2..12:2")
        if (last - first) // step >= MOST:
            raise ValueError(f"{text!r}: {word} counts more than {MOST:,} settings; leave some out")
        found += map(str, range(first, last + 1, step))
    return found
