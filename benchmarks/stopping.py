"""Sweeps that stop when they know: how often they select rightly, and what they cost.

Thousands of simulated sweeps of known truth go through ``sweep.schedule.sequential_selection``,
seed by seed. A selection is right if no activation is better than the selected one by the zone; a
sweep that has not decided under the last seed is not right. Beside it stand grids of a fixed number
of seeds. Two are the smallest of which the lowest mean is right as often, and in 95 % of sweeps,
where all others are worse by exactly the zone: the hardest case, and a grid has to be chosen before
the case is known. One is the smallest that shows its own selection to be right in 95 % of sweeps of
the case at hand, by the multiple comparison with the best (Hsu 1984).
"""

import argparse
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.models.dunnett import quantile
from benchmarks.calibration import clopper_pearson
from benchmarks.calibration_scenarios import NOISY, ONE
from benchmarks.measured import keep
from benchmarks.simulated_sweeps import (
    FUNCTIONS,
    NUM_FUNCTIONS,
    REFERENCE,
    World,
    simulated_scores,
)
from sweep.schedule.sequential_selection import (
    Bound,
    Pairs,
    StoppingRule,
    compare,
    replay,
    triangle,
)

Reals = NDArray[np.float64]

CEILING = 60  # seeds that a sweep has at most
RANGE = 0.003  # of the quadratic, BPB
RULE = StoppingRule(zone=0.001)
BASE = World(num_seeds=CEILING)
WORLDS: dict[str, tuple[World, StoppingRule]] = {
    "equal noise": (BASE, RULE),
    "the same, three seeds before any drop": (BASE, replace(RULE, min_seeds=3)),
    "two activations 3 times as noisy": (replace(BASE, noise_factors=NOISY), RULE),
    "the reference 3 times as noisy": (replace(BASE, noise_factors={REFERENCE: 3.0}), RULE),
    "the best 3 times as noisy": (replace(BASE, noise_factors={ONE: 3.0}), RULE),
    "the best and two others 3 times as noisy": (
        replace(BASE, noise_factors={ONE: 3.0, **NOISY}),
        RULE,
    ),
    "four nodes of sd 0.0005 at random": (replace(BASE, node_sd=0.0005, num_nodes=4), RULE),
    "a node of sd 0.005 for every seed": (
        replace(BASE, node_sd=0.005, num_nodes=4, whole_blocks=True),
        RULE,
    ),
    "heavy tails (t, 3 df)": (replace(BASE, tail_df=3), RULE),
    "a tenth of the cells failed": (replace(BASE, missing=0.1), RULE),
    "equal noise, zone 0.0005": (BASE, StoppingRule(zone=0.0005)),
}


def _slippage(zone: float) -> Reals:
    return np.where(np.array(FUNCTIONS) == ONE, 0.0, zone)


def _equal_spacing(zone: float) -> Reals:
    return zone * np.argsort(np.argsort(np.array(FUNCTIONS) != ONE, kind="stable"))


def _quadratic(zone: float) -> Reals:
    slopes = np.array([float(key.rpartition("-s")[2] or 0) for key in FUNCTIONS[1:-1]])
    curve = RANGE * ((np.array([0.0, *slopes]) - 0.3) / 0.6) ** 2
    return np.array([*curve, RANGE / 2])  # ASQU has no slope


CONFIGURATIONS: Mapping[str, Callable[[float], Reals]] = {
    "slippage": _slippage,
    "equal spacing": _equal_spacing,
    "quadratic": _quadratic,
    "flat": lambda zone: np.zeros(NUM_FUNCTIONS),
}


