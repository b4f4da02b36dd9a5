"""The attempts at a cell that have ended, and the choice of the one that counts. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweep.store.schema import TERMINAL_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedAttempt:
    """What planning needs to know of an attempt that has ended.

    ``code_hash`` is of the code that answered, the trainer's or the script's; None where the row
    does not say it. ``score``: of the stage that is tested.
    """

    attempt: int
    state: str
    tainted: bool
    reason: str | None
    wall_s: float
    failure: str | None = None
    signature: str | None = None
    node: str | None = None
    code_hash: str | None = None
    generation: int = 0
    score: float | None = None

    @property
    def settles(self) -> bool:
        """The cell needs no other attempt."""
        return self.state in TERMINAL_STATES and not self.tainted


History = Mapping[str, Sequence[EndedAttempt]]
"""Ended attempts by cell id, lowest number first."""


def select_attempt(attempts: Sequence[EndedAttempt]) -> EndedAttempt:
    """The attempt that stands for its cell, see :func:`selection_key`."""
    return min(
        attempts,
        key=lambda ended: selection_key(
            ended.state, tainted=ended.tainted, generation=ended.generation, attempt=ended.attempt
        ),
    )


def selection_key(
    state: str, *, tainted: bool, generation: int, attempt: int
) -> tuple[int, int, bool, int]:
    """A key that is least for the attempt that stands for its cell.

    That is, of the latest generation that has settled the cell, the first untainted success, so
    that re-running cannot pick, else the first attempt that settled it (diverged). Where none has,
    it is the first tainted result, then the latest attempt.
    """
    if state not in TERMINAL_STATES:
        return 2, 0, False, -attempt
    return int(tainted), -generation, state != "succeeded" and not tainted, attempt


def latest_generation(attempts: Sequence[EndedAttempt]) -> int:
    return max((ended.generation for ended in attempts), default=0)
