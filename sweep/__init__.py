"""Many cells on many nodes: expand a grid, lease nodes, run each cell once, keep every answer."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweep.results import SweepResults


def open_sweep(place: str) -> "SweepResults":
    """The results of a sweep in a folder or a bucket: ``open_sweep("results/local")``.

    ``status()`` says where it stands: ``counts`` by state, ``cells`` with state, reason and what
    runs, ``node_hours``. ``rows()`` is a list with a dictionary per attempted cell, ``attempts()``
    the same of all attempts, ``table()`` the rows as a table of Arrow. Needs neither Ray nor torch
    nor a driver. ConfigError where no sweep has run.
    """
    from sweep.results import SweepResults  # who imports another part of the sweep needs it not

    return SweepResults(place)
