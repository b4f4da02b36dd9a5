"""The best slope: a smooth curve over the tested slopes and a confidence set for its minimum.

The model is that of ``analysis.stats.compare`` with a smooth curve in place of one mean per slope:
score = block + curve(slope) + noise (``analysis.models.curve_fit``). The best slope is where the
curve is lowest; every slope that is not resolved from the lowest may be the best one too
(``analysis.models.curve_fit``). Blocks are fixed: the answer is about these seeds and their
order of data.

ReLU² and LeakyReLU²(0.0) are one point at slope 0. A learned activation has no slope and is
compared with every fixed slope by ``analysis.stats.best_fixed``. A slope with a diverged seed is
left out and named.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.models.curve_fit import (
    Cells,
    CurveFit,
    critical_values,
    fit_curve,
    intervals,
    largest_difference,
    may_be_minimum,
)
from analysis.models.interval import LEVEL
from analysis.number_format import capital, counted, listed, number, p_value, percent
from analysis.rows.names import labels_of
from analysis.rows.scoring import stage_title
from analysis.stats.ranking import ranked_scores
from analysis.stats.slopes import fixed_slopes
from analysis.study import Study

FEWEST_SLOPES = 3
NUM_DRAWS = 2000
NUM_PLACES = 181  # on the slopes 0 to 0.9 of the grid: every 0.005
_NO_LINE = ("slope", "fit", "low", "high")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlopeCurve:
    """The answer for one setting; what cannot be told is None (or empty) and ``reason`` says why.

    ``line`` has slope, fit (the mean over the blocks) and low, high (a band for the whole curve at
    once). ``best_set``: the slope intervals that may hold the minimum, together at ``level``.
    ``flat``: no effect is resolved (``flat_p``); None where slopes differ in a way that no smooth
    curve follows. ``largest``: the largest difference between two slopes that the cells leave
    possible. ``fit_p``: lack of fit of ``degree``; None where nothing is left to test it.
    ``n`` counts seeds, ``missing`` the scores that a slope lacks, ``left_out`` what diverged.
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
    best: float | None = None
    best_set: tuple[tuple[float, float], ...] = ()
    flat: bool | None = None
    flat_p: float | None = None
    largest: float | None = None
    fit_p: float | None = None
    reason: str | None = None

    @property
    def fits(self) -> bool:
        """Whether there is an answer, and the tested slopes do not contradict the curve."""
        return self.best is not None and (self.fit_p is None or self.fit_p >= 1 - self.level)

    def sentence(self) -> str:
        """The answer in words, with its n and level."""
        return " ".join([f"{capital(self.title)} ({self.setting}):", *_sentences(self)])


def slope_curves(study: Study, quantity: str) -> tuple[SlopeCurve, ...]:
    """One curve for each setting whose cells have three slopes or more, answered or not."""
    curves = []
    for here in study.settings.values():
        slopes = fixed_slopes(here.cells)
        if len(set(slopes.values())) >= FEWEST_SLOPES:
            matrix = ranked_scores(here, quantity, None).dropna(how="all")
            curves.append(_curve(here.cells, quantity, slopes, matrix))
    return tuple(curves)


def _curve(
    frame: pd.DataFrame, quantity: str, slopes: dict[str, float], matrix: pd.DataFrame
) -> SlopeCurve:
    on_curve = [key for key in matrix if key in slopes and matrix[key].notna().any()]
    tested = matrix[on_curve].dropna(how="all")
    labels = labels_of(frame)
    empty = SlopeCurve(
        setting=str(frame["setting"].iloc[0]),
        quantity=quantity,
        title=stage_title(frame, quantity),
        n=len(set(tested.index.get_level_values("seed"))),
        slopes=tuple(sorted(slopes[key] for key in on_curve)),
        left_out=tuple(labels[key] for key in sorted(slopes.keys() - matrix.columns)),
        missing=int(tested.groupby(level="seed").first().isna().to_numpy().sum()),
        line=pd.DataFrame(columns=_NO_LINE, dtype=float),
    )
    if len(on_curve) < FEWEST_SLOPES:
        found = counted(len(on_curve), "slope")
        return replace(empty, reason=f"{found} can be ranked; a curve needs {FEWEST_SLOPES}")
    fit = fit_curve(Cells.of(matrix, slopes))
    if isinstance(fit, str):
        return replace(empty, reason=fit)
    return _answered(empty, fit)


def _answered(empty: SlopeCurve, fit: CurveFit) -> SlopeCurve:
    """The curve with everything that its fit says."""
    places_G = np.linspace(empty.slopes[0], empty.slopes[-1], NUM_PLACES)
    fit_G, roots_GD = fit.at(places_G)
    critical = critical_values(roots_GD, df=fit.noise.df, level=LEVEL, draws=NUM_DRAWS)
    sd = fit.noise_sd
    half_G = critical.band * sd * np.linalg.norm(roots_GD, axis=1)
    kept_G = may_be_minimum(fit_G, roots_GD, sd=sd, critical=critical)
    trend = fit.trend.p_value < 1 - LEVEL
    irregular = any(test.p_value < 1 - LEVEL for test in fit.misfits)
    return replace(
        empty,
        degree=fit.degree,
        noise_sd=sd,
        line=pd.DataFrame(
            {"slope": places_G, "fit": fit_G, "low": fit_G - half_G, "high": fit_G + half_G}
        ),
        best=float(places_G[np.argmin(fit_G)]),
        best_set=intervals(places_G, kept_G),
        flat=False if trend else (None if irregular else True),
        flat_p=fit.trend.p_value,
        largest=largest_difference(fit_G, roots_GD, sd=sd, critical=critical),
        fit_p=fit.misfits[-1].p_value if fit.misfits else None,
    )


def _sentences(curve: SlopeCurve) -> list[str]:
    words = [_finding(curve)]
    if curve.best is not None and curve.fit_p is not None and not curve.fits:
        words.append(
            f"A curve of degree {curve.degree} does not fit the tested slopes"
            f" ({p_value(curve.fit_p)}): read the slopes themselves."
        )
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
            f"no slope effect is resolved: the curve may be flat ({p}; {tested}); a difference"
            f" above {number(curve.largest)} BPB between slopes is excluded at {level}."
        )
    if curve.flat is None:
        return (
            f"no trend over the slope is resolved ({p}; {tested}), but the slopes differ by more"
            " than noise in a way that no smooth curve follows."
        )
    best = number(curve.best, decimals=2)
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
    ends = [[number(end, decimals=2) for end in both] for both in curve.best_set]
    return listed([" to ".join(both) for both in ends])