@dataclass(frozen=True, slots=True)
class Row:
    """Of ``n`` sweeps. ``…_cells`` of the grids: None past the ceiling.

    ``sets``: the share that ended with a set. ``undecided``: the share that reached the ceiling.
    """

    world: str
    configuration: str
    n: int
    right: float
    low: float
    high: float
    sets: float
    undecided: float
    mean_cells: float
    cells_90: float
    most_cells: int
    grid_cells: int | None
    grid_95_cells: int | None
    showing_cells: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Of N sweeps: whether right, the number of activations selected, whether decided, cells."""

    right_N: NDArray[np.bool_]
    selected_N: NDArray[np.int64]
    decided_N: NDArray[np.bool_]
    cells_N: NDArray[np.int64]


def outcomes(scores_NSF: Reals, effect_F: Reals, rule: StoppingRule, bound: Bound) -> Outcomes:
    """Select in every sweep of ``scores_NSF``."""
    found = replay(scores_NSF, rule, bound=bound)
    in_play_NF = found.in_play_DA & found.used_DSA.any(axis=1)
    best_N = np.where(in_play_NF, found.behind_DA, np.inf).argmin(axis=1)
    right_N = _is_right(effect_F, best_N, rule.zone) & found.decided_D
    return Outcomes(
        right_N, in_play_NF.sum(axis=1), found.decided_D, found.num_seeds_DA.sum(axis=1)
    )


def rows_of(name: str, num_sweeps: int, seed: int) -> list[Row]:
    """One world, under every configuration."""
    world, rule = WORLDS[name]
    rows: list[Row] = []
    grid_seeds: int | None = None
    grid_95_seeds: int | None = None
    for configuration, effects in CONFIGURATIONS.items():
        effect_F = effects(rule.zone)
        scores_NSF = scores_of(world, effect_F, num_sweeps, [seed, zlib.crc32(name.encode())])
        found = outcomes(scores_NSF, effect_F, rule, triangle)
        count = int(found.right_N.sum())
        if configuration == "slippage":
            grid_seeds = seeds_of_grid(scores_NSF, effect_F, rule.zone, count / num_sweeps)
            grid_95_seeds = seeds_of_grid(scores_NSF, effect_F, rule.zone, rule.confidence)
        showing = seeds_that_show(scores_NSF, effect_F, rule)
        rows.append(
            Row(
                name,
                configuration,
                num_sweeps,
                count / num_sweeps,
                *clopper_pearson(count, num_sweeps),
                sets=float((found.selected_N[found.decided_N] > 1).mean()),
                undecided=float((~found.decided_N).mean()),
                mean_cells=float(found.cells_N.mean()),
                cells_90=float(np.quantile(found.cells_N, 0.9)),
                most_cells=int(found.cells_N.max()),
                grid_cells=grid_seeds and grid_seeds * NUM_FUNCTIONS,
                grid_95_cells=grid_95_seeds and grid_95_seeds * NUM_FUNCTIONS,
                showing_cells=showing and showing * NUM_FUNCTIONS,
            )
        )
    return rows


def scores_of(world: World, effect_F: Reals, num_sweeps: int, seed: list[int]) -> Reals:
    effects = dict(zip(FUNCTIONS, map(float, effect_F), strict=True))
    return simulated_scores(
        replace(world, effects=effects), num_sweeps, np.random.default_rng(seed)
    )


def seeds_of_grid(scores_NSF: Reals, effect_F: Reals, zone: float, share: float) -> int | None:
    """The fewest seeds under which the lowest mean is right in at least that share of sweeps."""
    for num_seeds in range(1, scores_NSF.shape[1] + 1):
        best_N = np.nan_to_num(_means(scores_NSF[:, :num_seeds]), nan=np.inf).argmin(axis=1)
        if _is_right(effect_F, best_N, zone).mean() >= share:
            return num_seeds
    return None


def seeds_that_show(scores_NSF: Reals, effect_F: Reals, rule: StoppingRule) -> int | None:
    """The fewest seeds under which the lowest mean is right, and shown to be, often enough.

    Shown: the upper end of the interval for how much it is worse than the best is at most the zone.
    """
    correlation = 0.5 + np.eye(NUM_FUNCTIONS - 1) / 2
    everything = np.arange(len(scores_NSF))
    for num_seeds in range(2, scores_NSF.shape[1] + 1):
        so_far = scores_NSF[:, :num_seeds]
        pairs = compare(so_far, ~np.isnan(so_far))
        df = (num_seeds - 1) * (NUM_FUNCTIONS - 1)
        error_NFF = np.sqrt(pairs.pooled_D[:, None, None] / np.maximum(pairs.num_DAA, 1))
        upper_NFF = pairs.difference_DAA + error_NFF * quantile(
            correlation, df, rule.confidence, sided="one"
        )
        upper_NFF[:, range(NUM_FUNCTIONS), range(NUM_FUNCTIONS)] = -np.inf
        upper_NF = upper_NFF.max(axis=2)
        best_N = upper_NF.argmin(axis=1)
        shown_N = upper_NF[everything, best_N] <= rule.zone
        if (shown_N & _is_right(effect_F, best_N, rule.zone)).mean() >= rule.confidence:
            return num_seeds
    return None


def _is_right(effect_F: Reals, selected_N: NDArray[np.int64], zone: float) -> NDArray[np.bool_]:
    return effect_F[selected_N] < effect_F.min() + zone * (1 - 1e-9)


def _means(scores_NSF: Reals) -> Reals:
    known = ~np.isnan(scores_NSF)
    return np.where(known, scores_NSF, 0.0).sum(axis=1) / np.where(
        known.any(1), known.sum(1), np.nan
    )


def kim_nelson_beta(pairs: Pairs, beta_D: Reals, zone: float) -> Reals:
    return triangle(pairs, 2 * beta_D, zone)


def noise_alike(pairs: Pairs, beta_D: Reals, zone: float) -> Reals:
    """The triangle, with the variance that all have together."""
    shape = pairs.num_DAA.shape
    variance_DAA = np.broadcast_to(pairs.pooled_D[:, None, None], shape)
    df_DAA = np.broadcast_to(pairs.pooled_df_D[:, None, None], shape)
    return triangle(replace(pairs, variance_DAA=variance_DAA, df_DAA=df_DAA), 2 * beta_D, zone)


def alpha_spending(pairs: Pairs, beta_D: Reals, zone: float) -> Reals:
    """A t test of "better by the zone" after every seed, that of the n-th at β / n(n − 1)."""
    n_DAA = pairs.num_DAA
    level_DAA = beta_D[:, None, None] / np.maximum(n_DAA * (n_DAA - 1), 2)
    t_DAA = -special.stdtrit(pairs.df_DAA, level_DAA)
    return t_DAA * np.sqrt(pairs.variance_DAA / n_DAA) - zone


def always_valid(pairs: Pairs, beta_D: Reals, zone: float) -> Reals:
    """A mixture of t likelihood ratios (Robbins 1970, Lai 1976), of effects of the zone's size."""
    n_DAA, f_DAA = pairs.num_DAA, pairs.df_DAA
    prior_DAA = pairs.variance_DAA / zone**2  # as many seeds is the prior worth
    part_DAA = prior_DAA / (prior_DAA + n_DAA)
    ratio_DAA = (part_DAA**-0.5 / (2 * beta_D[:, None, None])) ** (2 / (f_DAA + 1))
    left_DAA = 1 - ratio_DAA * part_DAA
    square_DAA = np.where(left_DAA > 0, f_DAA * (ratio_DAA - 1) / left_DAA, np.inf)
    return np.sqrt(square_DAA * pairs.variance_DAA / n_DAA) - zone


