"""Simulated sweeps of known truth, as rows of the store.

score = level + activation + seed + node + noise, in bits per byte. The cells are those of the sweep
file ``local``, with the columns and types of a store. The primary score stands for the one before
quantization too; after it each has a cost, of a seed and of noise that are its own, and the same
for all activations on average. Many sweeps come in one frame, each as a setting of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from analysis.planning.power_tables import grid_cells
from analysis.rows.names import with_names
from analysis.rows.stages import PRIMARY
from analysis.stats.ranking import same_functions
from sweep.spec.sweep_file import load_sweep
from sweep.store.schema import SCHEMA

SWEEP = load_sweep("local")
REFERENCE = SWEEP.reference
KEYS = tuple(activation.label for activation in SWEEP.expanded_activations())
FUNCTIONS = tuple(key for key in KEYS if key != "leaky_relu2-s0")  # it is ReLU²
NUM_FUNCTIONS = len(FUNCTIONS)
NOISE_SD, SEED_SD = 0.0005, 0.0007  # BPB, as published: docs/statistics.md
COST, COST_NOISE_SD, COST_SEED_SD = 0.01, 0.0003, 0.0003  # of quantization, BPB
VAL_TOKENS, VAL_BYTES = 41_000, 100_000
_LEVEL = 2.3
PANDAS_TYPES = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The truth of a simulated sweep; sd and effects in BPB.

    ``effects``: difference from the reference by key, 0 where absent. ``noise_factors``: times the
    noise of the others. ``node_sd``: of nodes, of which ``num_nodes`` share a sweep at random, cell
    by cell, or with ``whole_blocks`` seed by seed.
    ``missing``: probability that a cell has failed. ``tail_df``: noise from Student's t of so many
    degrees of freedom (scaled to its sd), None for normal noise. ``keys``: activations that it has.
    """

    num_seeds: int = 3
    effects: Mapping[str, float] = field(default_factory=dict)
    noise_sd: float = NOISE_SD
    seed_sd: float = SEED_SD
    noise_factors: Mapping[str, float] = field(default_factory=dict)
    node_sd: float = 0.0
    num_nodes: int = 1
    whole_blocks: bool = False
    missing: float = 0.0
    tail_df: int | None = None
    keys: tuple[str, ...] = KEYS

    def effect(self, key: str) -> float:
        return self.effects.get(key, 0.0)


def simulated(world: World, num_sweeps: int, rng: np.random.Generator) -> pd.DataFrame:
    """``num_sweeps`` sweeps of ``world`` in one frame, each a setting: ``…, sweep = i``."""
    cells = _cells(world.num_seeds, world.keys)
    size = len(cells)
    frame = cells.loc[np.tile(np.arange(size), num_sweeps)].reset_index(drop=True)
    which = np.repeat(np.arange(num_sweeps), size)
    names = frame["setting"].to_numpy(dtype=object) + np.array([f", sweep = {i}" for i in which])
    nodes_NC = rng.integers(world.num_nodes, size=(num_sweeps, size))
    if world.whole_blocks:
        nodes_NC = nodes_NC[:, pd.factorize(cells["seed"])[0]]
    scores_NC = _scores(world, cells, nodes_NC, rng)
    failed = rng.random(frame.shape[0]) < world.missing
    of_cost = replace(world, effects={}, node_sd=0.0, noise_sd=COST_NOISE_SD, seed_sd=COST_SEED_SD)
    cost_NC = COST + _scores(of_cost, cells, nodes_NC, rng.spawn(1)[0]) - _LEVEL
    told = {PRIMARY: scores_NC, "pre_quant_bpb": scores_NC, "post_quant_bpb": scores_NC + cost_NC}
    return frame.assign(
        setting=names,
        state=np.where(failed, "failed", "succeeded"),
        node=np.char.add("node-", nodes_NC.ravel().astype(str)),
        **{name: np.where(failed, np.nan, found_NC.ravel()) for name, found_NC in told.items()},
    )


def simulated_scores(
    world: World, num_sweeps: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """N sweeps × S seeds × F functions, in the order of ``FUNCTIONS``; NaN where a cell failed."""
    shape = num_sweeps, world.num_seeds, NUM_FUNCTIONS
    nodes = rng.integers(world.num_nodes, size=shape)
    if world.whole_blocks:
        nodes[:] = nodes[:, :, :1]
    of_node_NM = rng.normal(0.0, world.node_sd, (num_sweeps, world.num_nodes))
    scores_NSF = _function_scores(world, FUNCTIONS, num_sweeps, rng)
    scores_NSF += np.take_along_axis(of_node_NM, nodes.reshape(num_sweeps, -1), 1).reshape(shape)
    return np.where(rng.random(shape) < world.missing, np.nan, scores_NSF)


def _scores(
    world: World, cells: pd.DataFrame, nodes_NC: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """N sweeps × C cells. Two names of one function get one score, as on one CPU."""
    stands_for = same_functions(cells, REFERENCE)
    functions = tuple(sorted(set(stands_for.values())))
    function_C = np.array([functions.index(stands_for[key]) for key in cells["key"]])
    seed_C = pd.factorize(cells["seed"])[0]
    scores_NSF = _function_scores(world, functions, len(nodes_NC), rng)
    of_node_NM = rng.normal(0.0, world.node_sd, (len(nodes_NC), world.num_nodes))
    return scores_NSF[:, seed_C, function_C] + np.take_along_axis(of_node_NM, nodes_NC, axis=1)


def _function_scores(
    world: World, functions: tuple[str, ...], num_sweeps: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """N sweeps × S seeds × F functions, without what nodes add."""
    noise_NSF = _noise(world, (num_sweeps, world.num_seeds, len(functions)), rng)
    noise_NSF *= [world.noise_factors.get(key, 1.0) for key in functions]
    seeds_NS1 = rng.normal(0.0, world.seed_sd, (num_sweeps, world.num_seeds, 1))
    return _LEVEL + np.array([world.effect(key) for key in functions]) + seeds_NS1 + noise_NSF


def _noise(world: World, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    if world.tail_df is None:
        return rng.normal(0.0, world.noise_sd, shape)
    scale = np.sqrt((world.tail_df - 2) / world.tail_df)
    return world.noise_sd * scale * rng.standard_t(world.tail_df, shape)


@lru_cache
def _cells(num_seeds: int, keys: tuple[str, ...]) -> pd.DataFrame:
    cells = _all_cells(num_seeds)
    return cells[cells["key"].isin(keys)].reset_index(drop=True)


@lru_cache
def _all_cells(num_seeds: int) -> pd.DataFrame:
    """The finished cells of the sweep, with the columns and types that ``load_cells`` gives."""
    sweep = SWEEP.model_copy(update={"seeds": list(range(1, num_seeds + 1))})
    planned = grid_cells(sweep).assign(
        state="succeeded",
        tainted=False,
        val_tokens=VAL_TOKENS,
        val_bytes=VAL_BYTES,
        source="simulated",
        attempt=1,
        num_attempts=1,
    )
    rows = planned[list(SCHEMA.names)].astype(object)
    rows = rows.where(rows.notna(), None)
    table = pa.Table.from_pandas(rows, schema=SCHEMA, preserve_index=False)
    return with_names(table.to_pandas(types_mapper=PANDAS_TYPES.get))
