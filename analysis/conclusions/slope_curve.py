"""The best slope: a smooth curve over the tested slopes and a confidence set for its minimum.

The model is that of ``analysis.stats.compare`` with a smooth curve in place of one mean per slope:
score = block + curve(slope) + noise (``analysis.models.curve_fit``). The best slope is where the
curve is lowest; every place that is not resolved as worse than some tested slope may be the best
one too. The same contrasts say whether any two slopes differ, and which differ from the reference
(``analysis.models.curve_contrasts``; they hold where noise is unequal). Blocks are fixed: the
answer is about these seeds and their order of data.

ReLU² and LeakyReLU²(0.0) are one point at slope 0. A learned activation has no slope and is
compared with every fixed slope by ``analysis.conclusions.best_fixed``. A slope with a diverged seed
is left out and named.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.models.curve_contrasts import FromReference, curve_contrasts
from analysis.models.curve_fit import Cells, CurveFit, fit_curve
from analysis.models.interval import LEVEL
from analysis.models.least_squares import Flags, Floats
from analysis.number_format import capital, counted, listed, number, p_value, percent
from analysis.rows.names import labels_of
from analysis.rows.scoring import stage_title
from analysis.stats.compare import UNJUDGED
from analysis.stats.ranking import ranked_scores
from analysis.stats.slopes import fixed_slopes
from analysis.study import Study, answered_once

FEWEST_SLOPES = 3
CONTRAST_LEVEL = 1 - (1 - LEVEL) / 2  # from the reference; the other half is spent on means alone
NUM_PLACES = 181  # on the slopes 0 to 0.9 of the grid: every 0.005
_LINE = ("slope", "fit", "low", "high")
_CONTRASTS = ("key", "slope", "difference", "low", "high", "half_width", "p_value", "resolved")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlopeCurve:
    """The answer for one setting; what cannot be told is None (or empty) and ``reason`` says why.

    ``line`` has slope and fit (the mean over the blocks); low and high hold the difference from the
    reference slope, drawn from its fit, null where the reference has none. ``contrasts``: the
    tested slopes' differences from it along the curve, simultaneous at ``CONTRAST_LEVEL``, as the
    band is (``analysis.conclusions.contrasts``). ``best_set``: the slope
    intervals that may hold the minimum, together at ``level``; single slopes where no curve fits
    (``degree`` is None). ``flat``: no two slopes are resolved from one another (``flat_p``).
    ``largest``: the largest difference between two slopes that the cells leave possible. ``fit_p``:
    lack of fit of the polynomial; None where nothing is left to test it. ``n`` counts seeds,
    ``missing`` the scores that a slope lacks, ``left_out`` what diverged.
    """

    setting: str
    quantity: str
    title: str
    n: int
    level: float = LEVEL
    slopes: tuple[float, ...]
    left_out: tuple[str, ...]
    missing: int = 0
    degree: int | None = None
    noise_sd: float | None = None
    line: pd.DataFrame
    contrasts: pd.DataFrame
    best: float | None = None
    best_set: tuple[tuple[float, float], ...] = ()
    flat: bool | None = None
    flat_p: float | None = None
    largest: float | None = None
    fit_p: float | None = None
    reason: str | None = None

    def sentence(self) -> str:
        """The answer in words, with its n and level."""
        return " ".join([f"{capital(self.title)} ({self.setting}):", *_sentences(self)])


def slope_curves(study: Study, quantity: str) -> tuple[SlopeCurve, ...]:
    """One curve for each setting whose cells have three slopes or more, answered or not."""
    curves = []
    for here in study.settings.values():
        if len(set(fixed_slopes(here.cells).values())) >= FEWEST_SLOPES:
            curves.append(slope_curve(here, quantity))
    return tuple(curves)


@answered_once
def slope_curve(here: Study, quantity: str) -> SlopeCurve:
    """The curve of a study of one setting."""
    slopes = fixed_slopes(here.cells)
    matrix = ranked_scores(here, quantity, None).dropna(how="all")
    on_curve = [key for key in matrix if key in slopes and matrix[key].notna().any()]
    tested = matrix[on_curve].dropna(how="all")
    labels = labels_of(here.cells)
    empty = SlopeCurve(
        setting=str(here.cells["setting"].iloc[0]),
        quantity=quantity,
        title=stage_title(here.cells, quantity),
        n=len(set(tested.index.get_level_values("seed"))),
        slopes=tuple(sorted(slopes[key] for key in on_curve)),
        left_out=tuple(labels[key] for key in sorted(slopes.keys() - matrix.columns)),
        missing=int(tested.groupby(level="seed").first().isna().to_numpy().sum()),
        line=pd.DataFrame(columns=_LINE, dtype=float),
        contrasts=pd.DataFrame(columns=_CONTRASTS),
    )
    if len(on_curve) < FEWEST_SLOPES:
        found = counted(len(on_curve), "slope")
        return replace(empty, reason=f"{found} can be ranked; a curve needs {FEWEST_SLOPES}")
    if here.sweep.standing is not None:
        return replace(empty, reason=UNJUDGED["stopped"])
    fit = fit_curve(Cells.of(matrix, slopes))
    if isinstance(fit, str):
        return replace(empty, reason=fit)
    return _answered(empty, fit, {slopes[key]: key for key in on_curve}, reference_slope(here))


def reference_slope(here: Study) -> float | None:
    """The slope of the reference; None where its β is not fixed."""
    of_reference = here.cells.loc[here.cells["key"] == here.reference, "neg_beta"].dropna()
    return None if of_reference.empty else float(of_reference.iloc[0]) ** 0.5


def _answered(
    empty: SlopeCurve, fit: CurveFit, keys: Mapping[float, str], reference: float | None
) -> SlopeCurve:
    """The curve with everything that its fit says; ``keys`` by slope."""
    tested_T = fit.cells.tested
    is_smooth = fit.degree is not None
    places_G = np.linspace(tested_T[0], tested_T[-1], NUM_PLACES) if is_smooth else tested_T
    fit_G = fit.estimators(places_G) @ fit.cells.values_N
    found = curve_contrasts(
        fit,
        places_G,
        level=empty.level,
        reference=reference if reference in keys else None,
        reference_level=CONTRAST_LEVEL,
    )
    line = pd.DataFrame({"slope": places_G, "fit": fit_G, "low": np.nan, "high": np.nan})
    if found.from_reference is not None:
        half_G = found.from_reference.half_width_G
        line = line.assign(low=fit_G - half_G, high=fit_G + half_G)
    return replace(
        empty,
        degree=fit.degree,
        noise_sd=fit.noise.sd,
        line=line,
        contrasts=_contrasts(keys, found.from_reference),
        best=float(places_G[np.argmin(fit_G)]),
        best_set=intervals(places_G, found.kept_G)
        if is_smooth
        else tuple((float(slope), float(slope)) for slope in tested_T[found.kept_G]),
        flat=found.pairs_p > _largest_p(empty.level),
        flat_p=found.pairs_p,
        largest=found.largest,
        fit_p=fit.fit_p,
    )


def _contrasts(keys: Mapping[float, str], found: FromReference | None) -> pd.DataFrame:
    """One row per tested slope but the reference's; without one, none."""
    if found is None:
        return pd.DataFrame(columns=_CONTRASTS)
    slopes = sorted(keys)
    rows = pd.DataFrame(
        {
            "key": [keys[slope] for slope in slopes],
            "slope": slopes,
            "difference": found.difference_T,
            "low": found.difference_T - found.half_width_T,
            "high": found.difference_T + found.half_width_T,
            "half_width": found.half_width_T,
            "p_value": found.p_value_T,
            "resolved": found.p_value_T <= _largest_p(CONTRAST_LEVEL),
        }
    )
    return rows[rows["half_width"] > 0].reset_index(drop=True)


