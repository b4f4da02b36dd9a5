"""Select the best activation seed by seed: drop what cannot be the best, and stop when it is known.

Scores are compared within seeds, so that what a seed adds to all of its scores cancels. After each
seed, d is the mean difference of two activations over the n seeds that both have, v the variance of
one such difference, and

    W = (c v / zone − n zone) / 2n,    c = f (β^(−2/f) − 1),    β = (1 − confidence) / (A − 1)

with f degrees of freedom for v, and A activations: the triangular region of Kim & Nelson (2001, "A
fully sequential procedure for indifference-zone selection in simulation"). Whoever is behind by
more than W is not better by the zone. It is dropped if it is also behind by more than −W, so that
the other may be better than it by the zone, and by more than a tenth of the zone. Two are level if
neither is better than the other by the zone: |d| < −W. The sweep is decided when one activation is
left, or several that are all level, a set within the zone.

What differs from Kim & Nelson: the variance is estimated anew after every seed and from all pairs,
since noise that is alike for all has (S − 1)(A − 1) degrees of freedom where a pair has S − 1. What
an activation's own scores show beyond that is added, with degrees of freedom after Satterthwaite
(1946). β is half of theirs, which pays for both; and without the tenth of the zone, a set would be
left by chance only. docs/decisions/0013-a-sweep-that-stops.md says what was compared.

Letters: D sweeps, S seeds in their order, A activations (functions: two names of one are one).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Flags = NDArray[np.bool_]
Codes = NDArray[np.int64]

TOO_CLOSE = 0.1  # of the zone: nobody is dropped for less


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppingRule:
    """``zone``: the least difference that matters. ``min_seeds``: nothing is dropped before."""

    zone: float
    confidence: float = 0.95
    min_seeds: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.zone < np.inf:
            raise ValueError(f"zone = {self.zone}: give a difference above 0, such as 0.001.")
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"confidence = {self.confidence}: give 0.5 or more, and less than 1.")
        if self.min_seeds < 2:
            raise ValueError(f"min_seeds = {self.min_seeds}: give 2 or more; one shows no noise.")


@dataclass(frozen=True, slots=True)
class Dropped:
    """``activation`` was behind ``rival`` by ``difference`` over the ``num_shared`` seeds of both.

    It was dropped after ``num_seeds`` of the sweep's, and needs no score under later ones.
    """

    activation: int
    rival: int
    difference: float
    num_shared: int
    num_seeds: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Where a sweep stands after ``num_seeds`` complete seeds; activations are column numbers.

    ``in_play``: best first. ``is_decided``: the first of them is selected; any others are within
    the zone of it and of one another. ``unscored``: in play, without a score so far; they hold up
    no decision. ``dropped``: first dropped first.
    """

    num_seeds: int
    is_decided: bool
    in_play: tuple[int, ...]
    unscored: tuple[int, ...]
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Of every two activations, over the seeds that both have; a diagonal means nothing.

    ``difference_DAA``: the mean of the first less that of the second, over ``num_DAA`` seeds.
    ``variance_DAA``: of the difference under one seed, with ``df_DAA`` degrees of freedom;
    ``pooled_D`` and ``pooled_df_D``: the same if noise is alike for all.
    """

    difference_DAA: Reals
    num_DAA: Reals
    variance_DAA: Reals
    df_DAA: Reals
    pooled_D: Reals
    pooled_df_D: Reals


@dataclass(frozen=True, slots=True, eq=False)
class Replays:
    """What became of D sweeps.

    ``used_DSA``: the scores that counted. ``num_seeds_DA``: for how long one was in play.
    ``behind_DA``: how far one in play is behind another, at most. ``rival_DA``: by which one it was
    dropped, if it was.
    """

    num_seeds_D: Codes
    decided_D: Flags
    in_play_DA: Flags
    used_DSA: Flags
    num_seeds_DA: Codes
    behind_DA: Reals
    rival_DA: Codes


Bound = Callable[[Pairs, Reals, float], Reals]


def select(
    scores_SA: Reals, rule: StoppingRule, *, waiting_SA: Flags, excluded: Collection[int] = ()
) -> Selection:
    """Replay one sweep: seed after seed, as far as every cell in play has ended.

    A score is NaN where there is none: ``waiting_SA`` says which may still come; the others have
    failed for good and hold up nothing. ``excluded``: activations with a diverged seed. What is
    known of later seeds changes nothing.
    """
    candidate_A = ~np.isin(np.arange(scores_SA.shape[1]), list(excluded))
    found = replay(
        scores_SA[None], rule, waiting_DSA=waiting_SA[None], candidate_DA=candidate_A[None]
    )
    in_play_A, used_SA = found.in_play_DA[0], found.used_DSA[0]
    scored_A = used_SA.any(axis=0)
    dropped = []
    for a in _numbers(candidate_A & ~in_play_A, found.num_seeds_DA[0]):
        rival = int(found.rival_DA[0, a])
        both_S = used_SA[:, a] & used_SA[:, rival]
        difference = float((scores_SA[both_S, a] - scores_SA[both_S, rival]).mean())
        dropped.append(
            Dropped(a, rival, difference, int(both_S.sum()), int(found.num_seeds_DA[0, a]))
        )
    return Selection(
        num_seeds=int(found.num_seeds_D[0]),
        is_decided=bool(found.decided_D[0]),
        in_play=_numbers(in_play_A & scored_A, found.behind_DA[0]),
        unscored=_numbers(in_play_A & ~scored_A, found.behind_DA[0]),
        dropped=tuple(dropped),
    )


def triangle(pairs: Pairs, beta_D: Reals, zone: float) -> Reals:
    """W for every two activations that share a seed."""
    c_DAA = pairs.df_DAA * (beta_D[:, None, None] ** (-2 / pairs.df_DAA) - 1)
    return (c_DAA * pairs.variance_DAA / zone - pairs.num_DAA * zone) / (2 * pairs.num_DAA)


def replay(
    scores_DSA: Reals,
    rule: StoppingRule,
    *,
    waiting_DSA: Flags | None = None,
    candidate_DA: Flags | None = None,
    bound: Bound = triangle,
) -> Replays:
    """Replay D sweeps of one shape at once; None: nothing is waited for, all are candidates."""
    num_sweeps, num_seeds, num_activations = scores_DSA.shape
    shape = num_sweeps, num_activations
    in_play_DA = np.ones(shape, bool) if candidate_DA is None else candidate_DA.copy()
    num_rivals_D = in_play_DA.sum(axis=1) - 1
    decided_D, num_seeds_D = num_rivals_D < 1, np.zeros(num_sweeps, np.int64)
    used_DSA, num_seeds_DA = np.zeros(scores_DSA.shape, bool), np.zeros(shape, np.int64)
    behind_DA, rival_DA = np.zeros(shape), np.zeros(shape, np.int64)
    going_D = ~decided_D
    for seed in range(num_seeds):
        if waiting_DSA is not None:
            going_D &= ~(waiting_DSA[:, seed] & in_play_DA).any(axis=1)
        at = np.flatnonzero(going_D)
        if at.size == 0:
            break
        in_play = in_play_DA[at]
        used_DSA[at, seed] = in_play & ~np.isnan(scores_DSA[at, seed])
        num_seeds_D[at] = seed + 1
        num_seeds_DA[at] += in_play
        if seed + 1 < rule.min_seeds:
            continue
        used = used_DSA[at, : seed + 1]
        pairs = compare(scores_DSA[at, : seed + 1], used)
        with np.errstate(divide="ignore", invalid="ignore"):
            bound_DAA = bound(pairs, (1 - rule.confidence) / num_rivals_D[at], rule.zone)
        look = _look(pairs, bound_DAA, in_play & used.any(axis=1), rule.zone)
        in_play_DA[at] = in_play & ~look.dropped_DA
        rival_DA[at] = np.where(look.dropped_DA, look.rival_DA, rival_DA[at])
        behind_DA[at], decided_D[at] = look.behind_DA, look.decided_D
        going_D &= ~decided_D
    return Replays(num_seeds_D, decided_D, in_play_DA, used_DSA, num_seeds_DA, behind_DA, rival_DA)


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What follows after one more seed; fields as in :class:`Replays`."""

    dropped_DA: Flags
    rival_DA: Codes
    behind_DA: Reals
    decided_D: Flags


