"""Error rates of the slope curve on simulated grids: false effects, and coverage of the best set.

Simulated grids of ten slopes and ASQU, with a known curve and known noise, go through the curve of
``analysis.models.curve_fit`` and the contrasts of ``analysis.models.curve_contrasts``. The tables
are those of docs/statistics.md; a smaller run is asserted in tests/analysis.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context

import numpy as np
import pandas as pd

from analysis.models.curve_contrasts import curve_contrasts
from analysis.models.curve_fit import Cells, CurveFit, fit_curve
from analysis.models.least_squares import Floats
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
    ratio: float = 0.0
    noise: Noise = ALIKE


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of ``runs`` grids: how many sets held the truth, and their width as a share of the slopes.

    ``resolved``: two slopes were; ``from_reference``: some slope was, from the reference along the
    curve; ``wrong``: one whose interval does not hold its true difference. ``raised``: the degree;
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
    from_reference: float
    wrong: float
    raised: float
    misfit: float


def cases() -> list[Case]:
    flat = [Case(FLAT[0], seeds, noise=noise) for seeds in (3, 5, 10) for noise in NOISES]
    flat += [Case(truth, seeds, noise=n) for seeds in (3, 10) for n in NOISES for truth in FLAT[1:]]
    curved = [
        Case(truth, seeds, ratio, noise)
        for seeds in (3, 10)
        for truth in TRUTHS
        for ratio in (3.0, 10.0)
        for noise in NOISES[:2]
    ]
    return flat + curved


def measure(case: Case, runs: int) -> Coverage:
    """Simulate ``runs`` grids of one case, alike every time."""
    generator = np.random.default_rng([case.num_seeds, round(case.ratio), len(case.noise.name)])
    truth_T = case.truth.curve(SLOPES)
    truth_T = truth_T * (case.ratio / np.ptp(truth_T)) if np.ptp(truth_T) else truth_T
    runs = runs // 5 if case.noise.missing else runs  # each has a design of its own
    counts = np.zeros(7)
    for _ in range(runs):
        fit = fitted(generator, truth_T, case)
        smooth = fit.degree is not None
        places_G = PLACES if smooth else fit.cells.tested
        found = curve_contrasts(fit, places_G, level=LEVEL, reference=REFERENCE)
        contrasts = found.from_reference
        assert contrasts is not None
        error_T = contrasts.difference_T - (truth_T - truth_T[SLOPES == REFERENCE])
        counts += [
            found.kept_G[np.argmin(np.abs(places_G - case.truth.best))],
            found.kept_G.mean(),
            found.pairs_p <= 1 - LEVEL + 1e-9,
            (contrasts.p_value_T <= 1 - LEVEL + 1e-9).any(),
            (np.abs(error_T) > contrasts.half_width_T + 1e-9).any(),
            smooth and fit.degree > 3,
            not smooth,
        ]
    facts = (case.truth.name, case.truth.best, case.noise.name, case.num_seeds, case.ratio, runs)
    return Coverage(*facts, *(float(count) for count in counts / runs))


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
    # A slope that lost every seed, or a grid that came apart, has no answer: draw another.
    if matrix[list(KEYS)].isna().all().any():
        return fitted(generator, truth_T, case)
    fit = fit_curve(Cells.of(matrix, KEYS))
    return fitted(generator, truth_T, case) if isinstance(fit, str) else fit


def table(rows: list[Coverage]) -> str:
    lines = [
        "| curve | best slope | noise | seeds | range / noise | covered | width | two slopes"
        " resolved | from the reference | interval misses | degree raised | no curve fits |",
        f"|{'---|' * 12}",
    ]
    for row in rows:
        cells = [row.curve, f"{row.best:g}", row.noise, f"{row.seeds}", f"{row.range_over_noise:g}"]
        cells += [f"{100 * row.covered:.1f} %", f"{row.width:.2f}"]
        shares = (row.resolved, row.from_reference, row.wrong, row.raised, row.misfit)
        cells += [f"{100 * share:.1f} %" for share in shares]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
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