BOUNDS: Mapping[str, Bound] = {
    "the rule": triangle,
    "with Kim & Nelson's β": kim_nelson_beta,
    "and noise taken as alike": noise_alike,
    "alpha spending": alpha_spending,
    "always valid": always_valid,
}
COMPARED = (
    ("equal noise", "slippage"),
    ("equal noise", "flat"),
    ("the best 3 times as noisy", "slippage"),
    ("equal noise, zone 0.0005", "slippage"),
)


def compared(num_sweeps: int, seed: int) -> list[dict[str, object]]:
    """What else the bound might be, in four cases."""
    rows: list[dict[str, object]] = []
    for name, configuration in COMPARED:
        world, rule = WORLDS[name]
        effect_F = CONFIGURATIONS[configuration](rule.zone)
        scores_NSF = scores_of(world, effect_F, num_sweeps, [seed, zlib.crc32(name.encode())])
        for kind, bound in BOUNDS.items():
            found = outcomes(scores_NSF, effect_F, rule, bound)
            right, cells = float(found.right_N.mean()), float(found.cells_N.mean())
            undecided = float((~found.decided_N).mean())
            facts = {"right": right, "mean_cells": cells, "undecided": undecided}
            rows.append({"bound": kind, "world": name, "configuration": configuration, **facts})
            print(
                f"| {kind} | {name} | {configuration} | {100 * right:.1f} % | {cells:.0f} "
                f"| {100 * undecided:.1f} % |",
                flush=True,
            )
    return rows


