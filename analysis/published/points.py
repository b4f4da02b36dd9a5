"""Load the table of published results, average it by pull request, pick points for a figure.

``results/published/published.csv`` holds the numbers with their sources; its README says what the
columns mean. A published number is shown beside measured ones of the same recipe and is never
averaged with them; beside another recipe it only goes with ``mixing_sentence``.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.number_format import counted, listed
from analysis.published.published_rows import EVIDENCE, published_frame, published_row
from analysis.rows.stages import STAGES, title_of
from analysis.stats.quantization import with_deltas
from trainer.activations import check_activation
from trainer.config.config_errors import ConfigError

TABLE = Path(__file__).resolve().parents[2] / "results" / "published" / "published.csv"

SEED_QUANTITIES = (
    *("pre_quant_bpb", "post_quant_bpb", "post_quant_sliding_bpb", "ttt_bpb", "slot_bpb"),
    *("quant_delta", "ttt_gain", "slot_gain", "artifact_bytes"),
)
_DECIMALS = {"artifact_bytes": 0}  # else 4, as the tables of the pull requests print

_TEXTS = (
    *("stack", "recipe", "words", "activation", "hardware", "budget_kind"),
    *("delta_against", "citation", "notes"),
)
_COUNTS = ("pr", "quoted_by", "seed", "steps", "artifact_bytes", "window", "stride")
_SCORES = ("pre_quant_bpb", "post_quant_bpb", "post_quant_sliding_bpb", "ttt_bpb", "slot_bpb")
_REALS = ("budget_value", "delta_bpb", *_SCORES)
_DERIVED = ("slope", "neg_beta")  # follow from the activation; in the file for its readers
_COLUMNS = (*_TEXTS, *_COUNTS, *_REALS, *_DERIVED, "params_json", "evidence")

_TABLE_COLUMNS = (
    *("stack", "key", "label", "quantity", "n", "seeds"),
    *("mean", "sd", "mean_printed", "sd_printed"),
)
_POINT_COLUMNS = (
    *("key", "label", "slope", "neg_beta", "x", "value", "pr", "seed", "n", "evidence"),
    *("hardware", "stage", "recipe", "stack", "budget", "window", "stride", "citation", "notes"),
)


def load_published(path: Path = TABLE) -> pd.DataFrame:
    """One row per published run, with the columns of ``analysis.published.published_rows``."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            _check_header(reader.fieldnames or (), path)
            rows = [_row(line, f"{path}, line {reader.line_num}") for line in reader]
    except OSError as error:
        raise ConfigError(f"{path}: this cannot be read ({error.strerror}).") from None
    return published_frame(rows)


def seed_table(frame: pd.DataFrame, pr: int) -> pd.DataFrame:
    """What the runs of a pull request average to, one row per stack, activation and quantity.

    ``mean`` and ``sd`` (over ``n`` runs with a stated seed; null for one) of every quantity of
    ``SEED_QUANTITIES`` that is there, and ``mean_printed`` and ``sd_printed``, rounded as in the
    tables of the pull requests: scores to 4 decimals, bytes to whole ones. Runs that the pull
    request only quotes are part of its table. ``seeds`` are those of the runs, in order.
    """
    runs = with_deltas(of_pull_request(frame, pr))
    rows: list[dict[str, object]] = []
    for (stack, key, label), group in runs.groupby(["stack", "key", "label"], sort=False):
        for quantity in SEED_QUANTITIES:
            known = group.dropna(subset=[quantity, "seed"])
            values = known[quantity].astype(float)
            if values.empty:
                continue
            decimals = _DECIMALS.get(quantity, 4)
            mean, sd = float(values.mean()), float(values.std(ddof=1))
            rows.append(
                {"stack": stack, "key": key, "label": label, "quantity": quantity}
                | {
                    "n": len(values),
                    "seeds": tuple(map(int, known["seed"])),
                    "mean": mean,
                    "sd": sd,
                }
                | {"mean_printed": round(mean, decimals), "sd_printed": round(sd, decimals)}
            )
    return pd.DataFrame(rows, columns=list(_TABLE_COLUMNS))


def of_pull_request(frame: pd.DataFrame, pr: int) -> pd.DataFrame:
    """The runs that a pull request published or quotes; a ConfigError if there is none."""
    runs = frame[(frame["pr"] == pr) | (frame["quoted_by"] == pr).fillna(False)]
    if runs.empty:
        known = ", ".join(str(number) for number in sorted(frame["pr"].unique()))
        raise ConfigError(f"no run of PR #{pr} is known. Known: {known}.")
    return runs


