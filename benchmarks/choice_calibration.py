"""Calibration of the choice: does what it says with 80 % happen in 80 % of simulated grids?

    python -m benchmarks.choice_calibration

Grids of ten slopes and ASQU with curves drawn at random go through ``drawn_means``, from which
``analysis.conclusions.choice`` takes probabilities and regrets. Every number is in standard
deviations of the noise. "Lowest" is the regret of whoever takes the lowest mean instead.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
import pandas as pd

from analysis.models.curve_fit import Cells
from analysis.models.least_squares import Floats
from analysis.models.partial_pooling import drawn_means
from benchmarks.measured import keep
from benchmarks.slope_coverage import ALIKE, ASQU, KEYS, NOISES, SLOPES, Noise

Draw = Callable[[np.random.Generator], Floats]


def _ranged(shape: Callable[[Floats], Floats], size: float) -> Draw:
    """A curve of range ``size`` with its minimum anywhere on the axis."""

    def draw(generator: np.random.Generator) -> Floats:
        curve_T = shape(SLOPES - generator.uniform(0.0, 0.9))
        return curve_T * size / np.ptp(curve_T)

    return draw


def _spike(generator: np.random.Generator) -> Floats:
    return np.where(np.arange(SLOPES.size) == generator.integers(SLOPES.size), -1.5, 0.0)


CURVES: dict[str, Draw] = {
    "quadratic, range 1": _ranged(np.square, 1.0),
    "quadratic, range 3": _ranged(np.square, 3.0),
    "quadratic, range 6": _ranged(np.square, 6.0),
    "kink, range 3": _ranged(np.abs, 3.0),
    "one slope better by 1.5": _spike,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Of ``runs`` grids: mean regret of the choice, expected and true, and of the lowest mean.

    ``within_95``: the choice costs no more than its 95 % regret; ``within_80``: share of all
    activations whose regret is within their 80 % quantile. ``best_said``, ``best_was``: of all
    activations with a probability from 0.4 to 0.8 of being the best, its mean, and how many were.
    """

    curve: str
    noise: str
    seeds: int
    runs: int
    regret: float
    expected: float
    of_lowest: float
    within_95: float
    within_80: float
    best_said: float
    best_was: float


def measure(curve: str, num_seeds: int, noise: Noise, runs: int) -> Calibration:
    """Simulate ``runs`` grids, alike every time."""
    generator = np.random.default_rng([num_seeds, len(curve), len(noise.name)])
    sd_A = [noise.factors.get(column, 1.0) for column in range(ASQU + 1)]
    sums, said, was = np.zeros(5), [], []
    for _ in range(runs):
        truth_A = np.append(CURVES[curve](generator), generator.standard_normal())
        scores = generator.standard_normal((num_seeds, truth_A.size)) * sd_A + truth_A
        drawn_DA = drawn_means(Cells.of(pd.DataFrame(scores, columns=[*KEYS, "asqu"]), KEYS))
        assert drawn_DA is not None
        regret_DA = drawn_DA - drawn_DA.min(axis=1, keepdims=True)
        expected_A, true_A = regret_DA.mean(axis=0), truth_A - truth_A.min()
        chosen = expected_A.argmin()
        sums += [
            true_A[chosen],
            expected_A[chosen],
            true_A[scores.mean(axis=0).argmin()],
            true_A[chosen] <= np.quantile(regret_DA[:, chosen], 0.95),
            (true_A <= np.quantile(regret_DA, 0.8, axis=0)).mean(),
        ]
        probability_A = (regret_DA == 0).mean(axis=0)
        middling = (probability_A >= 0.4) & (probability_A < 0.8)
        said += probability_A[middling].tolist()
        was += (true_A[middling] == 0).tolist()
    regret, expected, of_lowest, within_95, within_80 = (sums / runs).tolist()
    return Calibration(
        curve=curve,
        noise=noise.name,
        seeds=num_seeds,
        runs=runs,
        regret=regret,
        expected=expected,
        of_lowest=of_lowest,
        within_95=within_95,
        within_80=within_80,
        best_said=float(np.mean(said)),
        best_was=float(np.mean(was)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    options = parser.parse_args()
    print("| curve | noise | seeds | regret, expected | of the lowest | 95 % | 80 % | best |")
    print(f"|{'---|' * 8}")
    rows = []
    for num_seeds, curve, noise in product((3, 8), CURVES, (ALIKE, NOISES[1])):
        row = measure(curve, num_seeds, noise, options.runs)
        rows.append(row)
        print(
            f"| {curve} | {row.noise} | {row.seeds} | {row.regret:.2f}, {row.expected:.2f} |"
            f" {row.of_lowest:.2f} | {100 * row.within_95:.1f} % | {100 * row.within_80:.1f} % |"
            f" said {row.best_said:.2f}, was {row.best_was:.2f} |",
            flush=True,
        )
    keep("choice_calibration", {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
