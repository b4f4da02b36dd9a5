"""Which of several things is faster, and by how much? One after the other, round after round.

Machines are noisy and shared, so only ratios within a round are told: median and quartiles over the
rounds. On a CPU the clock is the time that this process computed, all threads together, which other
processes stretch less than the wall's.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

Times = dict[str, list[float]]


class Quartiles(NamedTuple):
    """First quartile, median, third quartile."""

    low: float
    middle: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.3f} (quartiles {self.low:.3f} to {self.high:.3f})"


def in_turn(
    work: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int,
    clock: Callable[[], float] = time.process_time,
) -> Times:
    """Seconds of each piece of work; element i of every list is of round i."""
    times: Times = {name: [] for name in work}
    for i in range(warmup + rounds):
        for name, do in work.items():
            start_s = clock()
            do()
            taken_s = clock() - start_s
            if i >= warmup:
                times[name].append(taken_s)
    return times


def quartiles(values: list[float]) -> Quartiles:
    return Quartiles(*statistics.quantiles(values, n=4))


def ratios(times: Times, reference: str) -> dict[str, Quartiles]:
    """Of the time of each over that of ``reference`` in the same round."""
    return {
        name: quartiles([a / b for a, b in zip(values, times[reference], strict=True)])
        for name, values in times.items()
        if name != reference
    }


def spread(times: Times, learned: str) -> tuple[float, float]:
    """Slowest over fastest of all but ``learned``, and ``learned`` over their median.

    By medians of the times within each round over its median, so that drift between rounds does
    not count.
    """
    fixed = [name for name in times if name != learned]
    relative: Times = {name: [] for name in times}
    for i in range(len(times[learned])):
        middle = statistics.median(times[name][i] for name in fixed)
        for name in times:
            relative[name].append(times[name][i] / middle)
    medians = {name: statistics.median(values) for name, values in relative.items()}
    return max(medians[f] for f in fixed) / min(medians[f] for f in fixed), medians[learned]


def slower(found: Mapping[str, Quartiles], kept: Mapping[str, list[float]]) -> list[str]:
    """Which ratios have grown past noise: three quarters of the rounds above three quarters of what
    was kept; and which of those that were kept are missing. Nothing is said of absolute times.
    """
    grown = [
        f"{name}: {ratio}, kept {Quartiles(*kept[name])}"
        for name, ratio in found.items()
        if name in kept and ratio.low > kept[name][2]
    ]
    return grown + [f"{name}: not measured" for name in kept if name not in found]