def _look(pairs: Pairs, bound_DAA: Reals, scored_DA: Flags, zone: float) -> _Look:
    """Judge those in play that have a score."""
    d_DAA = pairs.difference_DAA
    bound_DAA = np.where((pairs.num_DAA > 0) & (pairs.df_DAA > 0), bound_DAA, np.inf)
    both_DAA = _both(scored_DA)
    behind_DA = np.where(both_DAA, d_DAA, 0.0).max(axis=2)
    # Where scores are missing, each might be behind another, over other seeds. One stays.
    best_D = np.where(scored_DA, behind_DA, np.inf).argmin(axis=1)
    margin_DAA = d_DAA - np.maximum(np.abs(bound_DAA), TOO_CLOSE * zone)
    margin_DAA = np.where(both_DAA, margin_DAA, -np.inf)
    dropped_DA = margin_DAA.max(axis=2) > 0
    dropped_DA &= np.arange(dropped_DA.shape[1]) != best_D[:, None]
    left_DAA = _both(scored_DA & ~dropped_DA)
    is_open_DAA = left_DAA & (np.abs(d_DAA) >= -bound_DAA)
    return _Look(
        dropped_DA=dropped_DA,
        rival_DA=margin_DAA.argmax(axis=2),
        behind_DA=np.where(left_DAA, d_DAA, 0.0).max(axis=2),
        decided_D=np.asarray(scored_DA.any(axis=1) & ~is_open_DAA.any(axis=(1, 2))),
    )


