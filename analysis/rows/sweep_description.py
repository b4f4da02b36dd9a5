"""Read ``sweep.json``, in which the driver tells what the sweep asks for before a cell runs."""

import json
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from analysis.rows.names import with_names
from sweep.spec.sweep_file import RECORD_RULE, RecordRule
from sweep.store.files import Files
from sweep.store.store import SWEEP_FILE
from trainer.config.config_errors import ConfigError

_NUMBERS = {"seed": "Int64", "replicate": "Int64", "slope": float, "budget_value": float}


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class CellValues(_Told):
    """What tells one cell of the grid from the others."""

    activation: str
    slope: float | None
    neg_beta: float | None
    seed: int
    replicate: int
    budget_kind: str
    budget_value: float
    block: str
    recipe: str


class GridCell(_Told):
    """One cell of the grid, by its names, and the values that make it."""

    cell: str
    cell_id: str
    params_json: str
    set_json: str
    values: CellValues


class SweepDescription(_Told):
    """What ``sweep.json`` says; what an older driver did not write is absent."""

    name: str | None = None
    reference: str | None = None
    activations: list[str] = []
    num_cells: int | None = None
    screened_in: str | None = None
    pairing: Literal["seed", "node"] = "seed"
    record_rule: RecordRule = RECORD_RULE
    cells: list[GridCell] = []
    until: dict[str, Any] | None = None

    @field_validator("cells", mode="before")
    @classmethod
    def _none_of_older_drivers(cls, cells: Any) -> Any:
        """They did not write what a cell sets, without which it has no setting."""
        is_older = isinstance(cells, list) and any(
            isinstance(cell, dict) and "set_json" not in cell for cell in cells
        )
        return [] if is_older else cells

    def grid(self) -> pd.DataFrame | None:
        """One named row per cell that is asked for, in order of execution; None if not told."""
        if not self.cells:
            return None
        rows = [
            cell.values.model_dump() | cell.model_dump(exclude={"values"}) for cell in self.cells
        ]
        return with_names(pd.DataFrame(rows).astype(_NUMBERS))


def read_description(files: Files) -> SweepDescription:
    """What ``sweep.json`` says, nothing where it is absent; ConfigError where it cannot be used."""
    try:
        return SweepDescription.model_validate_json(files.read(SWEEP_FILE))
    except FileNotFoundError:
        return SweepDescription()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        given = f" {place} is {json.dumps(first['input'])[:60]}:" if place else ""
        raise ConfigError(
            f"{files.where(SWEEP_FILE)}:{given} {first['msg']}; `make sweep` rewrites it."
        ) from None
