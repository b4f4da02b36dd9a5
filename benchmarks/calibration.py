"""Are the claims of the analysis true where the truth is known? False positives, coverage, power.

Thousands of simulated sweeps (``benchmarks.simulated_sweeps``) go through the functions that judge
real ones. Every rate is over independent sweeps, with its binomial 95 % interval (Clopper & Pearson
1934) and with what it should be. What is not as claimed is printed as such. The same seed gives the
same numbers, whatever the number of processes.
"""

import argparse
import math
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context

import numpy as np
import pandas as pd
from scipy import stats

from analysis.blocks import Design
from analysis.contrasts import contrasts
from analysis.designs import block, pooled, power_of
from analysis.pairs import paired_stats
from analysis.seed_stats import seed_stats
from analysis.stages import PRIMARY
from analysis.two_stage_power import TwoStages, probability_kept, two_stage_power
from analysis.two_stages import leaders
from benchmarks.measured import keep
from benchmarks.simulated_sweeps import NOISE_SD, NUM_FUNCTIONS, REFERENCE, World, simulated

BATCH = 50  # sweeps a frame
POINTS = 0.03  # how far simulated power may be from predicted
ONE = "leaky_relu2-s0.3"  # the activation whose own interval is looked at, and that an effect has
NOISY = {"leaky_relu2-s0.9": 3.0, "asqu": 3.0}


@dataclass(frozen=True, slots=True)
class Study:
    """One world, and what is predicted of it. ``second``: a screening, then fresh seeds."""

    name: str
    world: World
    second: TwoStages | None = None
    design: Design = Design()
    alone: bool = False  # the intervals of one activation alone are looked at too
    share: float = 1.0  # of the sweeps that are asked for, where a sweep takes long

    @property
    def effect(self) -> float:
        return self.world.effect(ONE)


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something happened in ``n`` independent sweeps, and how often it should."""

    study: str
    what: str
    count: int
    n: int
    low: float
    high: float
    expected: float
    as_claimed: bool

    @property
    def rate(self) -> float:
        return self.count / self.n


def _with_effect(effect: float, num_seeds: int) -> World:
    return World(num_seeds=num_seeds, effects={ONE: effect})


def _two(screening_seeds: int, kept: int, seeds: int) -> TwoStages:
    return TwoStages(
        num_activations=NUM_FUNCTIONS, screening_seeds=screening_seeds, keep=kept, seeds=seeds
    )


STUDIES = (
    Study("null", World(), alone=True),
    Study("null, 2 seeds", World(num_seeds=2)),
    Study("null, 9 seeds", World(num_seeds=9)),
    Study("null, two activations 3 times as noisy", World(noise_factors=NOISY), alone=True),
    Study("null, the same with 9 seeds", World(noise_factors=NOISY, num_seeds=9)),
    Study("null, the reference 3 times as noisy", World(noise_factors={REFERENCE: 3.0})),
    Study("null, four nodes of sd 0.0005 at random", World(node_sd=0.0005, num_nodes=4)),
    Study(
        "null, a node of sd 0.005 for every seed, nodes as blocks",
        World(node_sd=0.005, num_nodes=4, whole_blocks=True),
        design=Design("node"),
    ),
    Study("null, a tenth of the cells failed", World(missing=0.1), share=0.2),
    Study("null, heavy tails (t, 3 df)", World(tail_df=3)),
    Study("null, two stages", World(), second=_two(3, 3, 5)),
    Study("effect 0.0010, 3 seeds", _with_effect(-0.0010, 3)),
    Study("effect 0.0023, 3 seeds", _with_effect(-0.0023, 3)),
    Study("effect 0.0010, 7 seeds", _with_effect(-0.0010, 7)),
    Study("effect 0.0005, 9 seeds", _with_effect(-0.0005, 9)),
    Study("effect 0.0010, two stages", _with_effect(-0.0010, 3), second=_two(3, 3, 8)),
)


def tally(study: Study, num_sweeps: int, rng: np.random.Generator) -> Counter[str]:
    """How often what happened in so many sweeps of ``study``; ``n …`` counts where it could."""
    frame = simulated(study.world, num_sweeps, rng)
    counts: Counter[str] = Counter()
    if study.second is None:
        counts += _judged(study.world, contrasts(frame, PRIMARY, REFERENCE, design=study.design))
    else:
        counts += _second_stages(study, frame, rng)
    if study.alone:
        counts += _alone(frame)
    return counts


def _judged(world: World, compared: pd.DataFrame) -> Counter[str]:
    """A sweep a setting: is a null resolved, are all truths covered, is the effect resolved?"""
    truth = np.array([world.effect(key) for key in compared["key"]])
    resolved = compared["resolved"].fillna(False).to_numpy(dtype=bool)
    by_pooled = compared["difference"].abs() > compared["pooled_half_width"]
    missed = (compared["difference"] - truth).abs() > compared["half_width"]
    is_effect = (compared["key"] == ONE).to_numpy() & (truth != 0)
    of_sweep = pd.DataFrame(
        {
            "false": resolved & (truth == 0),
            "false by pooled": by_pooled.to_numpy(dtype=bool) & (truth == 0),
            "missed": missed.to_numpy(dtype=bool),
            "found": resolved & is_effect,
            "found by pooled": by_pooled.to_numpy(dtype=bool) & is_effect,
        }
    ).groupby(compared["setting"].to_numpy())
    any_of = of_sweep.any()
    return Counter(
        {
            "n": len(any_of),
            "all covered": int((~any_of["missed"]).sum()),
            **{event: int(any_of[event].sum()) for event in any_of.columns.drop("missed")},
        }
    )


def _second_stages(study: Study, frame: pd.DataFrame, rng: np.random.Generator) -> Counter[str]:
    """Each sweep of ``frame`` is a screening; its leaders run again under fresh seeds."""
    assert study.second is not None
    counts: Counter[str] = Counter()
    for _, screening in frame.groupby("setting", sort=False):
        chosen = leaders(screening, REFERENCE, keep=study.second.keep)
        world = World(
            num_seeds=study.second.seeds,
            effects=study.world.effects,
            keys=(REFERENCE, *chosen),
        )
        counts += _judged(world, contrasts(simulated(world, 1, rng), PRIMARY, REFERENCE))
        counts["kept"] += ONE in chosen
    return counts


def _alone(frame: pd.DataFrame) -> Counter[str]:
    """The t intervals of one activation, of its mean and of its difference; 2.3 is the truth."""
    means = seed_stats(frame, [PRIMARY])
    means = means[means["key"] == ONE]
    pairs = paired_stats(frame, PRIMARY, REFERENCE)
    pairs = pairs[pairs["key"] == ONE]
    return Counter(
        {
            "mean covered": int(((means["mean"] - 2.3).abs() <= means["half_width"]).sum()),
            "difference covered": int((pairs["mean"].abs() <= pairs["half_width"]).sum()),
        }
    )


def rates(study: Study, counts: Counter[str]) -> list[Rate]:
    """What is claimed of ``study``, beside what ``counts`` says."""
    n, found = counts["n"], []

    def add(what: str, event: str, expected: float, within: float | None = None) -> None:
        low, high = clopper_pearson(counts[event], n)
        near = low <= expected <= high
        if within is not None:
            near = abs(counts[event] / n - expected) <= within
        found.append(Rate(study.name, what, counts[event], n, low, high, expected, near))

    if study.effect == 0:
        add("family-wise false positives", "false", 0.05)
        add("the same, pooled interval alone", "false by pooled", 0.05)
    else:
        if study.second is None:
            design = block(study.world.num_seeds, num_activations=NUM_FUNCTIONS)
            predicted = power_of(-study.effect, design, NOISE_SD)
            alone = pooled(study.world.num_seeds, num_activations=NUM_FUNCTIONS)
            by_pooled = power_of(-study.effect, alone, NOISE_SD)
            add("power of the pooled interval alone", "found by pooled", by_pooled, POINTS)
            add("all differences covered at once", "all covered", 0.95)
        else:
            predicted = two_stage_power(-study.effect, study.second, NOISE_SD)
            add("kept", "kept", probability_kept(-study.effect, study.second, NOISE_SD), POINTS)
        add("power", "found", predicted, POINTS)
    if study.alone:
        add("a mean covered by its interval", "mean covered", 0.95)
        add("a difference covered by its own interval", "difference covered", 0.95)
    return found


def clopper_pearson(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact binomial interval of ``count`` in ``n``.

    >>> low, high = clopper_pearson(100, 2000)
    >>> round(low, 4), round(high, 4)
    (0.0409, 0.0605)
    """
    interval = stats.binomtest(count, n).proportion_ci(level, method="exact")
    return float(interval.low), float(interval.high)


