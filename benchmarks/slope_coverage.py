"""Coverage of the confidence set of the best slope, on simulated grids of known curves.

Simulated grids of ten slopes and ASQU, with a known curve and normal noise, go through the curve of
``analysis.models.curve_fit`` and its set for the minimum, and through the
parametric bootstrap of the minimum: draw curves around the fit, and take the middle of their
minima. The table is that of docs/statistics.md; a smaller run is asserted in tests/analysis.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from analysis.models.curve_fit import (
    Cells,
    CurveFit,
    critical_values,
    fit_curve,
    may_be_minimum,
)
from analysis.models.least_squares import Floats
from benchmarks.measured import keep

SLOPES = np.round(np.arange(10) * 0.1, 1)
PLACES = np.linspace(0.0, 0.9, 181)
LEVEL = 0.95
KEYS = {f"s{slope:g}": float(slope) for slope in SLOPES}


@dataclass(frozen=True, slots=True)
class Truth:
    """A curve, and where it is lowest; a flat one is lowest anywhere, such as at ``best``."""

    name: str
    curve: Callable[[Floats], Floats]
    best: float


TRUTHS = (
    Truth("flat", lambda s: 0.0 * s, 0.5),
    Truth("quadratic", lambda s: (s - 0.35) ** 2, 0.35),
    Truth("quadratic", lambda s: (s - 0.5) ** 2, 0.5),
    Truth("quadratic", lambda s: (s - 0.9) ** 2, 0.9),
    Truth("quartic", lambda s: (s**2 - 0.3025) ** 2, 0.55),
    Truth("kink", lambda s: np.abs(s - 0.5), 0.5),
)


@dataclass(frozen=True, slots=True)
class Case:
    """``ratio``: the range of the curve over its tested slopes, in standard deviations of noise."""

    truth: Truth
    num_seeds: int
    ratio: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of ``runs`` grids: how many sets held the truth, and their width as a share of the slopes.

    ``called_flat``: no effect was resolved. ``raised``: the cubic did not fit.
    """

    curve: str
    best: float
    seeds: int
    range_over_noise: float
    runs: int
    covered: float
    width: float
    bootstrap_covered: float
    bootstrap_width: float
    called_flat: float
    raised: float


def cases() -> list[Case]:
    return [
        Case(truth, num_seeds, ratio)
        for num_seeds in (3, 5, 10)
        for truth in TRUTHS
        for ratio in ((0.0,) if truth.name == "flat" else (1.0, 3.0, 10.0))
    ]


def measure(case: Case, runs: int, *, draws: int = 2000, bootstrap: int = 400) -> Coverage:
    """Simulate ``runs`` grids of one case, alike every time."""
    generator = np.random.default_rng([case.num_seeds, round(case.ratio), len(case.truth.name)])
    truth = case.truth.curve(SLOPES)
    truth = truth * (case.ratio / np.ptp(truth)) if np.ptp(truth) else truth
    place = int(np.argmin(np.abs(PLACES - case.truth.best)))
    counts = np.zeros(6)
    for _ in range(runs):
        fit = fitted(generator, truth, case.num_seeds)
        fit_G, roots_GD = fit.at(PLACES)
        critical = critical_values(roots_GD, df=fit.noise.df, level=LEVEL, draws=draws)
        kept_G = may_be_minimum(fit_G, roots_GD, sd=fit.noise_sd, critical=critical)
        drawn_ND = fit.noise_sd * generator.standard_normal((bootstrap, roots_GD.shape[1]))
        low, high = middle(PLACES[(fit_G + drawn_ND @ roots_GD.T).argmin(axis=1)])
        counts += [
            kept_G[place],
            kept_G.mean(),
            low <= case.truth.best + 1e-9 and high >= case.truth.best - 1e-9,
            (high - low) / np.ptp(PLACES),
            fit.trend.p_value >= 1 - LEVEL,
            fit.degree > 3,
        ]
    facts = (case.truth.name, case.truth.best, case.num_seeds, case.ratio, runs)
    return Coverage(*facts, *(float(count) for count in counts / runs))


def fitted(generator: np.random.Generator, truth: Floats, num_seeds: int) -> CurveFit:
    """The fit of one simulated grid: seeds 20 sd of noise apart, noise of sd 1."""
    scores = generator.standard_normal((num_seeds, SLOPES.size + 1))
    scores += 20 * generator.standard_normal((num_seeds, 1))
    scores[:, :-1] += truth
    matrix = pd.DataFrame(scores, columns=[*KEYS, "asqu"])
    fit = fit_curve(Cells.of(matrix, KEYS))
    if isinstance(fit, str):
        raise ValueError(f"a complete grid was not fitted: {fit}.")
    return fit


def middle(minima_N: Floats) -> tuple[float, float]:
    """The middle ``LEVEL`` of the minima."""
    low, high = np.quantile(minima_N, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def table(rows: list[Coverage]) -> str:
    lines = [
        "| curve | best slope | seeds | range / noise | covered | width | bootstrap covered |"
        " width | called flat | degree raised |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row.curve, f"{row.best:g}", f"{row.seeds}", f"{row.range_over_noise:g}"]
        cells += [f"{100 * row.covered:.1f} %", f"{row.width:.2f}"]
        cells += [f"{100 * row.bootstrap_covered:.1f} %", f"{row.bootstrap_width:.2f}"]
        cells += [f"{100 * row.called_flat:.0f} %", f"{100 * row.raised:.0f} %"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--no-keep", action="store_true", help="print, and write no file")
    options = parser.parse_args()
    rows = [measure(case, options.runs) for case in cases()]
    print(table(rows))
    if not options.no_keep:
        keep("slope_coverage", {"level": LEVEL, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
