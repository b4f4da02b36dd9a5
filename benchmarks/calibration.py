"""Calibration of the analysis on simulated sweeps: false positives, coverage, power.

Thousands of simulated sweeps (``benchmarks.simulated_sweeps``) go through the functions that
compare in real ones: ``compare`` where cells are missing, and elsewhere
``benchmarks.compare_many``, which is checked against it in every batch. Every rate is over
independent sweeps, with its binomial 95 % interval (Clopper & Pearson 1934) and with what it should
be. What is not as claimed is printed as such. The same seed gives the same numbers, whatever the
number of processes.
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
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from analysis.models.block_model import Reals
from analysis.planning.power import Design, power_of
from analysis.planning.second_stage import leaders
from analysis.rows.stages import PRIMARY
from analysis.stats.compare import compare
from analysis.stats.pairs import paired_stats
from analysis.stats.per_seed import seed_stats
from analysis.stats.quantization import with_deltas
from analysis.study import Study
from benchmarks.calibration_scenarios import ONE, SCENARIOS, Scenario
from benchmarks.compare_many import compare_many
from benchmarks.measured import keep
from benchmarks.simulated_sweeps import NOISE_SD, NUM_FUNCTIONS, REFERENCE, World, simulated
from benchmarks.two_stages import probability_kept, two_stage_power

Claim = Literal["is", "at most", "at least", "near"]

POINTS = 0.03  # how far simulated power may be from predicted


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something happened in ``n`` independent sweeps, and how often it should.

    ``claim``: that the rate is, is at most or is at least ``expected`` (within the interval), or is
    near it (within ``POINTS``); None where nothing is claimed.
    """

    study: str
    what: str
    count: int
    n: int
    low: float
    high: float
    expected: float
    claim: Claim | None

    @property
    def as_claimed(self) -> bool | None:
        match self.claim:
            case "is":
                return self.low <= self.expected <= self.high
            case "at most":
                return self.low <= self.expected
            case "at least":
                return self.high >= self.expected
            case "near":
                return abs(self.rate - self.expected) <= POINTS
            case _:
                return None

    @property
    def rate(self) -> float:
        return self.count / self.n


def tally(scenario: Scenario, num_sweeps: int, rng: np.random.Generator) -> Counter[str]:
    """How often what happened in so many sweeps of ``scenario``; ``n`` counts them."""
    frame = simulated(scenario.world, num_sweeps, rng)
    if scenario.second is not None:
        return _second_stages(scenario, frame, rng)
    counts = _counted(scenario.world, _compared(frame, scenario))
    if scenario.asks_of_quantization:
        counts += of_quantization(frame, scenario)
    return counts + (_alone(frame) if scenario.alone else Counter())


def _compared(frame: pd.DataFrame, scenario: Scenario, quantity: str = PRIMARY) -> pd.DataFrame:
    """One row per setting and key: difference, half_width, pooled_half_width."""
    if scenario.world.missing:  # no two sweeps have the same design: one by one
        return compare(Study.of(frame, REFERENCE, pairing=scenario.pairing), quantity)
    found = compare_many(frame, REFERENCE, scenario.pairing, quantity)
    num_sweeps, num_keys = found.difference_DK.shape
    return pd.DataFrame(
        {
            "setting": np.repeat(frame["setting"].unique(), num_keys),
            "key": np.tile(np.array(found.keys, dtype=object), num_sweeps),
            "difference": found.difference_DK.ravel(),
            "half_width": found.half_width_DK.ravel(),
            "pooled_half_width": found.pooled_DK.ravel(),
        }
    )


def _counted(world: World, compared: pd.DataFrame) -> Counter[str]:
    """A sweep a setting: is a null resolved, are all truths covered, is the effect resolved?"""
    truth = np.array([world.effect(key) for key in compared["key"]])
    size, half_width = compared["difference"].abs(), compared["half_width"]
    resolved, by_pooled = size > half_width, size > compared["pooled_half_width"]
    is_null, is_effect = truth == 0, (compared["key"] == ONE) & (truth != 0)
    any_of = (
        pd.DataFrame(
            {
                "false": resolved & is_null,
                "false by pooled": by_pooled & is_null,
                "missed": (compared["difference"] - truth).abs() > half_width,
                "found": resolved & is_effect,
                "found by pooled": by_pooled & is_effect,
            }
        )
        .groupby(compared["setting"])
        .any()
    )
    events = {event: int(any_of[event].sum()) for event in any_of.columns.drop("missed")}
    return Counter(events | {"n": len(any_of), "all covered": int((~any_of["missed"]).sum())})


