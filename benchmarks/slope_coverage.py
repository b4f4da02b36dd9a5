"""Error rates and power over the slope on simulated grids: false effects, coverage of the best set.

    python -m benchmarks.slope_coverage

Simulated grids of ten slopes and ASQU, with a known curve and known noise, go through the curve of
``analysis.models.curve_fit``, the contrasts of ``analysis.models.curve_contrasts`` and the
comparison of means, as ``analysis.conclusions.contrasts`` joins them. The tables are those of
docs/statistics.md; a smaller run is asserted in tests/analysis.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context

import numpy as np
import pandas as pd

from analysis.conclusions.slope_curve import CONTRAST_LEVEL
from analysis.models.block_model import Blocked, Codes, fit_blocks
from analysis.models.curve_contrasts import CurveContrasts, curve_contrasts
from analysis.models.curve_fit import Cells, CurveFit, fit_curve
from analysis.models.dunnett import quantile
from analysis.models.least_squares import Floats
from analysis.models.unequal_variance import unequal_variance_interval
from benchmarks.measured import keep

SLOPES = np.round(np.arange(10) * 0.1, 1)
PLACES = np.linspace(0.0, 0.9, 37)
LEVEL = 0.95
REFERENCE = 0.5
KEYS = {f"s{slope:g}": float(slope) for slope in SLOPES}
ASQU = 10  # the column after the slopes


@dataclass(frozen=True, slots=True)
class Noise:
    """``factors``: times the sd of the others, by column. ``tail_df``: Student's t, of sd 1.

    ``node_sd``: of four nodes that share the cells at random. ``missing``: share of failed cells.
    """

    name: str
    factors: Mapping[int, float] = field(default_factory=dict)
    tail_df: int | None = None
    node_sd: float = 0.0
    missing: float = 0.0


ALIKE = Noise("alike")
NOISES = (
    ALIKE,
    Noise("slope 0.9 three times", {9: 3.0}),
    Noise("slope 0 three times", {0: 3.0}),
    Noise("both ends three times", {0: 3.0, 9: 3.0}),
    Noise("slope 0.9 ten times", {9: 10.0}),
    Noise("the reference three times", {5: 3.0}),
    Noise("slope 0.9 and ASQU three times", {9: 3.0, ASQU: 3.0}),
    Noise("half of the slopes twice", dict.fromkeys(range(5), 2.0)),
    Noise("heavy tails (t, 3 df)", tail_df=3),
    Noise("four nodes at random, as large as the noise", node_sd=1.0),
    Noise("a tenth of the cells failed", missing=0.1),
)


@dataclass(frozen=True, slots=True)
class Truth:
    """A curve, and where it is lowest; a flat one is lowest anywhere, such as at ``best``."""

    name: str
    curve: Callable[[Floats], Floats]
    best: float


FLAT = tuple(Truth("flat", lambda s: 0.0 * s, best) for best in (0.0, 0.5, 0.9))
TRUTHS = (
    Truth("quadratic", lambda s: (s - 0.25) ** 2, 0.25),
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
    ratio: float = 0.0
    noise: Noise = ALIKE


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of ``runs`` grids: how many sets held the truth, and their width as a share of the slopes.

    ``resolved``: two slopes were. ``wrong``: something is resolved from the reference that does not
    differ, or differs the other way; ``better``: something better is resolved from it;
    ``better_by_means``: by the means alone, with all of the error. ``raised``: the degree;
    ``misfit``: no curve fitted.
    """

    curve: str
    best: float
    noise: str
    seeds: int
    range_over_noise: float
    runs: int
    covered: float
    width: float
    resolved: float
    wrong: float
    better: float
    better_by_means: float
    raised: float
    misfit: float


def cases() -> list[Case]:
    flat = [Case(FLAT[0], seeds, noise=noise) for seeds in (3, 5, 10) for noise in NOISES]
    flat += [Case(truth, 3, noise=noise) for noise in NOISES for truth in FLAT[1:]]
    curved = [
        Case(truth, seeds, ratio, noise)
        for seeds in (3, 10)
        for truth in TRUTHS
        for ratio in (3.0, 10.0)
        for noise in (NOISES[:2] if truth.best == 0.25 else NOISES[:1])
    ]
    return flat + curved


