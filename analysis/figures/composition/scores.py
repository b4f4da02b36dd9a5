"""Figures of scores: over the slope, against the reference, deltas, sizes, and what is resolved."""

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from analysis.figures import captions
from analysis.figures.captions import WIDTH_IN, framed
from analysis.figures.figure_data import POWER, FigureData, optional
from analysis.figures.panels import artifact_size, by_slope, power
from analysis.figures.panels import fitted_curve as fit
from analysis.figures.panels.forest import Unranked, forest
from analysis.number_format import capital, counted, listed, number, percent
from analysis.rows.names import labels_of
from analysis.rows.read import Sweep, is_scored, records
from analysis.rows.stages import PANELS, PRIMARY, is_legal, title_of
from analysis.stats.compare import FIELD_NATS
from analysis.stats.per_seed import outcome_counts
from analysis.stats.quantization import with_deltas
from analysis.stats.slopes import learned_slopes
from trainer.config.config_errors import ConfigError


def bpb_by_slope(data: FigureData) -> Figure:
    """The four stages side by side: pre-quant, post-quant, sliding, TTT."""
    cells, curve = data.cells, optional(lambda: data.slope_curve)
    published = optional(lambda: data.published) or {}
    figure = Figure(figsize=(WIDTH_IN, 7.4))
    handles: list[Artist] = list(by_slope.legend_handles(cells, learned=True))
    for ax, stage in zip(figure.subplots(2, 2, sharey="row").flat, PANELS, strict=True):
        by_slope.bpb_by_slope(cells, ax, stage=stage)
        if stage in published:
            fit.published_over(published[stage], ax)
        if curve is not None and stage == curve.quantity:
            fit.fitted_curve(curve, ax)
        ax.label_outer()
    judged = (
        "A band stands for one activation alone; a seed moves all activations together, so they are"
        " compared within seeds (summary.md)."
    )
    learned = "Learned slope: sign(β)·√|β| of the mean β and of mean ± sd over layers and channels."
    remarks = [judged, "" if learned_slopes(cells).empty else learned]
    if curve is not None:
        handles += fit.fit_handles(curve)
        remarks.append(fit.fit_words(curve))
    if published:
        points = pd.concat(published.values())
        handles += fit.published_handles(points)
        remarks.append(_published_words(points, str(cells["budget"].iloc[0])))
    return framed(
        figure,
        [
            captions.marks_and_intervals(cells),
            captions.scoring_windows(cells, PANELS),
            *remarks,
            captions.cells_drawn(cells, data.sweep),
        ],
        handles,
    )


def slope_curve(data: FigureData) -> Figure:
    """The primary stage without what seeds differ by: the fit, and which slopes may be the best."""
    cells, curve = data.cells, data.slope_curve
    figure = Figure(figsize=(WIDTH_IN, 4.8))
    ax = figure.subplots()
    fit.centred_by_slope(cells, ax, quantity=curve.quantity)
    fit.fitted_curve(curve, ax)
    known = by_slope.legend_handles(cells, learned=False)
    handles = [handle for handle in known if handle.get_label() != by_slope.INTERVAL]
    meaning = (
        f"Dots: single seeds, {captions.num_seeds(cells)}, less the effect of the seed in the"
        " additive model of activations and seeds."
    )
    return framed(
        figure,
        [
            captions.recipe_and_budget(cells),
            meaning,
            fit.fit_words(curve),
            captions.scoring_windows(cells, [curve.quantity]),
            captions.cells_drawn(cells, data.sweep),
        ],
        [*handles, *fit.fit_handles(curve)],
    )


def delta(data: FigureData, *, name: str) -> Figure:
    """One entry of ``stages.DELTAS`` over the slope."""
    cells = data.cells
    if not with_deltas(cells).loc[is_scored(cells), name].notna().any():
        raise ConfigError("no cell has both scores")
    figure = Figure(figsize=(WIDTH_IN, 4.6))
    by_slope.quant_delta_by_slope(cells, figure.subplots(), delta=name)
    sign = (
        "Above zero: quantization costs." if name.startswith("quant") else "Below zero is a gain."
    )
    illegal = (
        ""
        if is_legal(cells, name)
        else "SLOT is fitted here on the targets that it scores: no legal score, shown, not ranked."
    )
    return framed(
        figure,
        [
            captions.marks_and_intervals(cells),
            captions.scoring_windows(cells, [name]),
            sign,
            illegal,
            captions.cells_drawn(cells, data.sweep),
        ],
        by_slope.legend_handles(cells, learned=False),
    )


