"""What the report says of the choice: its table, and the seeds of what to use.

The sentence itself is that of ``analysis.conclusions.choice``.
"""

import pandas as pd

from analysis.number_format import DASH, number, percent
from analysis.report.document import Row, Table
from analysis.report.report_data import SettingData
from analysis.rows.read import is_scored, records
from analysis.rows.scoring import stage_title
from analysis.rows.stages import PANELS


def choice_table(setting: SettingData) -> Table:
    """How likely each activation is the best, and what choosing it may cost."""
    found = setting.choice
    return Table(
        caption="What to use: the probability of being the best activation tested, and the bits per"
        " byte by which it is worse than the best, expected and with a probability of"
        f" {percent(found.level)} at most. A description of these cells, no test.",
        headings=("activation", "best with", "expected loss", "at most"),
        rows=tuple(
            Row(
                (
                    row["label"],
                    percent(row["probability"]),
                    number(row["regret"]),
                    number(row["regret_high"]),
                )
            )
            for row in records(found.table)
        ),
    )


def seed_table(setting: SettingData) -> Table:
    """Every seed of what to use and of the reference: what people post."""
    cells, study = setting.cells, setting.study
    scored = cells[is_scored(cells)]
    stages = [stage for stage in PANELS if scored[stage].notna().any()]
    keys = dict.fromkeys([*([setting.choice.key] if setting.choice.key else []), study.reference])
    rows = []
    for key in keys:
        mine = scored[scored["key"] == key].sort_values(["seed", "replicate"])
        label = study.labels[key]
        for row in records(mine):
            scores = (number(row[stage]) for stage in stages)
            sizes = (row["steps"], row["artifact_bytes"])
            rows.append(Row((label, str(row["seed"]), *scores, *map(_count, sizes))))
        for name, found in (("mean", mine[stages].mean()), ("sd", mine[stages].std(ddof=1))):
            rows.append(Row((label, name, *(number(found[stage]) for stage in stages), DASH, DASH)))
    titles = (stage_title(cells, stage) for stage in stages)
    return Table(
        caption="Every seed of what to use and of the reference, in bits per byte.",
        headings=("activation", "seed", *titles, "steps", "bytes"),
        rows=tuple(rows),
        words=2,
    )


def _count(count: float) -> str:
    return DASH if pd.isna(count) else f"{int(count):,}"
