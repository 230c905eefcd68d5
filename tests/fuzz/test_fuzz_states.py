"""Trainer states that were damaged: gone on from where nothing that counts has changed, or refused in words."""

from __future__ import annotations

import random
from pathlib import Path

from test_checkpoint import STATE, half_done
from test_loop import lines, run

from fuzz.bounds import Record, tries
from fuzz.mutations import mutated_arrays, spoiled
from srblock.training.checkpoint import CheckpointError


def test_a_changed_state_is_refused_or_the_same(tmp_path: Path, record_property: Record) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    run(whole)
    half_done(parts)
    state = (parts / STATE).read_bytes()
    draw = random.Random(0)
    for _ in tries("trainer state", record_property):
        (parts / STATE).write_bytes(state)
        if draw.random() < 0.5:
            what = f"bytes {draw.random()}"
            (parts / STATE).write_bytes(spoiled(state, draw))
        else:
            what = mutated_arrays(parts / STATE, draw)
        try:
            run(parts)
        except CheckpointError:
            continue
        except Exception as error:
            raise AssertionError(f"{what}: {error!r}") from error
        assert lines(parts) == lines(whole), what
