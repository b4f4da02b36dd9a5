"""How long an attempt may take: as the longest success of its kind did, until then as the sweep
file guesses.

The longest, not the mean: by it is decided what may still begin, and what no longer goes on.
"""

from collections.abc import Sequence

from sweep.spec.grid import Cell
from sweep.store.history import History
from trainer.contract import canonical_json

Kind = tuple[str, str]


def kind_of(cell: Cell) -> Kind:
    """The budget, and what the recipe varies."""
    return cell.spec.budget, canonical_json(cell.overrides)


class Durations:
    """The longest success of each kind so far."""

    def __init__(self, guess_s: float, cells: Sequence[Cell], history: History) -> None:
        self._guess_s = guess_s
        self._longest_s: dict[Kind, float] = {}
        for cell in cells:
            for ended in history.get(cell.id, ()):
                if ended.state == "succeeded":
                    self.add(kind_of(cell), ended.wall_s)

    def add(self, kind: Kind, wall_s: float) -> None:
        """An attempt has succeeded."""
        self._longest_s[kind] = max(wall_s, self._longest_s.get(kind, 0.0))

    def expected_s(self, kind: Kind) -> float:
        return self._longest_s.get(kind, self._guess_s)