def uncovered(scores_NSF: Reals, used_NSF: NDArray[np.bool_], effect_F: Reals) -> float:
    """How often Dunnett's intervals of 95 % miss some difference from the reference.

    Least squares on the scores that are used, as for seeds whose number was fixed beforehand;
    correlations are those of a complete design.
    """
    used = used_NSF.astype(float)
    num_NS1 = used.sum(axis=2, keepdims=True)
    centred_NSF = _within_seeds(scores_NSF, used_NSF)
    per_seed = used / np.sqrt(np.maximum(num_NS1, 1))
    normal_NFF = used.sum(1)[:, :, None] * np.eye(NUM_FUNCTIONS)
    normal_NFF = normal_NFF - per_seed.transpose(0, 2, 1) @ per_seed
    inverse_NFF = np.linalg.pinv(normal_NFF, hermitian=True)
    fit_NF = (inverse_NFF @ centred_NSF.sum(1)[:, :, None])[:, :, 0]
    fitted_NSF = np.broadcast_to(fit_NF[:, None, :], centred_NSF.shape)
    rest_NSF = centred_NSF - _within_seeds(fitted_NSF, used_NSF)
    rest_N = (rest_NSF**2).sum(axis=(1, 2))
    df_N = used.sum(axis=(1, 2)) - (num_NS1 > 0).sum(axis=(1, 2)) - (NUM_FUNCTIONS - 1)
    reference = FUNCTIONS.index(REFERENCE)
    own_NF = np.diagonal(inverse_NFF, axis1=1, axis2=2)
    weight_NF = own_NF + own_NF[:, [reference]] - 2 * inverse_NFF[:, :, reference]
    missed_NF = np.abs(fit_NF - fit_NF[:, [reference]] - effect_F + effect_F[reference])
    correlation = 0.5 + np.eye(NUM_FUNCTIONS - 1) / 2
    quantile_N = np.array([quantile(correlation, int(df), 0.95) for df in df_N])
    half_width_NF = quantile_N[:, None] * np.sqrt(weight_NF * (rest_N / df_N)[:, None])
    return float((missed_NF > half_width_NF + 1e-12).any(axis=1).mean())


def _within_seeds(x_NSF: Reals, used_NSF: NDArray[np.bool_]) -> Reals:
    """Less the mean of what is used under the seed; 0 where nothing is."""
    num_NS1 = np.maximum(used_NSF.sum(axis=2, keepdims=True), 1)
    means_NS1 = np.where(used_NSF, x_NSF, 0.0).sum(axis=2, keepdims=True) / num_NS1
    return np.where(used_NSF, x_NSF - means_NS1, 0.0)


def after_stopping(num_sweeps: int, seed: int) -> list[dict[str, object]]:
    """What intervals that are made for a fixed number of seeds are worth in a sweep that stops."""
    world, rule = WORLDS["equal noise"]
    rows: list[dict[str, object]] = []
    for configuration, effects in CONFIGURATIONS.items():
        effect_F = effects(rule.zone)
        scores_NSF = scores_of(world, effect_F, num_sweeps, [seed, 1])
        used_NSF = replay(scores_NSF, rule).used_DSA
        fixed_NSF = np.broadcast_to(np.arange(CEILING)[:, None] < 5, used_NSF.shape)
        stopped, fixed = (uncovered(scores_NSF, u, effect_F) for u in (used_NSF, fixed_NSF))
        rows.append({"configuration": configuration, "stopped": stopped, "five_seeds": fixed})
        print(f"| {configuration} | {100 * stopped:.1f} % | {100 * fixed:.1f} % |", flush=True)
    return rows


def line(row: Row) -> str:
    """A row of the table."""
    of_grid, of_95, of_showing = (
        f"{cells} ({row.mean_cells / cells:.2f})" if cells else f"over {CEILING * NUM_FUNCTIONS}"
        for cells in (row.grid_cells, row.grid_95_cells, row.showing_cells)
    )
    return (
        f"| {row.world} | {row.configuration} | {100 * row.right:.1f} "
        f"({100 * row.low:.1f} to {100 * row.high:.1f}) | {100 * row.sets:.0f} "
        f"| {row.mean_cells:.0f}, {row.cells_90:.0f}, {row.most_cells} | {of_grid} | {of_95} "
        f"| {of_showing} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stopping", description=__doc__)
    parser.add_argument("--sweeps", type=int, default=2000, help="of each case (default: 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="worlds whose name begins so; nothing is kept")
    options = parser.parse_args()
    began, rows = time.monotonic(), []
    print("| noise | effects | right, % | sets, % | mean, 90 %, most | as often | 95 % | shows |")
    print("|---|---|---|---|---|---|---|---|")
    for name in WORLDS:
        if name.startswith(options.only):
            rows += rows_of(name, options.sweeps, options.seed)
            print("\n".join(line(row) for row in rows if row.world == name), flush=True)
    print("\n| bound | noise | effects | right | cells | undecided |\n|---|---|---|---|---|---|")
    others = compared(options.sweeps, options.seed) if not options.only else []
    print("\n| effects | a difference missed: after stopping | 5 seeds |\n|---|---|---|")
    missed = after_stopping(options.sweeps, options.seed) if not options.only else []
    took_s = time.monotonic() - began
    print(f"{took_s:.0f} s")
    if not options.only:
        facts = {"seed": options.seed, "took_s": took_s, "ceiling_seeds": CEILING}
        keep(
            "stopping",
            {**facts, "rows": [asdict(row) for row in rows], "bounds": others, "intervals": missed},
        )


if __name__ == "__main__":
    main()