def calibrate(
    studies: tuple[Study, ...], num_sweeps: int, *, seed: int = 0, jobs: int = 1
) -> Iterator[tuple[Study, list[Rate]]]:
    """Each study with its rates over ``num_sweeps`` sweeps, in whole batches of 50."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for study in studies:
            batches = math.ceil(num_sweeps * study.share / BATCH)
            tasks = [(study, seed, batch) for batch in range(batches)]
            parts = pool.map(_batch, tasks) if jobs > 1 else map(_batch, tasks)
            yield study, rates(study, sum(parts, Counter()))


def _batch(task: tuple[Study, int, int]) -> Counter[str]:
    study, seed, batch = task
    return tally(
        study, BATCH, np.random.default_rng([seed, zlib.crc32(study.name.encode()), batch])
    )


def line(rate: Rate) -> str:
    """A row of the table."""
    said = "yes" if rate.as_claimed else "**no**"
    low, high = 100 * rate.low, 100 * rate.high
    return (
        f"| {rate.study} | {rate.what} | {rate.n:,} | {100 * rate.rate:.1f} % "
        f"| {low:.1f} to {high:.1f} % | {100 * rate.expected:.1f} % | {said} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    parser.add_argument("--sweeps", type=int, default=2000, help="of each study (default: 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--only", default="", help="studies whose name begins so; nothing is kept")
    options = parser.parse_args()
    studies = tuple(study for study in STUDIES if study.name.startswith(options.only))
    print("| simulated sweeps | what | n | rate | 95 % interval | should be | as claimed |")
    print("|---|---|---|---|---|---|---|")
    began, found = time.monotonic(), []
    for _, of_study in calibrate(studies, options.sweeps, seed=options.seed, jobs=options.jobs):
        found += of_study
        print("\n".join(map(line, of_study)), flush=True)
    took_s = time.monotonic() - began
    sweeps = sum({rate.study: rate.n for rate in found}.values())
    print(f"{sweeps:,} sweeps in {took_s:.0f} s")
    if not options.only:
        rows = [{**asdict(rate), "rate": rate.rate} for rate in found]
        keep(
            "calibration", {"seed": options.seed, "sweeps": sweeps, "took_s": took_s, "rates": rows}
        )


if __name__ == "__main__":
    main()