def published_points(
    recipe: str, stage: str, frame: pd.DataFrame | None = None, *, kind: str | None = None
) -> pd.DataFrame:
    """The published runs with a score at ``stage``, to be drawn under a curve of ``recipe``.

    ``recipe`` is one of ours, and then only runs of that very recipe are points; or a ``stack`` of
    the table, for runs that are of none of ours. Without such runs the frame is empty. ``kind``
    leaves only runs under a budget of ``steps`` or of ``seconds``. ``frame`` is the table where not
    given.

    One row per run: ``x`` = √β is its place on the slope axis, null where β is not fixed (or not
    known); ``n`` counts the points of that stack, activation and budget.
    """
    if stage not in STAGES:
        raise ConfigError(f"stage {stage!r} is not known. Known: {', '.join(STAGES)}.")
    runs = load_published() if frame is None else frame
    ours = (runs["recipe"] == recipe) & (runs["set_json"].fillna("{}") == "{}")
    runs = runs[(ours | (runs["stack"] == recipe)).fillna(False).astype(bool)]
    if kind is not None:
        runs = runs[runs["budget_kind"] == kind]
    runs = runs.assign(value=_value(runs, stage), stage=stage).dropna(subset=["value"])
    group = runs.groupby(["setting", "key"])
    stride = runs["stride"] if STAGES[stage].windows == "sliding" else runs["window"]
    return runs.assign(
        stride=stride,
        x=runs["neg_beta"].astype(float) ** 0.5,
        n=group["value"].transform("size").astype(int),
        evidence=runs["evidence_class"],
    )[list(_POINT_COLUMNS)].reset_index(drop=True)


def mixing_sentence(points: pd.DataFrame, recipe: str) -> str | None:
    """What must be said where ``points`` are drawn beside a curve of ``recipe``; None if nothing.

    Points of another recipe, or of none of ours, show a shape; their height compares to nothing.
    """
    other = points[(points["recipe"] != recipe).fillna(True).astype(bool)]
    if other.empty:
        return None
    prs: dict[str, list[str]] = {}
    for row in other[["recipe", "stack", "pr"]].drop_duplicates().itertuples():
        name = str(row.stack if pd.isna(row.recipe) else row.recipe)
        prs[name] = [*prs.get(name, []), f"PR #{row.pr}"]
    number = counted(len(other), "published point is", "published points are")
    return (
        f"{number} of {listed([f'{name} ({listed(of)})' for name, of in prs.items()])} and not of"
        f" {recipe}: conditions differ, so their shape may be compared and their height may not."
    )


def points_caption(points: pd.DataFrame, recipe: str) -> str:
    """The sentences that go with points in a figure: whose, at which stage, on what evidence."""
    if points.empty:
        return f"No published run of {recipe} has this score."
    prs = sorted({int(pr) for pr in points["pr"]})
    classes = [name for name in EVIDENCE if (points["evidence"] == name).any()]
    stage = title_of(str(points["stage"].iloc[0]))
    said = (
        f"Open marks: {counted(len(points), 'published run')} of"
        f" {listed([f'PR #{pr}' for pr in prs])}, {stage}, not averaged with ours"
        f" (evidence: {', '.join(classes)})."
    )
    mixing = mixing_sentence(points, recipe)
    return said if mixing is None else f"{said} {mixing}"


def _value(runs: pd.DataFrame, stage: str) -> "pd.Series[float]":
    """The score; windows one stride apart of their own length are contiguous, by definition."""
    value = runs[stage].astype(float)
    if STAGES[stage].windows == "sliding" and not STAGES[stage].adapted:
        contiguous = runs[stage.replace("_sliding", "")].astype(float)
        alike = (runs["window"] == runs["stride"]).fillna(False).astype(bool)
        value = value.fillna(contiguous.where(alike))
    return value


def _check_header(found: Sequence[str], path: Path) -> None:
    missing, unknown = set(_COLUMNS) - set(found), set(found) - set(_COLUMNS)
    if missing or unknown:
        raise ConfigError(
            f"{path}, line 1: columns missing: {', '.join(sorted(missing)) or 'none'}; unknown:"
            f" {', '.join(sorted(map(str, unknown))) or 'none'}."
        )


def _row(line: Mapping[str, str], where: str) -> dict[str, Any]:
    """A line of the table as a row; a ConfigError names what is wrong with it."""
    if None in line or None in line.values():
        raise ConfigError(f"{where}: this line has more or fewer fields than the first one.")
    try:
        texts = {name: line[name] or None for name in _TEXTS}
        counts = {name: int(line[name]) if line[name] else None for name in _COUNTS}
        reals = {name: float(line[name]) if line[name] else None for name in _REALS}
        params = json.loads(line["params_json"] or "{}")
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {error}.") from None
    if line["evidence"] not in EVIDENCE:
        known = ", ".join(EVIDENCE)
        raise ConfigError(f"{where}: evidence {line['evidence']!r} is not known. Known: {known}.")
    if not texts["citation"]:
        raise ConfigError(f"{where}: there is no source.")
    _check_activation(texts["activation"], params, where)
    row = published_row(
        **texts,
        **counts,
        **reals,
        params=params,
        evidence_class=line["evidence"],
        same=texts["citation"],
        set_json="{}",
    )
    for name in _DERIVED:
        if not _alike(row[name], line[name]):
            raise ConfigError(f"{where}: {name} is {line[name]!r}, the activation has {row[name]}.")
    return row


def _check_activation(name: str | None, params: Mapping[str, float], where: str) -> None:
    if name is None:
        return
    try:
        check_activation(name, params)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _alike(value: float | None, text: str) -> bool:
    """Whether ``text`` writes ``value``, which is a float's rounding away from the decimal one."""
    if value is None or not text:
        return value is None and not text
    return math.isclose(value, float(text), rel_tol=1e-12)