def _largest_p(level: float) -> float:
    """Of what is resolved; a share of simulated grids is compared with it, so it is rounded."""
    return round(1 - level, 9)


def intervals(places_G: Floats, kept_G: Flags) -> tuple[tuple[float, float], ...]:
    """The runs of kept places, each up to the next place that is not kept: never too short.

    >>> intervals(np.array([0.0, 0.1, 0.2, 0.3, 0.4]), np.array([1, 0, 0, 1, 0], bool))
    ((0.0, 0.1), (0.2, 0.4))
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(kept_G, int), [0]])))
    last = len(places_G) - 1
    return tuple(
        (float(places_G[max(start - 1, 0)]), float(places_G[min(stop, last)]))
        for start, stop in zip(edges[::2], edges[1::2], strict=True)
    )


def _sentences(curve: SlopeCurve) -> list[str]:
    words = [_finding(curve)]
    if curve.reason is None and curve.missing:
        words.append(f"{counted(curve.missing, 'score is', 'scores are')} missing.")
    if curve.left_out:
        words.append(
            f"Not on the curve: {listed(list(curve.left_out))} (no score yet, or a diverged seed)."
        )
    return words


def _finding(curve: SlopeCurve) -> str:
    if curve.best is None or curve.flat_p is None:
        return f"no best slope can be told: {curve.reason}."
    tested = f"{counted(curve.n, 'seed')}, {counted(len(curve.slopes), 'slope')}"
    p, level = p_value(curve.flat_p), percent(curve.level)
    if curve.flat:
        return (
            f"no two slopes are resolved from one another ({p}; {tested}); a difference above"
            f" {number(curve.largest)} BPB between slopes is excluded at {level}."
        )
    best = number(curve.best, decimals=2)
    if curve.degree is None:
        misfit = p_value(curve.fit_p) if curve.fit_p is not None else ""
        return (
            f"no smooth curve fits the tested slopes ({misfit}), so each stands for itself: {best}"
            f" is lowest, and the best of them is in {best_set(curve)} at {level} ({tested}; effect"
            f" of the slope: {p})."
        )
    words = (
        f"the fitted curve is lowest at slope {best}; the best slope lies in {best_set(curve)}"
        f" at {level} ({tested}; effect of the slope: {p})."
    )
    low, high = curve.slopes[0], curve.slopes[-1]
    if any((a <= low and low > 0) or b >= high for a, b in curve.best_set):
        words += " That reaches the edge of what was tested: a slope beyond it may be better still."
    return words


def best_set(curve: SlopeCurve) -> str:
    """The confidence set in words: 0.41 to 0.52."""
    runs = (dict.fromkeys(number(end, decimals=2) for end in run) for run in curve.best_set)
    return listed([" to ".join(run) for run in runs])
