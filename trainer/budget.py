"""Budgets of steps and of seconds, which answer one question alike: how many steps remain."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar, Literal

from trainer.config.config_errors import ConfigError


@dataclass(frozen=True, slots=True)
class Steps:
    """A fixed number of updates."""

    kind: ClassVar[Literal["steps"]] = "steps"
    num_steps: int

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ConfigError(f"budget {self}: a budget has at least one step.")

    @property
    def value(self) -> float:
        return self.num_steps

    def __str__(self) -> str:
        return f"{self.num_steps}steps"

    def remaining_steps(self, step: int, elapsed_s: float) -> float:
        """Steps still to take before update ``step`` (from 0); the budget is spent at zero.

        >>> Steps(200).remaining_steps(150, elapsed_s=3.0)
        50.0
        """
        return float(self.num_steps - step)


@dataclass(frozen=True, slots=True)
class Seconds:
    """A fixed training time; warm-up, compilation, scoring and saving do not count."""

    kind: ClassVar[Literal["seconds"]] = "seconds"
    seconds: float

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ConfigError(f"budget {self}: a budget is longer than zero seconds.")

    @property
    def value(self) -> float:
        return self.seconds

    def __str__(self) -> str:
        return f"{Decimal(repr(self.seconds)):f}".removesuffix(".0") + "s"

    def remaining_steps(self, step: int, elapsed_s: float) -> float | None:
        """Time left over the mean step time so far; None before the first step, which has no mean.

        ``elapsed_s`` is training time alone, and the budget is spent at zero or less.

        >>> Seconds(600).remaining_steps(step=100, elapsed_s=10.0)
        5900.0
        >>> Seconds(600).remaining_steps(step=0, elapsed_s=0.0) is None
        True
        """
        if step == 0 or elapsed_s <= 0.0:
            return None
        return (self.seconds - elapsed_s) / (elapsed_s / step)


Budget = Steps | Seconds


def parse_budget(text: str) -> Budget:
    """The budget that ``text`` names: ``200steps`` or ``600s``.

    >>> parse_budget("200steps"), parse_budget("600s")
    (Steps(num_steps=200), Seconds(seconds=600.0))
    """
    match = re.fullmatch(r"(\d+)steps|(\d+(?:\.\d+)?)s", text)
    if match is None:
        raise ConfigError(
            f"budget {text!r}: a number and its unit are needed, such as 200steps or 600s."
        )
    steps, seconds = match.groups()
    return Steps(int(steps)) if steps is not None else Seconds(float(seconds))