def measure(case: Case, runs: int) -> Coverage:
    """Simulate ``runs`` grids of one case, alike every time."""
    generator = np.random.default_rng([case.num_seeds, round(case.ratio), len(case.noise.name)])
    truth_T = case.truth.curve(SLOPES)
    truth_T = truth_T * (case.ratio / np.ptp(truth_T)) if np.ptp(truth_T) else truth_T
    runs = runs // 5 if case.noise.missing else runs  # each has a design of its own
    counts = np.zeros(8)
    true_A = np.append(truth_T - truth_T[SLOPES == REFERENCE], 0.0 - truth_T[SLOPES == REFERENCE])
    for _ in range(runs):
        fit = fitted(generator, truth_T, case)
        smooth = fit.degree is not None
        places_G = PLACES if smooth else fit.cells.tested
        found = curve_contrasts(
            fit, places_G, level=LEVEL, reference=REFERENCE, reference_level=CONTRAST_LEVEL
        )
        means = [resolved_means(fit.cells, level) for level in (CONTRAST_LEVEL, LEVEL)]
        along = np.append(resolved_along(found), 0)
        either = [*zip(means[0], true_A, strict=True), *zip(along, true_A, strict=True)]
        counts += [
            found.kept_G[np.argmin(np.abs(places_G - case.truth.best))],
            found.kept_G.mean(),
            found.pairs_p <= 1 - LEVEL + 1e-9,
            any(sign * true <= 0 for sign, true in either if sign),
            any(sign < 0 and true < 0 for sign, true in either),
            any(sign < 0 and true < 0 for sign, true in zip(means[1], true_A, strict=True)),
            smooth and fit.degree > 3,
            not smooth,
        ]
    facts = (case.truth.name, case.truth.best, case.noise.name, case.num_seeds, case.ratio, runs)
    return Coverage(*facts, *(float(count) for count in counts / runs))


def resolved_along(found: CurveContrasts) -> Codes:
    """Of each slope: the sign of its difference from the reference if the curve resolves it."""
    contrasts = found.from_reference
    if contrasts is None:
        raise ValueError("the reference is no tested slope.")
    resolved_T = contrasts.p_value_T <= 1 - CONTRAST_LEVEL + 1e-9
    return np.where(resolved_T, np.sign(contrasts.difference_T), 0).astype(np.int64)


def resolved_means(cells: Cells, level: float) -> Codes:
    """Of each activation, the same by its mean alone, as ``compare`` does it."""
    order = np.argsort(cells.slope_A != REFERENCE, kind="stable")  # the reference first
    place = np.argsort(order)
    rows = Blocked(
        tuple(map(str, range(order.size))),
        place[cells.activation_N],
        cells.block_N,
        cells.block_N,
        cells.values_N,
    )
    fit = fit_blocks(rows)
    own, sign_A = unequal_variance_interval(rows, level=level), np.zeros(order.size, np.int64)
    if own is None:  # the reference has a single score
        return sign_A
    pooled_K = quantile(fit.correlations, fit.noise_df, level) * fit.errors
    half_K = np.maximum(pooled_K, own.half_width_K)
    sign_A[order[fit.activation_K]] = np.where(
        np.abs(fit.estimate_K) > half_K, np.sign(fit.estimate_K), 0
    )
    return sign_A


def fitted(generator: np.random.Generator, truth_T: Floats, case: Case) -> CurveFit:
    """The fit of one simulated grid: seeds 20 sd of noise apart, noise of sd 1."""
    noise, shape = case.noise, (case.num_seeds, SLOPES.size + 1)
    if noise.tail_df is None:
        scores = generator.standard_normal(shape)
    else:
        scale = np.sqrt((noise.tail_df - 2) / noise.tail_df)
        scores = scale * generator.standard_t(noise.tail_df, shape)
    scores *= [noise.factors.get(column, 1.0) for column in range(shape[1])]
    scores += generator.normal(0.0, noise.node_sd, 4)[generator.integers(4, size=shape)]
    scores += 20 * generator.standard_normal((case.num_seeds, 1))
    scores[:, :-1] += truth_T
    scores[generator.random(shape) < noise.missing] = np.nan
    matrix = pd.DataFrame(scores, columns=[*KEYS, "asqu"])
    # A column that lost every seed, or a grid that came apart, has no answer: draw another.
    if matrix.isna().all().any():
        return fitted(generator, truth_T, case)
    fit = fit_curve(Cells.of(matrix, KEYS))
    return fitted(generator, truth_T, case) if isinstance(fit, str) else fit


def table(rows: list[Coverage]) -> str:
    lines = [
        "| curve | best slope | noise | seeds | range / noise | covered | width | two slopes"
        " resolved | falsely from the reference | better found | by means alone | degree raised |"
        " no curve fits |",
        f"|{'---|' * 13}",
    ]
    for row in rows:
        cells = [row.curve, f"{row.best:g}", row.noise, f"{row.seeds}", f"{row.range_over_noise:g}"]
        cells += [f"{100 * row.covered:.1f} %", f"{row.width:.2f}"]
        shares = (row.resolved, row.wrong, row.better, row.better_by_means, row.raised, row.misfit)
        cells += [f"{100 * share:.1f} %" for share in shares]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--no-keep", action="store_true", help="print, and write no file")
    options = parser.parse_args()
    numbers = range(len(cases()))
    with get_context("spawn").Pool(options.jobs) as pool:
        rows = list(pool.imap(partial(_numbered, runs=options.runs), numbers))
    print(table(rows))
    if not options.no_keep:
        keep("slope_coverage", {"level": LEVEL, "rows": [asdict(row) for row in rows]})


def _numbered(number: int, runs: int) -> Coverage:
    """Cases hold functions, which do not go to another process."""
    return measure(cases()[number], runs)


if __name__ == "__main__":
    main()