def of_quantization(frame: pd.DataFrame, scenario: Scenario) -> Counter[str]:
    """A sweep a setting: is its cost said to differ, is the shift between winners resolved?"""
    measured = with_deltas(frame)
    moves = _compared(measured, scenario, "quant_delta")
    change, half_width = (_by_key(moves, name) for name in ("difference", "half_width"))
    before, after = (
        _by_key(_compared(measured, scenario, stage), "difference").idxmin(axis=1)
        for stage in ("pre_quant_bpb", "post_quant_bpb")
    )
    shift = _at(change, after) - _at(change, before)
    width = _at(half_width, after) + _at(half_width, before)
    return Counter(
        {
            "cost differs": int((change.abs() > half_width).any(axis=1).sum()),
            "winner shifts": int((np.abs(shift) > width).sum()),
        }
    )


def _by_key(compared: pd.DataFrame, column: str) -> pd.DataFrame:
    """Settings × keys, the reference with zeros among them."""
    table = compared.pivot(index="setting", columns="key", values=column)
    return table.assign(**{REFERENCE: 0.0})


def _at(table: pd.DataFrame, key_of: "pd.Series[str]") -> Reals:
    """The value of each setting in the column of its key."""
    columns = table.columns.get_indexer(key_of.reindex(table.index))
    return table.to_numpy(dtype=float)[np.arange(len(table)), columns]


def _second_stages(
    scenario: Scenario, frame: pd.DataFrame, rng: np.random.Generator
) -> Counter[str]:
    """Each sweep of ``frame`` is a screening; its leaders run again under fresh seeds.

    Screenings with the same leaders share a frame.
    """
    assert scenario.second is not None
    kept = scenario.second.keep
    first = _compared(frame, scenario)
    ranked = first.sort_values(["setting", "difference"]).groupby("setting", sort=False)["key"]
    chosen = ranked.apply(lambda keys: tuple(sorted(keys.iloc[:kept])))
    name = frame["setting"].iloc[0]
    found = leaders(Study.of(frame[frame["setting"] == name], REFERENCE), keep=kept)
    if tuple(sorted(found)) != chosen[name]:
        raise RuntimeError(f"leaders says {found}, all at once {chosen[name]}")
    counts: Counter[str] = Counter()
    for keys, num_sweeps in sorted(Counter(chosen).items()):
        world = World(
            num_seeds=scenario.second.seeds,
            effects=scenario.world.effects,
            keys=(REFERENCE, *keys),
        )
        again = simulated(world, num_sweeps, rng)
        counts += _counted(world, _compared(again, scenario))
        counts["kept"] += num_sweeps * (ONE in keys)
    return counts


def _alone(frame: pd.DataFrame) -> Counter[str]:
    """The t intervals of one activation, of its mean and of its difference; 2.3 is the truth."""
    means = seed_stats(frame, [PRIMARY])
    means = means[means["key"] == ONE]
    pairs = paired_stats(Study.of(frame, REFERENCE), PRIMARY)
    pairs = pairs[pairs["key"] == ONE]
    return Counter(
        {
            "mean covered": int(((means["mean"] - 2.3).abs() <= means["half_width"]).sum()),
            "difference covered": int((pairs["mean"].abs() <= pairs["half_width"]).sum()),
        }
    )


