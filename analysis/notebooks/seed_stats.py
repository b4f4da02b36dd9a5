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
from analysis.figures.figure_data import FigureData
from analysis.planning.power_tables import achieved, power_table
from analysis.rows.read import sweep_place
from analysis.rows.stages import PANELS
from analysis.stats.aa_control import aa_sentences
from analysis.stats.contrasts import contrasts
from analysis.stats.decision import decide
from analysis.stats.pairs import paired_stats
from analysis.stats.per_seed import seed_stats
from analysis.stats.sensitivity import sensitivity_sentences
from analysis.stats.variances import variance_checks
from analysis.study import read_study

# %% tags=["parameters"]
RESULTS = "../../results"
SWEEP = "local"

# %%
study = read_study(sweep_place(RESULTS, SWEEP))

# %%
data = {setting: FigureData(one) for setting, one in study.settings.items()}
for one in data.values():
    display(draw("slope_bpb", one))

# %% [markdown]
# Bits per byte of each stage: mean and standard deviation over seeds. The spread of seeds moves all
# activations together, so these compare no two of them; the differences below do.

# %%
columns = ["label", "n", "mean", "sd", "window", "stride", "n_diverged", "ranked"]
scores = seed_stats(study.cells, PANELS)
for (name, quantity), rows in scores.groupby(["setting", "quantity"], sort=False):
    print(f"{name}: {quantity}")
    display(rows.set_index("key").reindex(study.sweep.keys).dropna(subset=["label"])[columns])

# %% [markdown]
# Differences from the reference within seeds, at the one stage that is tested. First each with the
# interval of its own pairs, then with the noise pooled over activations and an interval that holds
# for all comparisons at once (Dunnett), widened where noise is unequal: docs/statistics.md.

# %%
print(f"{study.primary}, reference {study.reference}")
display(paired_stats(study, study.primary))
found = contrasts(study)
display(found)

# %%
for setting in found["setting"].unique():
    display(draw("differences", data[setting]))

# %%
for decision in decide(study):
    print(decision.sentence)
for sentence in [*sensitivity_sentences(study), *aa_sentences(study)]:
    print(sentence)

# %% [markdown]
# Whether noise is alike for all, and the smallest difference that this grid resolves.

# %%
display(variance_checks(study, study.primary))
display(power_table(achieved(study)))
