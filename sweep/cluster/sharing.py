"""Share a cluster between sweeps: how many leases each is to hold, and which are given back.

Every driver tells the others its claim (:mod:`sweep.cluster.board`) and computes the same from all
claims. Nobody gives back what no waiting sweep can use, and no cell is ended for it.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Count = Annotated[int, Field(ge=0, le=100_000)]


class Claim(BaseModel):
    """What a driver tells the others. Leases are counted; each takes ``size`` GPUs, or CPUs.

    ``held``: its leases by node; ``given``: those that it gave back for others and that may still
    be on their way; ``wants``: how many would have something to do. It ``waits`` if requests have
    been open for some time; ``usable``: the nodes on which it would take a lease. Fields of a newer
    version are left alone.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    driver: str
    name: str
    share: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    started_at: float
    unit: Literal["GPU", "CPU"]
    size: Annotated[int, Field(ge=1)]
    held: dict[str, Count]
    given: dict[str, Count]
    wants: Count
    waits: bool
    usable: frozenset[str]

    @property
    def num_held(self) -> int:
        return sum(self.held.values())


@dataclass(frozen=True, slots=True)
class Division:
    """What follows for one driver from all claims.

    It may hold ``limit`` leases, or all that it gets if that is None, and gives back ``surplus`` of
    those on ``nodes`` as their cells end. ``is_kept_waiting``: it holds none, and others hold nodes
    that it could use. ``sentence``: what people are told.
    """

    limit: int | None = None
    surplus: int = 0
    nodes: frozenset[str] = frozenset()
    is_kept_waiting: bool = False
    sentence: str | None = None


def divide(mine: Claim, others: Iterable[Claim], capacity: Mapping[str, int]) -> Division:
    """What the driver of ``mine`` may hold and gives back; ``capacity``: units by node.

    A sweep is deprived if it waits, holds less than its target, and could have a node from sweeps
    that hold more than theirs. As long as one is, the others keep to their targets.
    """
    others = [claim for claim in others if claim.unit == mine.unit]
    if not others:
        return Division()
    balance = _Balance([mine, *others], capacity)
    is_kept_waiting = mine.num_held == 0 and any(
        mine.usable & claim.held.keys() for claim in others
    )
    deprived = [claim for claim in others if balance.reach(claim)]
    if not deprived:
        sentence = balance.waiting_sentence(mine, others)
        return Division(is_kept_waiting=is_kept_waiting, sentence=sentence)
    wanted = frozenset[str]().union(*map(balance.reach, deprived))
    missing = sum(map(balance.missing, deprived))
    missing -= sum(balance.on_its_way.get(node, 0) for node in wanted)
    surplus = min(balance.surplus(mine), max(0, math.ceil(missing / mine.size)))
    nodes = wanted & mine.held.keys()
    if any(claim.size > mine.size for claim in deprived):  # whole nodes have to become free
        nodes = balance.fewest_nodes(mine, nodes, surplus)
    sentence = balance.waiting_sentence(mine, others)
    if surplus and nodes:
        sentence = f"gives back {surplus} of {mine.num_held} leases as cells end, to "
        sentence += _names(deprived)
    return Division(balance.target(mine), surplus, nodes, is_kept_waiting, sentence)


def targets(claims: Iterable[Claim], total: int) -> dict[str, int]:
    """How many leases each driver is to hold of ``total`` units, by its id.

    Webster's method: the next lease goes to whoever holds least for its share if half of that
    lease is counted, of equals to whoever started first. So one lease moved between two that want
    more would not bring them nearer to their shares, and a larger total takes a lease from nobody.
    """
    order = sorted(claims, key=lambda claim: (claim.started_at, claim.driver))
    leases = {claim.driver: 0 for claim in order}
    queue = [(claim.size / claim.share / 2, rank) for rank, claim in enumerate(order)]
    heapq.heapify(queue)
    while queue:
        _, rank = heapq.heappop(queue)
        claim = order[rank]
        if leases[claim.driver] < claim.wants and claim.size <= total:
            total -= claim.size
            leases[claim.driver] += 1
            next_ = (leases[claim.driver] + 0.5) * claim.size / claim.share
            heapq.heappush(queue, (next_, rank))
    return leases


def readable_claims(records: Iterable[Any]) -> list[Claim]:
    """Those of ``records`` that this version understands."""
    claims = []
    for record in records:
        try:
            claims.append(Claim.model_validate(record))
        except ValidationError:
            continue
    return claims


class _Balance:
    """Who holds how much beside what is due to everybody.

    The total is what all of them hold together, so load of others does not matter, and what is on
    its way from one to another: a total that shrank by it would make givers give ever more.
    """

    def __init__(self, everyone: Sequence[Claim], capacity: Mapping[str, int]) -> None:
        held: Counter[str] = Counter()
        given: Counter[str] = Counter()
        for claim in everyone:
            held.update({node: n * claim.size for node, n in claim.held.items()})
            given.update({node: n * claim.size for node, n in claim.given.items()})
        room = {node: min(n, capacity.get(node, 0) - held[node]) for node, n in given.items()}
        self.on_its_way = {node: n for node, n in room.items() if n > 0}
        # Claims of drivers that were killed stay for some seconds: a node is not counted twice.
        total = sum(min(n, capacity.get(node, n)) for node, n in held.items())
        self._targets = targets(everyone, total + sum(self.on_its_way.values()))
        self._to_be_had = Counter(self.on_its_way)
        for claim in everyone:
            surplus = self.surplus(claim)
            for node, n in claim.held.items():
                self._to_be_had[node] += min(n, surplus) * claim.size

    def target(self, claim: Claim) -> int:
        return self._targets[claim.driver]

    def surplus(self, claim: Claim) -> int:
        return max(0, claim.num_held - self.target(claim))

    def missing(self, claim: Claim) -> int:
        """Units."""
        return (self.target(claim) - claim.num_held) * claim.size

    def reach(self, claim: Claim) -> frozenset[str]:
        """The nodes that ``claim`` could have from others, if it is deprived."""
        if not claim.waits or self.missing(claim) <= 0:
            return frozenset()
        return frozenset(node for node in claim.usable if self._to_be_had[node] >= claim.size)

    def fewest_nodes(self, claim: Claim, nodes: frozenset[str], count: int) -> frozenset[str]:
        """Where it gives ``count`` leases back, those first where that has begun."""
        chosen: set[str] = set()
        for node in sorted(
            nodes, key=lambda node: (-self.on_its_way.get(node, 0), claim.held[node], node)
        ):
            if sum(claim.held[each] for each in chosen) < count:
                chosen.add(node)
        return frozenset(chosen)

    def waiting_sentence(self, mine: Claim, others: Iterable[Claim]) -> str | None:
        due = self.target(mine)
        if self.reach(mine):
            givers = [claim for claim in others if self.surplus(claim)]
            so_far = (
                f"waits for its share, {mine.num_held} of {due} leases so far: what is missing is"
            )
            if not givers:
                return f"{so_far} on its way"
            return f"{so_far} given back as cells end by {_names(givers)}"
        if mine.waits and mine.num_held == due == 0:
            return f"waits for its turn behind {_names(claim for claim in others if claim.held)}"
        return None


def _names(claims: Iterable[Claim]) -> str:
    """``slopes (holds 4), asqu-10k (holds 1)``."""
    return ", ".join(f"{claim.name} (holds {claim.num_held})" for claim in claims)
