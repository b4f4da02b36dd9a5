"""Refuse rows that may not be averaged and compared: published, repeated, or of unlike recipes.

Each cell was measured here and is there once, and what a setting's name does not tell (recipe,
text, tokenizer, windows) is the same in all of its scores. What is not so is refused, with the
names: a mean over it would be a number without a meaning.
"""

import pandas as pd

from analysis.number_format import listed
from trainer.config.config_errors import ConfigError

_POINT = ["setting", "key", "seed", "replicate"]
_ALIKE = {
    "recipe_hash": "values of the recipe",
    "corpus_sha256": "texts",
    "tokenizer_sha256": "tokenizers",
    "val_bytes": "sizes of the validation text",
    "val_tokens": "sizes of the validation text",
    "window": "windows",
    "stride": "strides",
    "footing_json": "windows and strides",
}


def check_cells(frame: pd.DataFrame, where: str) -> None:
    """Nothing, if every cell of the named ``frame`` is there once and settings are of one kind."""
    _check_measured(frame, where)
    _check_once(frame, where)
    _check_alike(frame, where)


def _check_measured(frame: pd.DataFrame, where: str) -> None:
    published = frame[(frame["source"] == "published").fillna(False).astype(bool)]
    if len(published):
        raise ConfigError(
            f"{where}: rows that were published and not measured here ({_some(published['cell'])})."
            " They are shown beside a sweep and never ranked with it; keep them in a file of their"
            " own."
        )


def _check_once(frame: pd.DataFrame, where: str) -> None:
    again = frame[frame["cell_id"].duplicated(keep=False)]
    if len(again):
        raise ConfigError(
            f"{where}: more than one row of cell {_some(again['cell'])}, though a cell has one;"
            " delete the file and run `make sweep`, which rebuilds it from the attempts."
        )
    again = frame[frame.duplicated(_POINT, keep=False)].sort_values(_POINT)
    if len(again):
        first = again.iloc[0]
        twins = again[(again[_POINT] == first[_POINT]).all(axis=1)]
        ids = listed(sorted(str(cell_id) for cell_id in twins["cell_id"]))
        raise ConfigError(
            f"{where}: cells {ids} are both {first['label']}, seed {first['seed']}, replicate"
            f" {first['replicate']} of {first['setting']}, so one of them was made with other"
            " values; keep sweeps of unlike recipes or machines in different folders (RESULTS=)."
        )


def _check_alike(frame: pd.DataFrame, where: str) -> None:
    scored = frame[frame["state"] == "succeeded"]
    for setting, rows in scored.groupby("setting"):
        for column, what in _ALIKE.items():
            given = rows.dropna(subset=[column]).drop_duplicates(column)
            if len(given) > 1:
                found = [
                    f"{str(value)[:12]} (as in {cell})"
                    for value, cell in zip(given[column], given["cell"], strict=True)
                ]
                raise ConfigError(
                    f"{where}: setting {setting}: the scores come from {len(given)} {what}:"
                    f" {column} = {listed(found)}. They are not comparable; keep sweeps of unlike"
                    " recipe, data or scoring in different folders (RESULTS=)."
                )


def _some(cells: "pd.Series[str]") -> str:
    names = sorted(set(cells))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
