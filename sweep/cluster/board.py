"""A board on which drivers of one cluster show each other their claims, and its readers.

The board is an actor of the driver that came first and ends with it; the next one makes it anew,
and some seconds later everybody's claim is there again. So nothing is left behind on a cluster.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from sweep.cluster.sharing import Claim, readable_claims

EVERY_S = 2.0
YOUNG_S = 3 * EVERY_S  # until then not everybody has found a new board
EXPIRES_S = 15.0

Record = Mapping[str, Any]  # a claim, perhaps of another version
Put = Callable[[str, Record | None], "Future[Mapping[str, Any]]"]


class Board:
    """Claims by driver, as they were put there; what is not renewed expires."""

    def __init__(self) -> None:
        self._claims: dict[str, tuple[float, Record]] = {}
        self._since_s = time.monotonic()

    def put(self, driver: str, claim: Record | None) -> dict[str, Any]:
        """Replace the claim of ``driver``, None takes it away; returns those of all others."""
        now_s = time.monotonic()
        self._claims.pop(driver, None)
        self._claims = {d: c for d, c in self._claims.items() if now_s - c[0] < EXPIRES_S}
        others = [record for _, record in self._claims.values()]
        if claim is not None:
            self._claims[driver] = (now_s, claim)
        return {"age_s": now_s - self._since_s, "claims": others}


class BoardReader:
    """One driver's view of a board, which ``put`` reaches; never waits for it."""

    def __init__(self, put: Put) -> None:
        self._put = put
        self._asked: Future[Mapping[str, Any]] | None = None
        self._asked_s = self._heard_s = -math.inf
        self._claims: Sequence[Claim] = ()

    def exchange(self, driver: str, claim: Claim | None) -> Sequence[Claim]:
        """Tell the claim of ``driver`` (None: it has none any more); what others told last."""
        now_s = time.monotonic()
        is_due = self._asked is None and now_s - self._asked_s >= EVERY_S
        if is_due or claim is None:
            record = claim.model_dump(mode="json") if claim is not None else None
            self._asked, self._asked_s = self._put(driver, record), now_s
        if self._asked is not None and self._asked.done():
            asked, self._asked = self._asked, None
            if asked.exception() is None:
                self._hear(asked.result(), now_s)
        return self._claims if now_s - self._heard_s < EXPIRES_S else ()

    def _hear(self, answer: Mapping[str, Any], now_s: float) -> None:
        self._heard_s = now_s
        if answer["age_s"] >= YOUNG_S:
            self._claims = readable_claims(answer["claims"])
