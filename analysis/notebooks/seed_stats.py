# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which activation is best, and how sure is that?
#
# The same seed gives every activation the same initial weights and the same order of data, so
# activations are compared **within seeds**. Below: the scores, the differences from the reference,
# and the verdict with an interval that holds for all comparisons at once.

# %%
# %matplotlib inline
from IPython.display import display

from analysis.figures.catalog import draw
from analysis.planning.power import achieved, power_table
from analysis.rows.read import load_cells, load_replicates, load_sweep, settings, sweep_place
from analysis.rows.stages import PANELS, PRIMARY
from analysis.stats.aa_control import aa_sentences
from analysis.stats.compare import contrasts
from analysis.stats.decision import verdicts
from analysis.stats.pairs import correlations, paired_stats
from analysis.stats.per_seed import seed_stats
from analysis.stats.ranking import design_of, with_companions
from analysis.stats.sensitivity import beside_sentences
from analysis.stats.variances import variance_checks

# %% tags=["parameters"]
RESULTS = "../../results"
SWEEP = "local"

# %%
place = sweep_place(RESULTS, SWEEP)
cells = load_cells(place)
sweep = load_sweep(place, cells)
compared = with_companions(cells, load_replicates(place), sweep)  # of a sweep that blocked by node
design = design_of(sweep)

# %%
for setting in settings(cells):
    display(draw("slope_bpb", cells[cells["setting"] == setting], sweep, place=place))

# %% [markdown]
# Bits per byte of each stage: mean, standard deviation, 95 % t interval over seeds.

# %%
columns = ["label", "n", "mean", "sd", "half_width", "window", "stride", "n_diverged", "ranked"]
scores = seed_stats(cells, PANELS)
for (name, quantity), rows in scores.groupby(["setting", "quantity"], sort=False):
    print(f"{name}: {quantity}")
    display(rows.set_index("key").reindex(sweep.keys).dropna(subset=["label"])[columns])

# %% [markdown]
# Differences from the reference within seeds, at the one stage that is judged. First each with the
# interval of its own pairs, then with the noise pooled over activations and an interval that holds
# for all comparisons at once (Dunnett), guarded against unequal noise: docs/statistics.md.

# %%
print(f"{PRIMARY}, reference {sweep.reference}")
display(paired_stats(compared, PRIMARY, sweep.reference, design=design))
found = contrasts(compared, PRIMARY, sweep.reference, design=design)
display(found)

# %%
for setting in found["setting"].unique():
    display(draw("differences", cells[cells["setting"] == setting], sweep, place=place))

# %%
for verdict in verdicts(compared, sweep):
    print(verdict.sentence)
for sentence in [*beside_sentences(compared, sweep), *aa_sentences(cells, sweep)]:
    print(sentence)

# %% [markdown]
# How the differences of two activations go together over seeds (they share the reference), whether
# noise is alike for all, and the smallest difference that this grid resolves.

# %%
display(correlations(compared, PRIMARY, sweep.reference, design=design))
display(variance_checks(compared, PRIMARY, sweep.reference, design=design))
display(power_table(achieved(compared, sweep.reference, blocks=design)))
