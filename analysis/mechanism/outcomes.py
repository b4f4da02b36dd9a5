"""Which numbers are held against each other, when a measure of the weights meets an outcome?

A cell has one value of a measure, its mean over layers. Replicates of a seed are averaged, and two
names of one function count once: a sweep of ReLU² and LeakyReLU² 0 has one activation at slope 0.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.rows.layers import MEASURE, layer_means
from analysis.rows.read import is_scored, settings
from analysis.rows.stages import windows_of
from analysis.stats.quantization import with_deltas
from analysis.stats.ranking import same_functions


@dataclass(frozen=True, slots=True)
class Problem:
    """One outcome in one setting: a row per function and seed, a column per measure.

    ``cells`` has function, seed, neg_beta, the outcome and the columns of ``names``.
    """

    outcome: str
    cells: pd.DataFrame
    names: Mapping[str, tuple[str, str, str]]  # of the columns of measures: kind, name, measure

    def whole(self, name: str) -> pd.DataFrame:
        """The rows that have both: function, seed, neg_beta and the two."""
        columns = ["function", "seed", "neg_beta", name, self.outcome]
        return self.cells[columns].dropna(subset=[name, self.outcome])

    def facts(self, name: str) -> dict[str, object]:
        """What every result says of its footing, and which measure it is of."""
        first, windows = self.cells.iloc[0], windows_of(self.outcome)
        window = pd.NA if windows is None else first["window"]
        return {
            **{"setting": first["setting"], "quantity": self.outcome, "outcome": self.outcome},
            **{"window": window, "budget": first["budget"]},
            "stride": first["stride"] if windows == "sliding" else window,
            **dict(zip(MEASURE, self.names[name], strict=True)),
        }


def problems(
    frame: pd.DataFrame, layers: pd.DataFrame, outcomes: Iterable[str]
) -> Iterator[Problem]:
    """Every outcome that a setting has, with the measures that any of its cells has."""
    scored, wanted = with_deltas(frame[is_scored(frame)]), tuple(outcomes)
    wide = layer_means(layers).pivot(index="cell_id", columns=MEASURE, values="value")
    wide = wide[sorted(wide.columns)]
    names = {f"measure {i}": triple for i, triple in enumerate(wide.columns)}
    wide.columns = pd.Index(list(names))
    both = scored.merge(wide, left_on="cell_id", right_index=True)
    for setting in settings(both):
        cells = both[both["setting"] == setting]
        here = {name: names[name] for name in names if cells[name].notna().any()}
        for outcome in wanted:
            if cells[outcome].notna().any():
                yield Problem(outcome, _units(cells, [outcome, *here]), here)


def _units(cells: pd.DataFrame, values: Sequence[str]) -> pd.DataFrame:
    """One row per function and seed: replicates averaged, two names of one function once."""
    facts = ["budget", "window", "stride", "neg_beta"]
    groups = [cells["setting"], cells["key"], cells["seed"]]
    means = cells[list(values)].astype(float).groupby(groups).mean()
    # At once: a column at a time, a hundred measures make a frame that pandas warns of.
    units = pd.concat([cells[facts].groupby(groups).first(), means], axis=1).reset_index()
    kept = same_functions(cells, "")
    units = units.assign(function=units["key"].map(kept))
    units = units.assign(is_other=units["key"] != units["function"])
    ordered = units.sort_values(["function", "seed", "is_other"])
    return ordered.drop_duplicates(["function", "seed"])
