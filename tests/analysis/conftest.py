"""A small sweep that never ran: rows with the store's columns and scores made by a formula."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.models import curve_contrasts, unequal_variance
from analysis.planning import power
from analysis.rows.names import with_names
from analysis.rows.read import Sweep
from analysis.rows.stages import PRIMARY
from analysis.study import Study
from sweep.store.schema import SCHEMA

SLOPES = tuple(round(0.1 * i, 1) for i in range(10))
ACTIVATIONS: tuple[tuple[str, float | None], ...] = (
    ("relu2", None),
    *(("leaky_relu2", slope) for slope in SLOPES),
    ("asqu", None),
)
KEYS = ("relu2", *(f"leaky_relu2-s{slope:g}" for slope in SLOPES), "asqu")
SEEDS = (1, 2, 3)
REFERENCE = "leaky_relu2-s0.5"

Row = dict[str, Any]


def make_row(activation: str, slope: float | None, seed: int, **changes: Any) -> Row:
    """A succeeded cell: best near slope 0.5, seeds 0.02 apart, noise of 0.002 bits per byte.

    The noise depends on the function and the seed, so the two names of ReLU² agree bit for bit.
    """
    place = {"relu2": 0.0, "asqu": 0.48}.get(activation, slope or 0.0)
    key = f"{activation}-s{slope:g}" if slope is not None else activation
    noise = np.random.default_rng([seed, round(place * 100)]).normal(0.0, 0.002, 4)
    score = 2.31 + 0.08 * (place - 0.5) ** 2 + 0.02 * (seed - 2) + noise[0]
    artifact = int(412_000 + 3_000 * place + 400 * seed)
    row: Row = dict.fromkeys(SCHEMA.names)
    row |= {
        **{"sweep": "local", "recipe": "local", "cell": f"{key}_seed{seed}_200steps"},
        **{"activation": activation, "slope": slope, "seed": seed, "replicate": 0},
        "cell_id": f"{key}-{seed}",
        "neg_beta": {"relu2": 0.0, "asqu": None}.get(activation, place**2),
        **{"budget_kind": "steps", "budget_value": 200.0, "set_json": "{}"},
        **{"state": "succeeded", "tainted": False, "attempt": 1, "num_attempts": 1},
        **{"steps": 200, "beta_mean": place**2, "beta_std": 0.06 if activation == "asqu" else 0.0},
        **{"val_tokens": 20_000, "val_bytes": 60_000, "window": 128, "stride": 32},
        "pre_quant_bpb": score,
        "post_quant_bpb": score + 0.009 + 0.004 * place + 0.2 * noise[1],
        "post_quant_sliding_bpb": score - 0.031 + 0.2 * noise[2],
        "ttt_bpb": score - 0.052 + 0.2 * noise[3],
        **{"model_bytes": artifact - 50_000, "code_bytes": 50_000, "artifact_bytes": artifact},
        **{"world_size": 1, "device": "cpu", "device_name": "a CPU", "dtype": "float32"},
    }
    return row | changes


def lost(row: Row, state: str, reason: str) -> Row:
    """The same cell without an answer: every score and size is absent."""
    gone = {name: None for name in row if name.endswith(("_bpb", "_loss", "_bytes"))}
    return row | gone | {"state": state, "reason": reason, "beta_mean": None, "beta_std": None}


def make_rows(**changes: Any) -> list[Row]:
    return [make_row(name, slope, seed, **changes) for seed in SEEDS for name, slope in ACTIVATIONS]


def make_frame(rows: list[Row]) -> pd.DataFrame:
    """What ``load_cells`` would give, without the file."""
    types: dict[pa.DataType, Any] = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    return with_names(pa.Table.from_pylist(rows, schema=SCHEMA).to_pandas(types_mapper=types.get))


def make_study(
    rows: list[Row] | pd.DataFrame, *, reference: str = REFERENCE, pairing: str = "seed"
) -> Study:
    """What ``read_study`` would give for the sweep ``local``, without the files."""
    cells = make_frame(rows) if isinstance(rows, list) else rows
    facts = {"name": "local", "keys": KEYS, "num_cells": 36}
    sweep = Sweep(**facts, reference=reference, pairing=pairing)
    return Study(cells=cells, sweep=sweep, reference_reruns=cells.iloc[:0])


def make_graded(
    curve: Callable[[float], float],
    *,
    noise: float = 0.001,
    slopes: Sequence[float] = SLOPES,
    seeds: Sequence[int] = SEEDS,
    asqu: float = 0.0,
) -> Study:
    """Fixed slopes, whose tested scores lie on ``curve``, and ASQU; seeds are 0.02 apart."""
    generator, rows = np.random.default_rng(7), []
    for seed in seeds:
        for slope in (*slopes, None):
            effect = asqu if slope is None else curve(slope)
            score = 1.2 + 0.02 * seed + effect + noise * generator.standard_normal()
            name = "asqu" if slope is None else "leaky_relu2"
            rows.append(make_row(name, slope, seed, **{PRIMARY: score}))
    return make_study(rows)


def write_store(folder: Path, rows: list[Row], *, facts: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "cells.parquet")
    if facts:
        told = {"name": "local", "reference": REFERENCE, "num_cells": 36}
        (folder / "sweep.json").write_text(
            json.dumps({**told, "activations": KEYS, "recipe": "local"}), encoding="utf-8"
        )
    return folder


@pytest.fixture(scope="module")
def few_draws() -> Iterator[None]:
    """Simulate a tenth of each null distribution, where only what is said of the rows is tested."""
    simulated = (
        unequal_variance.null_distribution,
        curve_contrasts.null_distributions,
        power._wider_bound,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unequal_variance, "NUM_DRAWS", 1_999)
        patch.setattr(curve_contrasts, "NUM_DRAWS", 499)
        patch.setattr(power, "DRAWS", 2_000)
        for function in simulated:
            function.cache_clear()
        yield
    for function in simulated:
        function.cache_clear()


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    """12 activations × 3 seeds, all succeeded. Copy a row before changing it."""
    return make_rows()


@pytest.fixture(scope="session")
def rows_with_losses(rows: list[Row]) -> list[Row]:
    """The same sweep with a diverged seed at slope 0.8 and a failed cell at slope 0.3."""
    changed = []
    for row in rows:
        if row["slope"] == 0.8 and row["seed"] == 2:
            row = lost(row, "diverged", "loss is not finite at step 31")
        if row["slope"] == 0.3 and row["seed"] == 3:
            row = lost(row, "failed", "exit status 1")
        changed.append(row)
    return changed


@pytest.fixture(scope="session")
def cells(rows: list[Row]) -> pd.DataFrame:
    return make_frame(rows)


@pytest.fixture(scope="session")
def cells_with_losses(rows_with_losses: list[Row]) -> pd.DataFrame:
    return make_frame(rows_with_losses)


@pytest.fixture(scope="session")
def study(cells: pd.DataFrame) -> Study:
    return make_study(cells)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> Path:
    """The folder of a finished sweep, shared: a test may add derived files, change none."""
    return write_store(tmp_path_factory.mktemp("finished") / "results" / "local", rows)


@pytest.fixture
def store_of(tmp_path: Path) -> Callable[..., Path]:
    """``store_of(rows, facts=True)`` writes another one."""

    def write(rows: list[Row], *, facts: bool = True) -> Path:
        return write_store(tmp_path / "results" / "local", rows, facts=facts)

    return write


def make_layers(frame: pd.DataFrame, *, num_layers: int = 2) -> pd.DataFrame:
    """What ``load_layers`` would give for the succeeded cells of ``frame``, made by a formula.

    The density of an activation falls with its slope, by seed and layer a little; the kurtosis of a
    tensor is noise; the bytes of a class are most of the artifact's; ASQU has quantiles of β.
    """
    parts = []
    for row in frame[frame["state"] == "succeeded"].to_dict("records"):
        slope = 0.48 if pd.isna(row["neg_beta"]) else row["neg_beta"] ** 0.5
        noise = np.random.default_rng([row["seed"], round(1000 * slope), 7])
        found: list[tuple[str, str, int | None, str, float]] = []
        for layer in range(num_layers):
            density = 0.5 - 0.1 * slope + 0.01 * row["seed"] + 0.001 * noise.normal() + 0.02 * layer
            found.append(("activation", "mlp", layer, "density", density))
            found.append(("tensor", "up_bank", layer, "kurtosis", noise.normal()))
            if row["activation"] == "asqu":
                for i, q in enumerate(("min", "q05", "q25", "q50", "q75", "q95", "max")):
                    found.append(("activation", "mlp", layer, f"beta_{q}", 0.1 * (i + layer)))
        found.append(("tensor", "embed", None, "kurtosis", 3.0))
        found.append(("class", "matrix", None, "compressed_bytes", row["model_bytes"] - 9000.0))
        part = pd.DataFrame(found, columns=["kind", "name", "layer", "measure", "value"])
        for at, name in enumerate(("cell_id", "key", "label", "setting", "seed", "replicate")):
            part.insert(at, name, row[name])
        parts.append(part)
    types = {"layer": "Int64", "seed": "Int64", "replicate": "Int64"}
    return pd.concat(parts, ignore_index=True).astype(types)


@pytest.fixture(scope="session")
def layers(cells: pd.DataFrame) -> pd.DataFrame:
    """The measures of layers of ``cells``."""
    return make_layers(cells)
