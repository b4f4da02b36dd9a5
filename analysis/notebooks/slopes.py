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
# # Which slope is best, and how sure is that?
#
# A smooth curve of bits per byte over the negative slope, with an effect of every seed
# (`analysis.conclusions.slope_curve`). Every slope that cannot be told from the lowest one may be
# the best: those are the confidence set. What learns its slope is compared with every fixed one.

# %%
# %matplotlib inline
import pandas as pd
from IPython.display import display

from analysis.conclusions.best_fixed import best_fixed, best_fixed_sentences
from analysis.conclusions.slope_curve import slope_curves
from analysis.costs.axis_survival import axis_survival
from analysis.costs.node_speed import node_effects, node_sentences
from analysis.costs.time_split import time_splits
from analysis.figures.catalog import draw_or_reason
from analysis.figures.figure_data import FigureData
from analysis.rows.read import sweep_place
from analysis.stats.slopes import mean_slopes
from analysis.study import read_study

pd.options.display.float_format = "{:.4f}".format
pd.options.display.width = 100

# %% tags=["parameters"]
RESULTS, SWEEP = "../../results", "example"

# %%
study = read_study(sweep_place(RESULTS, SWEEP))
curves = slope_curves(study, study.primary)
for curve in curves:
    print(curve.sentence())
for sentence in [
    *best_fixed_sentences(study, study.primary),
    *axis_survival(study, study.primary)["sentence"],
]:
    print(sentence)

# %% [markdown]
# The difference of each slope from the reference along the curve, in bits per byte: below zero is
# better. The intervals hold for all slopes at once, and for unequal noise.

# %%
for curve in curves:
    print(curve.setting)
    display(curve.contrasts.set_index("key"))
for one in study.settings.values():
    data = FigureData(one)
    for name in ("slope_curve", "learning_curves", "pace"):
        display(draw_or_reason(name, data))

# %% [markdown]
# What learned its slope, against each fixed one: differences in bits per byte with intervals that
# hold for all comparisons at once. Below it, mean slopes: signed roots of the mean β.

# %%
columns = ["label", "other_label", "n", "difference", "low", "high", "resolved"]
for setting, rows in best_fixed(study, study.primary).groupby("setting", sort=False):
    print(setting)
    display(rows[columns])
display(mean_slopes(study.cells)[["setting", "label", "seed", "mean", "low", "high"]])

# %% [markdown]
# A difference at equal time, split into what is made per step and what by taking more steps; only
# budgets of seconds have it. And the time of a step as a ratio to the reference's, with what nodes
# contribute to it.

# %%
columns = ["label", "n", "total", "per_step", "from_steps", "total_half_width", "method"]
for setting, rows in time_splits(study, study.curves(), study.primary).groupby("setting"):
    print(setting)
    display(rows[columns])
effects = node_effects(study)
for sentence in node_sentences(effects):
    print(sentence)
display(effects[["kind", "label", "n", "effect", "low", "high", "resolved"]])
