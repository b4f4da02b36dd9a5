"""How long an attempt may take: as the longest success of its kind did, until then as the sweep
file guesses.

The longest, not the mean: by it is decided what may still begin, and what no longer goes on.
"""

from collections.abc import Sequence

from sweep.spec.grid import Cell
from sweep.store.history import History
from trainer.contract import canonical_json


class Durations:
    """Successes so far, by kind: the budget and what the recipe varies."""

    def __init__(self, guess_s: float, cells: Sequence[Cell], history: History) -> None:
        self._guess_s = guess_s
        self._longest_s: dict[tuple[str, str], float] = {}
        for cell in cells:
            for ended in history.get(cell.id, ()):
                if ended.state == "succeeded":
                    self.add(cell, ended.wall_s)

    def add(self, cell: Cell, wall_s: float) -> None:
        """An attempt at ``cell`` has succeeded."""
        kind = _kind(cell)
        self._longest_s[kind] = max(wall_s, self._longest_s.get(kind, 0.0))

    def expected_s(self, cell: Cell) -> float:
        return self._longest_s.get(_kind(cell), self._guess_s)


def _kind(cell: Cell) -> tuple[str, str]:
    return cell.spec.budget, canonical_json(cell.overrides)
