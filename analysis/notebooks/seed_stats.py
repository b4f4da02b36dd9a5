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
# activations are compared **within seeds**. First the answer, then what it rests on. What the
# intervals are, and how far they hold: docs/statistics.md.

# %%
# %matplotlib inline
from functools import partial

import pandas as pd
from IPython.display import display

from analysis.conclusions.choice import choices
from analysis.conclusions.contrasts import contrasts
from analysis.conclusions.sensitivity import sensitivity_sentences
from analysis.figures.catalog import draw_or_reason
from analysis.figures.figure_data import FigureData, optional
from analysis.report.answers import answer, shown_words, support_words
from analysis.rows.read import sweep_place
from analysis.rows.stages import PANELS
from analysis.stats.aa_control import aa_sentences
from analysis.stats.per_seed import seed_stats
from analysis.study import read_study

pd.options.display.float_format = "{:.4f}".format
pd.options.display.width = 100

# %% tags=["parameters"]
RESULTS, SWEEP = "../../results", "example"

# %%
study = read_study(sweep_place(RESULTS, SWEEP))
data = {setting: FigureData(one) for setting, one in study.settings.items()}
chosen = choices(study)
for setting, one in data.items():
    found = answer(one.study)
    print(setting)
    print(shown_words(found, optional(partial(getattr, one, "slope_curve"))))
    print(support_words(found))
    print(chosen[setting].sentence())

# %% [markdown]
# Every activation against the reference, best first, at the one stage that is tested: bits per
# byte, below zero is better. The intervals hold for all comparisons at once, and for unequal noise.

# %%
columns = ["n", "difference", "low", "high", "p_value", "resolved", "along_curve"]
print(f"{study.primary}, reference {study.reference}")
for _, rows in contrasts(study).groupby("setting", sort=False):
    display(rows.sort_values("difference").set_index("label")[columns])
for one in data.values():
    display(draw_or_reason("differences", one))

# %% [markdown]
# How likely each is the best, and what choosing it may cost in bits per byte: a description of
# these cells, no test.

# %%
for choice in chosen.values():
    display(choice.table.set_index("label").drop(columns="key"))

# %% [markdown]
# Bits per byte of each stage: mean and standard deviation over n seeds. The spread of seeds moves
# all activations together, so these compare no two of them.

# %%
scores = seed_stats(study.cells, PANELS)
order = [study.labels[key] for key in study.sweep.keys if key in study.labels]
for (setting, quantity), rows in scores.groupby(["setting", "quantity"], sort=False):
    print(f"{setting}: {quantity}, window {rows['window'].max()}, stride {rows['stride'].max()}")
    display(rows.set_index("label").reindex(order)[["n", "mean", "sd", "n_diverged"]])

# %% [markdown]
# What a reader must know in order not to be misled by it.

# %%
for sentence in [*sensitivity_sentences(study), *aa_sentences(study)]:
    print(sentence)
