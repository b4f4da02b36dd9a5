"""What was asked for? Reads ``sweep.json``, which the driver writes before the first cell runs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.rows.names import with_names
from sweep.store.files import Files
from trainer.config.config_errors import ConfigError

SWEEP_FILE = "sweep.json"
_NUMBERS = {"seed": "Int64", "replicate": "Int64", "slope": float, "budget_value": float}
_OF_VALUES = (
    *("activation", "slope", "neg_beta", "seed", "replicate"),
    *("budget_kind", "budget_value", "block", "recipe"),
)
_OF_CELL = ("cell", "cell_id", "params_json", "set_json")
_TYPES: dict[str, tuple[type, str]] = {
    "name": (str, "a text"),
    "reference": (str, "a text"),
    "activations": (list, "a list"),
    "num_cells": (int, "a whole number"),
    "cells": (list, "a list"),
}


def read_facts(files: Files) -> dict[str, Any]:
    """What ``sweep.json`` says, {} where it is absent; ConfigError where it cannot be used."""
    path = files.where(SWEEP_FILE)
    try:
        facts = json.loads(files.read(SWEEP_FILE))
    except FileNotFoundError:
        return {}
    except ValueError as error:  # no JSON, or no text at all
        raise ConfigError(
            f"{path}: this is not JSON ({error}); `make sweep` rewrites it."
        ) from None
    if not isinstance(facts, dict):
        raise ConfigError(f"{path}: this holds {type(facts).__name__}, not an object.")
    for name, (kind, words) in _TYPES.items():
        given = facts.get(name)
        if given is not None and (not isinstance(given, kind) or isinstance(given, bool)):
            raise ConfigError(
                f"{path}: {name} is {json.dumps(given)[:60]}, and {words} is needed;"
                " `make sweep` rewrites it."
            )
    return facts


def planned_cells(facts: Mapping[str, Any], path: str) -> pd.DataFrame | None:
    """One named row per cell that is asked for, in order of execution.

    None where the file does not tell: it is absent, or an older driver wrote it.
    """
    cells: Sequence[Any] = facts.get("cells") or []
    if not cells or not all(isinstance(cell, dict) and "set_json" in cell for cell in cells):
        return None
    try:
        rows = [
            {name: cell["values"][name] for name in _OF_VALUES}
            | {name: cell[name] for name in _OF_CELL}
            for cell in cells
        ]
        return with_names(pd.DataFrame(rows).astype(_NUMBERS))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{path}: cells cannot be read ({type(error).__name__}: {error}); `make sweep`"
            " rewrites it."
        ) from None
