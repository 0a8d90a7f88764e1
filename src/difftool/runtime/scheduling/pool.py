"""Divide the one table that all samples run from among the programs in use.

This only counts places; the owner of the slots writes the rows there. A block that no sample uses
stays until another one needs its place, since the next request often runs the same program.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

ROWS: Final = 1 << 17  # of all programs in use; the longest program has 100,000
CONDS: Final = 1 << 14  # inputs of the conditioner, each of which has a row of outputs
_KEPT: Final = 8  # one part in so many is kept for brief programs


@dataclass
class Block:
    """The rows, and the conditioner's outputs, of a program for one label; `users` count samples.

    Both are half-open ranges, of the table and of cond_table.
    """

    rows: tuple[int, int]
    conds: tuple[int, int]
    users: int = 0


class Pool:
    """Blocks by a key, which is equal for equal programs and labels only."""

    def __init__(self, rows: int = ROWS, conds: int = CONDS) -> None:
        self.rows, self.conds = rows, conds
        self._blocks: dict[bytes, Block] = {}  # the block that was used longest ago comes first

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def users(self) -> int:
        """Return how many samples use a block."""
        return sum(block.users for block in self._blocks.values())

    def most(self, *, brief: bool) -> tuple[int, int]:
        """Return how many rows and conds a program may have."""
        if brief:
            return self.rows, self.conds
        return self.rows - self.rows // _KEPT, self.conds - self.conds // _KEPT

    def find(self, key: bytes) -> Block | None:
        """Return the block of a key, if there is one."""
        if (block := self._blocks.pop(key, None)) is not None:
            self._blocks[key] = block
        return block

    def add(self, key: bytes, rows: int, conds: int, *, brief: bool) -> Block | None:
        """Make a new block; None if there is no room until others are no longer used.

        A block that is not brief stays out of the last part, whoever is there.
        """
        ends = self.most(brief=brief)
        idle = [known for known, block in self._blocks.items() if not block.users]
        while (block := self._fit(rows, conds, ends)) is None:
            if not idle:
                return None
            del self._blocks[idle.pop(0)]
        self._blocks[key] = block
        return block

    def remove(self, key: bytes) -> None:
        """Forget a block whose rows could not be written."""
        del self._blocks[key]

    def _fit(self, rows: int, conds: int, ends: tuple[int, int]) -> Block | None:
        blocks = self._blocks.values()
        row = _gap((block.rows for block in blocks), rows, ends[0])
        cond = _gap((block.conds for block in blocks), conds, ends[1])
        if row is None or cond is None:
            return None
        return Block((row, row + rows), (cond, cond + conds))


def _gap(taken: Iterable[tuple[int, int]], size: int, end: int) -> int | None:
    """Return where the first gap of this size begins in 0 .. end, between ranges of any place."""
    begin = 0
    for first, last in sorted(taken):
        if min(first, end) - begin >= size:
            break
        begin = last
    else:
        return begin if end - begin >= size else None
    return begin
