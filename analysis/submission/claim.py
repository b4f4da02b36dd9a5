"""What is claimed: the counted runs of one activation, the stage, and what is known of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.models.interval import Estimate, TInterval
from analysis.rows.read import is_scored, records
from analysis.stats.compare import nats_per_bpb
from analysis.study import Study, read_study
from analysis.submission.evidence import Evidence, read_evidence
from sweep.spec.sweep_file import RecordRule
from sweep.store.files import open_files
from trainer.config.config_errors import ConfigError, did_you_mean, validated
from trainer.contract import STAGE_COLUMNS


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a person says of a submission, and what record it is held against."""

    author: str = ""
    github_id: str = ""
    name: str | None = None
    blurb: str = ""
    track: str = "10min_16mb"
    record_bpb: float | None = None
    record_nats: float | None = None  # the sweep's record rule where it is not given
    record_p: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One counted cell: its row, with None for what is null, and what it left."""

    row: Mapping[str, Any]
    evidence: Evidence

    @property
    def seed(self) -> int:
        return int(self.row["seed"])

    @property
    def code_bytes(self) -> int:
        """What the row says, of a packed script as it is packed; else what is in the folder."""
        said = self.row["code_bytes"]
        return self.evidence.num_bytes if said is None else int(said)

    @property
    def total_bytes(self) -> int | None:
        """Model and code; None where the script tells no size of the model."""
        model, total = self.row["model_bytes"], self.row["artifact_bytes"]
        if model is not None:
            return int(model) + self.code_bytes
        return None if total is None else int(total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """``study`` is of one setting; ``faults`` say which evidence cannot be submitted, and why."""

    study: Study
    key: str
    stage: str
    about: About
    runs: tuple[Run, ...]
    faults: tuple[str, ...]

    @property
    def label(self) -> str:
        return self.study.labels[self.key]

    @property
    def name(self) -> str:
        return self.about.name or f"{self.study.sweep.name}_{self.key}"

    @property
    def date(self) -> date:
        """On which the last of the runs ended."""
        ended: date = max(run.row["ended_at"] for run in self.runs).date()
        return ended

    @property
    def score(self) -> Estimate:
        """The claimed score over the seeds."""
        return TInterval()(run.row[self.stage] for run in self.runs)

    @property
    def record_rule(self) -> RecordRule:
        """That of the sweep, but for what was given."""
        given = {"nats": self.about.record_nats, "p": self.about.record_p}
        changed = {name: value for name, value in given.items() if value is not None}
        rule = self.study.sweep.record_rule.model_dump() | changed
        return validated(RecordRule, rule, "record rule")

    @property
    def nats_per_bpb(self) -> float | None:
        return nats_per_bpb(self.study.cells)


def read_claim(
    place: str | Path, key: str, about: About, *, setting: str | None, stage: str | None
) -> Claim:
    """The claim of activation ``key`` of the sweep in ``place``, at the tested stage by default."""
    study = _one_setting(read_study(place), setting)
    keys = [each for each in study.sweep.keys if each in set(study.cells["key"])]
    if key not in keys:
        raise ConfigError(
            f"activation {key!r} is none of this sweep.{did_you_mean(key, keys)}"
            f" Known: {', '.join(keys)}."
        )
    if study.cells["script_sha256"].isna().all():
        raise ConfigError(
            f"sweep {study.sweep.name} ran our own trainer; a submission is made of a sweep over a"
            " script (docs/scripts.md)."
        )
    column = study.primary if stage is None else STAGE_COLUMNS[stage]
    cells = study.cells[is_scored(study.cells) & (study.cells["key"] == key)]
    cells = cells[cells[column].notna()].sort_values(["seed", "replicate"])
    runs, faults, files = [], [], open_files(place)
    for found in records(cells.drop_duplicates("seed")):
        row = {name: None if pd.isna(value) else value for name, value in found.items()}
        try:
            runs.append(Run(row=row, evidence=read_evidence(files, row)))
        except ConfigError as error:
            faults.append(f"seed {row['seed']}: {error}")
    return Claim(
        study=study,
        key=key,
        stage=column,
        about=about,
        runs=tuple(runs),
        faults=tuple(faults),
    )


def _one_setting(study: Study, setting: str | None) -> Study:
    known = list(study.settings)
    if setting is None and len(known) == 1:
        return study
    if setting not in known:
        given = "several settings" if setting is None else f"no setting {setting!r}"
        raise ConfigError(
            f"sweep {study.sweep.name} has {given}: --setting is one of"
            f" {', '.join(map(repr, known))}."
        )
    return study.settings[setting]
