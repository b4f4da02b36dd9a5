"""How closely do two measured things go together, beyond what blocks and groups explain of both?

The partial correlation: both are freed of the block effects by least squares, and what is left of
them is correlated. With n values and a design of rank k (the constant is in it) it has n − k − 1
degrees of freedom; t = r · √(df / (1 − r²)) is Student's where the left-overs are independent and
normal, and atanh r has the standard error 1 / √(df − 1) (Fisher 1924). It says how two things vary
together. It says nothing of which causes which, or whether a third causes both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Reals = NDArray[np.float64]

CONSTANT = "it is the same everywhere"
TOO_FEW = "too few values"

# What least squares leaves of a constant is rounding: a few 2e-16 of its size per value. Variation
# below this share of the size is that, or cannot be told from it.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """A partial correlation with its interval; None where it cannot be told, and then ``reason``.

    ``slope`` is that of y over x beyond the design, in units of y per unit of x.
    """

    n: int
    df: int
    correlation: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    slope: float | None = None
    reason: str | None = None


def association(x_N: Reals, y_N: Reals, design_NK: Reals, *, level: float = 0.95) -> Association:
    """How x and y go together beyond ``design_NK``, whose columns hold at least the constant.

    >>> x, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0, 4.0])
    >>> found = association(x, y, np.ones((4, 1)))
    >>> round(found.correlation, 6), found.df, round(found.slope, 6)
    (0.8, 2, 0.8)
    """
    n = int(x_N.size)
    rank = int(np.linalg.matrix_rank(design_NK)) if n else 0
    df = n - rank - 1
    if df < 1:
        return Association(n=n, df=df, reason=TOO_FEW)
    left_x, left_y = _left_over(x_N, design_NK), _left_over(y_N, design_NK)
    if left_x is None or left_y is None:
        return Association(n=n, df=df, reason=CONSTANT)
    both = float(left_x @ left_y)
    r = both / math.sqrt(float(left_x @ left_x) * float(left_y @ left_y))
    r = min(1.0, max(-1.0, r))
    low, high = _fisher(r, df, level)
    return Association(
        n=n,
        df=df,
        correlation=r,
        low=low,
        high=high,
        p_value=_two_sided(r, df),
        slope=both / float(left_x @ left_x),
    )


def groups(*labels: Sequence[object]) -> Reals:
    """One column of zeros and ones per distinct label of each sequence.

    >>> groups(["a", "b", "a"]).tolist()
    [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    """
    columns = []
    for named in labels:
        known = sorted(set(named), key=str)
        columns.append(np.array([[float(name == other) for other in known] for name in named]))
    return np.concatenate(columns, axis=1)


def group_effects(y_N: Reals, blocks: Sequence[object], of: Sequence[object]) -> Reals | None:
    """The additive effect of each of the sorted ``of``, blocks taken out, up to a common constant.

    In a complete grid these are the means, centred. None where blocks and groups do not hang
    together, so that some two effects are never compared within a block.
    """
    design = groups(blocks, of)
    effects, _, rank, _ = np.linalg.lstsq(design, y_N - y_N.mean(), rcond=None)
    if rank < design.shape[1] - 1:
        return None
    of_groups: Reals = effects[len(set(blocks)) :] - effects[len(set(blocks)) :].mean()
    is_rounding = np.abs(of_groups).max() <= _ROUNDING * np.abs(y_N).max()
    return np.zeros_like(of_groups) if is_rounding else of_groups


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values that hold for all of them at once (Holm 1979); what is absent is not counted.

    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, i) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        adjusted[i] = least
    return adjusted


def _left_over(v_N: Reals, design_NK: Reals) -> Reals | None:
    """What the design does not explain of ``v_N``; None where nothing but rounding is left."""
    centred = v_N - v_N.mean()
    effects = np.linalg.lstsq(design_NK, centred, rcond=None)[0]
    left: Reals = centred - design_NK @ effects
    return None if np.abs(left).max() <= _ROUNDING * np.abs(v_N).max() else left


def _fisher(r: float, df: int, level: float) -> tuple[float | None, float | None]:
    if df < 2:
        return None, None
    if abs(r) == 1.0:
        return r, r
    reach = float(special.ndtri((1 + level) / 2)) / math.sqrt(df - 1)
    return math.tanh(math.atanh(r) - reach), math.tanh(math.atanh(r) + reach)


def _two_sided(r: float, df: int) -> float:
    if abs(r) == 1.0:
        return 0.0
    return float(2 * special.stdtr(df, -abs(r) * math.sqrt(df / (1 - r * r))))
