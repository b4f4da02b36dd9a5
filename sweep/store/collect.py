"""Keep ``cells.parquet`` and ``replicates.parquet`` up to date while a sweep runs, and after it."""

import contextlib
from collections.abc import Collection, Iterator

from sweep.deadline import call_with_deadline, repeated
from sweep.store.files import StoreError
from sweep.store.store import CELLS_FILE, SWEEP_FILE, Store
from sweep.store.table import StoredAttempts

EVERY_S = 180.0
LAST_DEADLINE_S = 60.0


@contextlib.contextmanager
def collected(store: Store, cell_ids: Collection[str]) -> Iterator[None]:
    """Inside, the tables are made anew every few minutes, and where it ends by an error.

    Whoever gets to the end makes them himself.
    """
    num_rows = 0

    def grown() -> None:
        nonlocal num_rows
        if (now := store.read().table.num_rows) > num_rows:
            store.write_cells(cell_ids)
            num_rows = now

    try:
        with repeated(EVERY_S, grown):
            yield
    except StoreError:
        raise
    except BaseException:
        with contextlib.suppress(Exception):  # what is under way says more
            call_with_deadline(LAST_DEADLINE_S, grown)
        raise


def collect(store: Store) -> StoredAttempts | None:
    """Make the tables from whatever has ended so far; None where no attempt has.

    Then they stay as they are: they may be all that was kept of a sweep.
    """
    cell_ids = {cell["cell_id"] for cell in store.read_sweep()["cells"]}
    return store.write_cells(cell_ids) if store.read().table.num_rows else None


def collect_if_behind(store: Store) -> None:
    """``collect`` where a driver is at work, or has left no table or no word at its end."""
    is_behind = store.files.names("drivers") or not store.files.exists(CELLS_FILE)
    if is_behind and store.files.exists(SWEEP_FILE):
        collect(store)