def artifact_bytes(data: FigureData) -> Figure:
    """How large the packed model is at each slope, and how far below the cap."""
    cells = data.cells
    figure = Figure(figsize=(WIDTH_IN, 5.2))
    gauge, sizes = figure.subplots(2, 1, height_ratios=[1, 9])
    artifact_size.cap_gauge(cells, gauge)
    artifact_size.artifact_by_slope(cells, sizes)
    cap = (
        f"Artifact: packed weights and code, 1 kB = 1,000 bytes; dashed: the cap,"
        f" {artifact_size.CAP_BYTES:,} bytes. Above: every artifact on the way from nothing to the"
        " cap."
    )
    return framed(
        figure,
        [captions.marks_and_intervals(cells), cap, captions.cells_drawn(cells, data.sweep)],
        by_slope.legend_handles(cells, learned=False),
    )


def differences(data: FigureData) -> Figure:
    """Forest plot: paired differences from the reference at the primary stage."""
    cells, sweep, rows = data.cells, data.sweep, data.contrasts
    labels = labels_of(cells)
    unranked = _unranked(cells, set(rows["key"]), sweep)
    figure = Figure(figsize=(WIDTH_IN, 1.5 + 0.27 * (len(rows) + 1 + len(unranked)) + 0.9))
    forest(
        rows,
        figure.subplots(),
        reference=labels.get(sweep.reference, sweep.reference),
        paired=optional(lambda: data.paired),
        unranked=unranked,
    )
    first = rows.iloc[0]
    level = percent(first["level"])
    meaning = (
        f"{capital(title_of(PRIMARY))} windows. {_decides(first, level)} Thin, cut where it"
        f" leaves the scale: the {level} t interval of an activation's own pairs alone. Filled:"
        f" resolved from the reference. n: paired seeds.{' ✕: not ranked.' if unranked else ''}"
    )
    rule = f"Dashed: {number(-FIELD_NATS, decimals=3)} nats per token, the field's margin."
    return framed(
        figure,
        [
            captions.recipe_and_budget(cells),
            meaning,
            rule,
            captions.scoring_windows(cells, [PRIMARY]),
            captions.cells_drawn(cells, data.sweep),
        ],
    )


def resolution(data: FigureData) -> Figure:
    """The smallest effect that more or fewer seeds would resolve, and the power of this grid."""
    cells, found = data.cells, data.resolution
    figure = Figure(figsize=(WIDTH_IN, 4.0))
    left, right = figure.subplots(1, 2)
    power.effect_over_seeds(
        found.over_seeds, left, power=POWER, finished=found.here, field_effect=found.field_effect
    )
    power.power_over_effect(found.curve, right, power=POWER, field_effect=found.field_effect)
    first = found.here.iloc[0]
    meaning = (
        f"{capital(title_of(PRIMARY))} windows. Resolved: the simultaneous interval"
        f" ({percent(first['level'])}, {counted(int(first['comparisons']), 'comparison')}) excludes"
        f" zero. Left: the effect that {percent(POWER)} of all sweeps would resolve; right: this"
        f" grid, n = {first['n']} seeds. Noise: its own, sd {number(first['noise_sd'])} bits per"
        " byte within seeds."
    )
    return framed(
        figure,
        [captions.recipe_and_budget(cells), meaning, captions.scoring_windows(cells, [PRIMARY])],
        power.handles(found.curve),
    )


def _published_words(points: pd.DataFrame, budget: str) -> str:
    """What the published points are, and whether their height compares to ours."""
    others = sorted(set(points["budget"]) - {budget})
    words = "Grey and hollow: published runs of this recipe, in no mean and no fit."
    if not others:
        return words
    return f"{words} Budget {listed(others)}: compare their shape, not their height."


def _decides(row: "pd.Series[float]", level: str) -> str:
    """What the thick interval is, or why there is none."""
    if pd.isna(row["noise_sd"]):
        return "No thick interval: so few seeds tell nothing about the noise."
    many = int(row["comparisons"])
    held = f"hold for all {many} comparisons at once" if many > 1 else "are of one comparison"
    noise = f"pooled over the grid, sd {number(row['noise_sd'])}, {row['noise_df']:.0f} df"
    return (
        f"Thick: {level} intervals that {held}, widened for unequal noise; these decide. Pale:"
        f" the same if the noise is alike for all ({noise})."
    )


def _unranked(cells: pd.DataFrame, compared: set[str], sweep: Sweep) -> list[Unranked]:
    """Activations with a diverged seed, in the order of the grid."""
    found = []
    counts = outcome_counts(cells)
    num_seeds = cells.groupby("key")["seed"].nunique()
    for row in records(
        counts.set_index("key").reindex(sweep.keys).dropna(subset=["label"]).reset_index()
    ):
        if row["key"] in compared or row["key"] == sweep.reference:
            continue
        if row["n_diverged"]:
            of = counted(int(num_seeds[row["key"]]), "seed")
            found.append(Unranked(row["label"], f"{int(row['n_diverged'])} of {of} diverged"))
    return found
