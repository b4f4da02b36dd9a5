"""Mean, standard deviation and Student's t interval of a few numbers, as one value."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Reals = NDArray[np.float64]

LEVEL = 0.95  # of every interval that is reported


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and what stands behind it; None is what so few numbers cannot say."""

    n: int
    mean: float | None
    sd: float | None
    half_width: float | None


@dataclass(frozen=True, slots=True)
class TInterval:
    """The two-sided Student t interval of a mean: mean ± t(level, n − 1) · sd / √n.

    Absent numbers are left out and not counted. One number has a mean and no interval.

    >>> estimate = TInterval()([1.0, 2.0, 3.0])
    >>> estimate.n, estimate.mean, estimate.sd, round(estimate.half_width, 6)
    (3, 2.0, 1.0, 2.484138)
    >>> TInterval()([1.0])
    Estimate(n=1, mean=1.0, sd=None, half_width=None)
    """

    level: float = LEVEL

    def __call__(self, values: Iterable[float]) -> Estimate:
        known = np.asarray([value for value in values if not math.isnan(value)], dtype=np.float64)
        if known.size == 0:
            return Estimate(0, None, None, None)
        if known.size == 1:
            return Estimate(1, float(known[0]), None, None)
        sd = float(known.std(ddof=1))
        half_width = t_quantile(self.level, known.size - 1) * sd / math.sqrt(known.size)
        return Estimate(known.size, float(known.mean()), sd, half_width)


def no_narrower(own: Reals, n: Reals, df: Reals, squares: Reals) -> Reals:
    """Half widths of means of ``n`` numbers: ``own``, or the pooled t interval if that is wider.

    The pooled spread is √(``squares`` / ``df``). Few numbers agree by luck; what is never narrower
    than ``own`` covers as often. NaN where ``own`` is.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        least = special.stdtrit(df, (1 + LEVEL) / 2) * np.sqrt(squares / df / n)
    return np.where(np.isnan(own), np.nan, np.fmax(own, least))


def t_quantile(level: float, df: int) -> float:
    """The t that ``level`` of Student's distribution with ``df`` degrees of freedom lies within."""
    return float(special.stdtrit(df, (1 + level) / 2))