def rates(scenario: Scenario, counts: Counter[str]) -> list[Rate]:
    """What is claimed of ``scenario``, with what ``counts`` says."""
    n, found = counts["n"], []

    def add(what: str, event: str, claim: Claim | None, expected: float) -> None:
        low, high = clopper_pearson(counts[event], n)
        found.append(Rate(scenario.name, what, counts[event], n, low, high, expected, claim))

    effect, seeds = -scenario.effect, scenario.world.num_seeds
    if effect == 0:
        add("family-wise false positives", "false", "at most", 0.05)
        exact: Claim | None = "is" if scenario.is_as_assumed else None
        add("the same, pooled interval alone", "false by pooled", exact, 0.05)
        if scenario.asks_of_quantization:
            add("quantization is said to cost one more or less", "cost differs", "at most", 0.05)
            add("the shift between two winners is resolved", "winner shifts", "at most", 0.05)
    elif scenario.second is None:
        add("all differences covered at once", "all covered", "at least", 0.95)
        of_pooled = Design("pooled", seeds, NUM_FUNCTIONS)
        expected = power_of(effect, of_pooled, NOISE_SD)
        add("power of the pooled interval alone", "found by pooled", "near", expected)
        of_block = Design("block", seeds, NUM_FUNCTIONS)
        add("power", "found", "near", power_of(effect, of_block, NOISE_SD))
    else:
        add("kept", "kept", "near", probability_kept(effect, scenario.second, NOISE_SD))
        add("power", "found", "near", two_stage_power(effect, scenario.second, NOISE_SD))
    if scenario.alone:
        add("a mean covered by its own interval", "mean covered", "is", 0.95)
        add("a difference covered by its own interval", "difference covered", "is", 0.95)
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
    scenarios: tuple[Scenario, ...], num_sweeps: int, *, seed: int = 0, jobs: int = 1
) -> Iterator[tuple[Scenario, list[Rate]]]:
    """Each scenario with its rates over ``num_sweeps`` sweeps, in whole batches."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for scenario in scenarios:
            batches = math.ceil(num_sweeps * scenario.share / scenario.batch)
            tasks = [(scenario, seed, batch) for batch in range(batches)]
            parts = pool.map(_batch, tasks) if jobs > 1 else map(_batch, tasks)
            yield scenario, rates(scenario, sum(parts, Counter()))


def _batch(task: tuple[Scenario, int, int]) -> Counter[str]:
    scenario, seed, batch = task
    rng = np.random.default_rng([seed, zlib.crc32(scenario.name.encode()), batch])
    return tally(scenario, scenario.batch, rng)


def line(rate: Rate) -> str:
    """A row of the table."""
    answer = {True: "yes", False: "**no**", None: "–"}[rate.as_claimed]
    claim = {"is": "", "near": "about ", None: "–"}.get(rate.claim, f"{rate.claim} ")
    expected = claim if rate.claim is None else f"{claim}{100 * rate.expected:.1f} %"
    low, high = 100 * rate.low, 100 * rate.high
    return (
        f"| {rate.study} | {rate.what} | {rate.n:,} | {100 * rate.rate:.1f} % "
        f"| {low:.1f} to {high:.1f} % | {expected} | {answer} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    parser.add_argument("--sweeps", type=int, default=2000, help="of each scenario (default: 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument(
        "--only", default="", help="scenarios whose name begins so; nothing is kept"
    )
    options = parser.parse_args()
    scenarios = tuple(known for known in SCENARIOS if known.name.startswith(options.only))
    print("| simulated sweeps | what | n | rate | 95 % interval | should be | as claimed |")
    print("|---|---|---|---|---|---|---|")
    began, found = time.monotonic(), []
    for _, of_one in calibrate(scenarios, options.sweeps, seed=options.seed, jobs=options.jobs):
        found += of_one
        print("\n".join(map(line, of_one)), flush=True)
    took_s = time.monotonic() - began
    sweeps = sum({rate.study: rate.n for rate in found}.values())
    print(f"{sweeps:,} sweeps in {took_s:.0f} s")
    if not options.only:
        rows = [asdict(rate) | {"rate": rate.rate, "as_claimed": rate.as_claimed} for rate in found]
        facts = {"seed": options.seed, "sweeps": sweeps, "took_s": took_s}
        keep("calibration", {**facts, "rates": rows})


if __name__ == "__main__":
    main()
