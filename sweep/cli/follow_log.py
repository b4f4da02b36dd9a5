"""Follow the log of a running attempt from another terminal or machine, until the attempt ends.

On the attempt's own machine the log itself is read. From elsewhere what its driver keeps in the
store is: the end of the log, every few seconds.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from sweep.driver.display import duration
from sweep.node.scratch import live_log
from sweep.store.store import Attempt, Store
from sweep.store.table import Row

HERE_EVERY_S = 0.5
MATCHED = 200  # characters by which the kept log is joined to what was shown


class FollowedLog:
    """One attempt's log as far as it has been shown."""

    def __init__(self, store: Store, attempt: Attempt, driver: str | None) -> None:
        self._store, self._attempt, self._driver = store, attempt, driver
        self._num_bytes, self._last = 0, ""

    def follow(self, show: Callable[[str], None]) -> Row | None:
        """Give ``show`` what is new until the attempt has ended; its row, None if that is lost."""
        while True:
            lives, row = self._driver_lives(), self._row()  # before the log, which is whole then
            is_here, skipped, text = self._new_text()
            if skipped:
                show(f"[{skipped} bytes are left out]\n")
                self._last = ""
            if row is not None:
                text += self._rest(row, self._last + text)
            if text:
                show(text)
            self._last = (self._last + text)[-MATCHED:]
            if row is not None or not lives:
                if self._last and not self._last.endswith("\n"):
                    show("\n")
                return row
            time.sleep(HERE_EVERY_S if is_here else self._store.files.ask_every_s)

    def _row(self) -> Row | None:
        if not self._store.files.exists(f"attempts/{self._attempt.stem}.parquet"):
            return None
        wanted = self._attempt.cell_id, self._attempt.number
        rows = self._store.read().rows
        return next((row for row in rows if (row["cell_id"], row["attempt"]) == wanted), None)

    def _driver_lives(self) -> bool:
        return any(driver.id == self._driver for driver in self._store.drivers())

    def _new_text(self) -> tuple[bool, int, str]:
        """Whether the log is on this machine; bytes that are not to be had; what comes then."""
        data = live_log(self._attempt.stem, self._num_bytes)
        if data is not None:
            self._num_bytes += len(data)
            return True, 0, data.decode(errors="replace")
        said = [
            each
            for driver in self._store.progress().values()
            for each in driver.running
            if (each.cell_id, each.attempt) == (self._attempt.cell_id, self._attempt.number)
        ]
        if not said or said[0].log_end is None or said[0].log_bytes is None:
            return False, 0, ""
        num_new, end = said[0].log_bytes - self._num_bytes, said[0].log_end.encode()
        if num_new <= 0:
            return False, 0, ""
        self._num_bytes += num_new
        return False, max(0, num_new - len(end)), end[-num_new:].decode(errors="replace")

    def _rest(self, row: Row, shown: str) -> str:
        """What the kept log has after what was shown."""
        if row["log"] is None:
            return ""
        kept = self._store.read_file(row["log"]).decode(errors="replace")
        if not shown:
            return kept
        _, joint, rest = kept.rpartition(shown[-MATCHED:])
        return rest if joint else kept


def ending(cell: str, row: Mapping[str, Any] | None) -> str:
    """The last line: what became of the attempt."""
    if row is None:
        return f"{cell}: its driver is gone and has left no answer; `make sweep` runs it again."
    took = duration((row["ended_at"] - row["started_at"]).total_seconds())
    reason = f": {row['reason']}" if row["reason"] else ""
    return f"{cell}: attempt {row['attempt']} {row['state']} in {took}{reason}"
