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
    is_published = (frame["source"] == "published").fillna(False).astype(bool)
    if is_published.any():
        published = frame.loc[is_published, "cell"]
        raise ConfigError(
            f"{where}: rows that were published and not measured here ({_some(published)})."
            " They are shown beside a sweep and never ranked with it; keep them in a file of their"
            " own."
        )


def _check_once(frame: pd.DataFrame, where: str) -> None:
    again = frame["cell_id"].duplicated(keep=False)
    if again.any():
        cells = frame.loc[again, "cell"]
        raise ConfigError(
            f"{where}: more than one row of cell {_some(cells)}, though a cell has one;"
            " delete the file and run `make sweep`, which rebuilds it from the attempts."
        )
    again = frame.duplicated(_POINT, keep=False)
    if again.any():
        repeated = frame[again].sort_values(_POINT)
        first = repeated.iloc[0]
        twins = repeated[(repeated[_POINT] == first[_POINT]).all(axis=1)]
        ids = listed(sorted(str(cell_id) for cell_id in twins["cell_id"]))
        raise ConfigError(
            f"{where}: cells {ids} are both {first['label']}, seed {first['seed']}, replicate"
            f" {first['replicate']} of {first['setting']}, so one of them was made with other"
            " values; keep sweeps of unlike recipes or machines in different folders (RESULTS=)."
        )


def _check_alike(frame: pd.DataFrame, where: str) -> None:
    scored = frame[["setting", "cell", *_ALIKE]][frame["state"] == "succeeded"]
    for setting, rows in scored.groupby("setting"):
        for column, what in _ALIKE.items():
            given: dict[object, str] = {}
            for value, cell in zip(rows[column], rows["cell"], strict=True):
                if pd.notna(value):
                    given.setdefault(value, cell)
            if len(given) > 1:
                found = [f"{str(value)[:12]} (as in {cell})" for value, cell in given.items()]
                raise ConfigError(
                    f"{where}: setting {setting}: the scores come from {len(given)} {what}:"
                    f" {column} = {listed(found)}. They are not comparable; keep sweeps of unlike"
                    " recipe, data or scoring in different folders (RESULTS=)."
                )


def _some(cells: "pd.Series[str]") -> str:
    names = sorted(set(cells))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
