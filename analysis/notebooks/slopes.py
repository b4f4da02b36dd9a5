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
# A smooth curve of bits per byte over the negative slope, with the seed as a block
# (`analysis.stats.slope_curve`). Every slope that cannot be told from the lowest one may be the
# best: those are the confidence set. What learns its slope is compared with every fixed one.

# %%
# %matplotlib inline
from IPython.display import display

from analysis.costs.axis_survival import axis_survival
from analysis.costs.node_speed import node_effects
from analysis.costs.time_split import time_splits
from analysis.figures.catalog import draw_or_reason
from analysis.figures.figure_data import FigureData
from analysis.rows.read import sweep_place
from analysis.stats.best_fixed import best_fixed
from analysis.stats.slope_curve import slope_curves
from analysis.stats.slopes import mean_slopes
from analysis.study import read_study

# %% tags=["parameters"]
RESULTS = "../../results"
SWEEP = "local"

# %%
study = read_study(sweep_place(RESULTS, SWEEP))

# %%
for curve in slope_curves(study, study.primary):
    print(curve.sentence())
for sentence in axis_survival(study, study.primary)["sentence"]:
    print(sentence)

# %%
for one in study.settings.values():
    data = FigureData(one)
    for name in ("slope_bpb", "learning_curves", "pace"):
        display(draw_or_reason(name, data))

# %% [markdown]
# What learned its slope, against each fixed one: differences in bits per byte with intervals that
# hold for all comparisons at once. Below it, mean slopes: signed roots of the mean β.

# %%
columns = ["setting", "label", "other_label", "n", "difference", "low", "high", "resolved"]
display(best_fixed(study, study.primary)[[*columns, "beats_all", "beaten_by_any"]])
display(mean_slopes(study.cells))

# %% [markdown]
# A difference at equal time, split into what is made per step and what by taking more steps; and
# the time of a step, with what nodes contribute to it. Only budgets of seconds have the former.

# %%
display(time_splits(study, study.curves(), study.primary))
display(node_effects(study))