def compare(scores_DSA: Reals, used_DSA: Flags) -> Pairs:
    """Differences over the scores that are used, and their variances.

    The mean variance over all pairs is twice that of a score, exactly so in a complete design; the
    mean over an activation's own pairs is its own variance and a partner's.
    """
    num_DS, num_DA = used_DSA.sum(axis=2), used_DSA.sum(axis=1)
    sums_DS = np.where(used_DSA, scores_DSA, 0.0).sum(axis=2)
    means_DS = sums_DS / np.maximum(num_DS, 1)
    x_DSA = np.where(used_DSA, scores_DSA - means_DS[:, :, None], 0.0)
    used_DAS, x_DAS = _turned(used_DSA.astype(float)), _turned(x_DSA)
    n_DAA = used_DAS @ used_DSA
    sums_DAA, squares_DAA = x_DAS @ used_DSA, x_DAS**2 @ used_DSA
    d_DAA = (sums_DAA - _turned(sums_DAA)) / np.maximum(n_DAA, 1)
    rest_DAA = squares_DAA + _turned(squares_DAA) - 2 * x_DAS @ x_DSA - n_DAA * d_DAA**2
    rest_DAA = np.maximum(rest_DAA, 0.0)  # below 0 by rounding
    df_DAA = np.maximum(n_DAA - 1, 0) * ~np.eye(n_DAA.shape[1], dtype=bool)
    pooled_D = rest_DAA.sum(axis=(1, 2)) / np.maximum(df_DAA.sum(axis=(1, 2)), 1)
    pooled_df_D = num_DA.sum(axis=1) - (num_DS > 0).sum(axis=1) - (num_DA > 0).sum(axis=1) + 1.0
    own_DA = rest_DAA.sum(axis=2) / np.maximum(df_DAA.sum(axis=2), 1)
    excess_DA = np.maximum(own_DA - pooled_D[:, None], 0)
    parts = (pooled_D[:, None, None], excess_DA[:, :, None], excess_DA[:, None, :])
    own_df_DA = np.maximum(num_DA - 1, 1)
    dfs = (pooled_df_D[:, None, None], own_df_DA[:, :, None], own_df_DA[:, None, :])
    return Pairs(d_DAA, n_DAA, *_summed(parts, dfs), pooled_D, pooled_df_D)


def _summed(parts: tuple[Reals, ...], dfs: tuple[Reals, ...]) -> tuple[Reals, Reals]:
    """A sum of variances and its degrees of freedom, at most those of the first part."""
    total = sum(parts, np.zeros(()))
    spread = sum((x**2 / np.maximum(f, 1) for x, f in zip(parts, dfs, strict=True)), np.zeros(()))
    df = np.where(spread > 0, total**2 / np.where(spread > 0, spread, 1.0), np.inf)
    return total, np.minimum(df, dfs[0])


def _both(which_DA: Flags) -> Flags:
    """The pairs of two different ones among them."""
    both_DAA = which_DA[:, :, None] & which_DA[:, None, :]
    return both_DAA & ~np.eye(which_DA.shape[1], dtype=bool)


def _turned(x: Reals) -> Reals:
    return x.transpose(0, 2, 1)


def _numbers(which_A: Flags, by_A: NDArray[np.generic]) -> tuple[int, ...]:
    """The numbers of those that are meant, the lowest by ``by_A`` first."""
    numbers = np.flatnonzero(which_A)
    return tuple(int(a) for a in numbers[np.argsort(by_A[numbers], kind="stable")])
