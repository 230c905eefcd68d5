"""What `fold` did, in figures and words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FoldedBlock:
    """What became of one block.

    Attributes:
        name: of the module that it follows.
        folded, left: a sentence each on what was folded, and on what was left and why.
        parameters_before, parameters_after: of the block, and of what does its work now.
    """

    name: str
    folded: tuple[str, ...]
    left: tuple[str, ...]
    parameters_before: int
    parameters_after: int

    def __str__(self) -> str:
        lines = [f"{self.name!r}: {self.parameters_before:,} parameters, now {self.parameters_after:,}"]
        lines += [f"  folded: {what}" for what in self.folded]
        lines += [f"  left: {what}" for what in self.left]
        return "\n".join(lines)


@dataclass(frozen=True)
class Folding:
    """What `fold` did to every block, in the order in which they stand in the network."""

    blocks: tuple[FoldedBlock, ...]

    @property
    def folded(self) -> bool:
        """Whether anything was folded."""
        return any(block.folded for block in self.blocks)

    def __str__(self) -> str:
        return "\n".join(map(str, self.blocks))
