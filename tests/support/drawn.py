"""Frames to draw, made by formulas: what the analysis would read from files or compute of cells."""

import numpy as np
import pandas as pd

from analysis.rows.read import is_scored

LAYERS = 4
_NAMES = ["cell_id", "key", "label", "setting", "seed", "replicate"]


def place_of(row):
    """The slope that a cell acts like; 0.48 where it is learned."""
    return 0.48 if pd.isna(row["neg_beta"]) else float(row["neg_beta"]) ** 0.5


def curves_of(cells, *, steps=400, every=100):
    """A loss that falls as a power of the step; a slope moves it late, a seed moves it always."""
    frames = []
    for row in cells[is_scored(cells)].to_dict("records"):
        step = np.arange(1, steps + 1)
        noise = np.random.default_rng([row["seed"], 7]).normal(0, 0.05, steps)
        s = place_of(row)
        own = np.random.default_rng([row["seed"], round(100 * s)]).normal(0, 0.01, steps)
        fall = 2.4 + 4.0 * step**-0.4 + 0.05 * (row["seed"] - 2)
        effect = 0.08 * (s - 0.5) ** 2 * (step / steps) ** 0.5
        loss = fall + effect + noise + own
        checked = (step % every == 0) | (step == steps)
        frames.append(
            pd.DataFrame(
                {
                    **{name: row[name] for name in _NAMES},
                    **{"step": step, "tokens": step * 1024, "train_s": step * 0.1},
                    **{"train_loss": loss, "lr_mult": 1.0},
                    "val_loss": np.where(checked, fall + effect, np.nan),
                    "val_bpb": np.where(checked, (fall + effect) / 1.5, np.nan),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def layers_of(cells):
    """The long table of layers.parquet, each measure a smooth function of slope, layer and seed."""
    rows = []
    for cell in cells[is_scored(cells)].to_dict("records"):
        s, seed = place_of(cell), cell["seed"]
        noise = iter(np.random.default_rng([seed, round(100 * s)]).normal(0, 1, 40 * LAYERS))
        for layer in range(LAYERS):
            values = {"density": 0.3 + 0.4 * s - 0.03 * layer + 0.004 * next(noise)}
            values["negative_fraction"] = 0.6 - 0.1 * s + 0.02 * layer
            if cell["activation"] in ("asqu", "prelu2"):
                spread = 0.06 + 0.02 * layer
                quantiles = {"min": -3, "q05": -1.6, "q25": -0.7, "q50": 0}
                quantiles |= {"q75": 0.7, "q95": 1.6, "max": 3}
                middle = 0.2 + 0.03 * layer + 0.01 * next(noise)
                values |= {f"beta_{q}": middle + z * spread for q, z in quantiles.items()}
            rows += [(cell, "activation", "mlp", layer, *pair) for pair in values.items()]
            for name in ("up_bank", "down_bank", "qo_bank"):
                values = {
                    "kurtosis": 1.5 - s + 0.3 * layer + 0.05 * next(noise),
                    "quant_mse_relative": 0.002 * (1 + 0.5 * s + 0.1 * layer + 0.02 * next(noise)),
                    "code_entropy_bits": 4.1 + 0.2 * s + 0.01 * next(noise),
                    "floored_rows": max(0.0, 0.02 * (1 - s) + 0.001 * next(noise)),
                }
                rows += [(cell, "tensor", name, layer, *pair) for pair in values.items()]
        for name in ("mlp", "attention"):
            rows.append((cell, "class", name, None, "bits_per_weight", 4.2 + 0.2 * s))
    columns = ["kind", "name", "layer", "measure", "value"]
    table = pd.DataFrame([row[1:] for row in rows], columns=columns)
    for name in _NAMES:
        table[name] = [row[0][name] for row in rows]
    return table.astype({"layer": "Int64"})


def contrasts_of(cells, *, reference="leaky_relu2-s0.5", nats_per_bpb=2.08):
    """Rows as of ``contrasts.contrasts``, with intervals of one width."""
    first = cells.iloc[0]
    names = cells[cells["key"] != reference].drop_duplicates("key")
    means = cells[is_scored(cells)].groupby("key")["post_quant_sliding_bpb"].mean()
    rows = names[["setting", "key", "label"]].assign(
        difference=[float(means[key] - means[reference]) for key in names["key"]]
    )
    seeds = int(cells["seed"].nunique())
    half = np.nan if seeds == 1 else 0.004
    rows = rows.assign(
        **{"reference": reference, "n": seeds, "level": 0.95, "comparisons": len(rows)},
        **{"noise_sd": half / 2.5, "noise_df": 20, "half_width": half, "blocks": "seed"},
        unjudged="too few seeds to know the noise" if seeds == 1 else None,
        low=rows["difference"] - half,
        high=rows["difference"] + half,
        nats=rows["difference"] * nats_per_bpb,
        **{"window": first["window"], "stride": first["stride"], "budget": first["budget"]},
    )
    resolved = (rows["difference"].abs() > half).astype("boolean")
    return rows.assign(resolved=resolved.where(rows["low"].notna(), pd.NA))


def paired_of(contrasts):
    """Rows as of ``paired_stats``: wider than the simultaneous intervals, as with few seeds."""
    half = 2 * contrasts["half_width"]
    mean = contrasts["difference"]
    return contrasts[["setting", "key", "label", "n"]].assign(
        mean=mean, low=mean - half, high=mean + half, half_width=half
    )


def published_of(value):
    """Points as of ``published.published_points``: two pull requests, one without a slope."""
    return pd.DataFrame(
        {"key": ["relu2", "leaky_relu2-s0.5", "asqu"], "x": [0.0, 0.5, np.nan]}
        | {"value": [value, value - 0.01, value], "pr": [549, 1035, 1035], "n": [1, 1, 1]}
        | {"budget": ["200 steps"] * 3}
    )
