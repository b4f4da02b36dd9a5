"""Read a sweep's results from Python, while it runs or after: its status and its rows."""

from typing import Any

import pyarrow as pa

from sweep.status import SweepStatus, read_status
from sweep.store.store import Store


class SweepResults:
    """The results of one sweep. Every call looks anew; nothing is ever written."""

    def __init__(self, place: str) -> None:
        self._store = Store(place)
        self._store.read_sweep()  # which says so where no sweep has run

    def status(self) -> SweepStatus:
        """What became of each cell, what runs, and the time and node-hours that are left."""
        return read_status(self._store)

    def rows(self) -> list[dict[str, Any]]:
        """A dictionary per cell that was attempted, in the sweep's order.

        Its keys are the columns of results/README.md; what was not measured is None.
        """
        return self._store.read().cells()

    def attempts(self) -> list[dict[str, Any]]:
        """The same of every attempt that has ended."""
        return [dict(row) for row in self._store.read().rows]

    def table(self) -> pa.Table:
        """``rows`` as a table of Arrow; its ``to_pandas()`` is a frame."""
        return self._store.read().cells_table()
