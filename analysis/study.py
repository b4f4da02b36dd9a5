"""One sweep as a value: its cells, its reference and blocking, and where they were read.

What answers a question takes a Study; what only transforms rows takes a frame. A Study of one
setting is a Study too (``study.settings``).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import pandas as pd

from analysis.models.block_model import Blocking, Pairing
from analysis.rows.attempt_files import load_curves, load_layers
from analysis.rows.names import labels_of, natural_order
from analysis.rows.read import (
    Sweep,
    is_scored,
    load_cells,
    load_replicates,
    load_sweep,
    settings,
)
from analysis.rows.stages import tested_stage
from sweep.spec.sweep_file import RECORD_RULE, RecordRule
from trainer.config.config_errors import ConfigError

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """The cells of a sweep and how they are compared.

    ``cells``: one row per cell, as ``load_cells`` gives them; all that is averaged or counted.
    ``reference_reruns``: scored repetitions of the reference, which only compare; no rows but where
    nodes are blocks. ``place``: folder or URI of its files, None for rows that were made in memory.
    """

    cells: pd.DataFrame
    sweep: Sweep
    reference_reruns: pd.DataFrame
    place: str | None = None

    @classmethod
    def of(
        cls,
        cells: pd.DataFrame,
        reference: str,
        *,
        pairing: Pairing = "seed",
        record_rule: RecordRule = RECORD_RULE,
    ) -> "Study":
        """Rows in memory, whose activations are in natural order."""
        keys = tuple(natural_order(cells))
        sweep = Sweep(
            name="",
            reference=reference,
            keys=keys,
            num_cells=None,
            pairing=pairing,
            primary=tested_stage(cells),
            record_rule=record_rule,
        )
        return cls(cells=cells, sweep=sweep, reference_reruns=cells.iloc[:0])

    @property
    def reference(self) -> str:
        """The key of the activation that all others are compared with."""
        return self.sweep.reference

    @property
    def primary(self) -> str:
        """The one stage that is tested, the same in every setting of the sweep."""
        return self.sweep.primary

    @property
    def blocking(self) -> Blocking:
        """What is a block; where nodes are, the reference is what ran on every one of them."""
        pairing = self.sweep.pairing
        return Blocking(pairing, anchor=self.reference if pairing == "node" else None)

    @property
    def with_reruns(self) -> pd.DataFrame:
        """The rows that are compared: the cells, then the reruns of the reference."""
        if self.reference_reruns.empty:
            return self.cells
        return pd.concat([self.cells, self.reference_reruns], ignore_index=True)

    @property
    def labels(self) -> dict[str, str]:
        """What people read, by key."""
        return labels_of(self.cells)

    @cached_property
    def settings(self) -> dict[str, "Study"]:
        """A study for each setting, by its name; small budgets first. Of one setting: itself."""
        names = settings(self.cells)
        if len(names) == 1:
            return dict.fromkeys(names, self)
        return {name: self.derive(partial(_in, setting=name)) for name in names}

    @cached_property
    def answers(self) -> dict[Any, Any]:
        """What functions that are ``answered_once`` have said of it."""
        return {}

    def derive(self, change: Callable[[pd.DataFrame], pd.DataFrame]) -> "Study":
        """The study whose rows are ``change`` of these: fewer of them, or with further columns."""
        return replace(
            self, cells=change(self.cells), reference_reruns=change(self.reference_reruns)
        )

    def curves(self) -> pd.DataFrame:
        """The learning curves of the cells (``load_curves``)."""
        return load_curves(self.place_of("curve"), self.cells)

    def layers(self) -> pd.DataFrame:
        """The measures of the cells' layers (``load_layers``)."""
        return load_layers(self.place_of("layer"), self.cells)

    def place_of(self, kind: str) -> str:
        """Where its files of a ``kind`` lie; a ConfigError for rows that were made in memory."""
        if self.place is None:
            raise ConfigError(f"there is no place for {kind} files: these rows were made in memory")
        return self.place


def answered_once(
    ask: Callable[Concatenate[Study, P], T],
) -> Callable[Concatenate[Study, P], T]:
    """``ask``, which works out what it says of a study when it is first asked with like arguments.

    A page asks the same in several sections. What is answered is shared, so nobody changes it.
    """

    @wraps(ask)
    def answered(study: Study, /, *args: P.args, **kwargs: P.kwargs) -> T:
        question = (ask, args, tuple(sorted(kwargs.items())))
        if question not in study.answers:
            study.answers[question] = ask(study, *args, **kwargs)
        found: T = study.answers[question]
        return found

    return answered


def read_study(place: str | Path) -> Study:
    """The sweep that left its files in ``place``, a folder or a URI."""
    cells = load_cells(place)
    sweep = load_sweep(place, cells)
    reruns = cells.iloc[:0]
    if sweep.pairing == "node":  # where seeds are blocks, a rerun would only be a second draw
        replicates = load_replicates(place)
        is_rerun = (replicates["key"] == sweep.reference) & is_scored(replicates)
        reruns = replicates[is_rerun & replicates["setting"].isin(cells["setting"])]
    return Study(cells=cells, sweep=sweep, reference_reruns=reruns, place=str(place))


def _in(rows: pd.DataFrame, setting: str) -> pd.DataFrame:
    return rows[rows["setting"] == setting]
