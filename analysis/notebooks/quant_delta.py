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
# # What does quantization cost each activation?
#
# Every cell is scored before and after its weights went through the quantizer, in the same windows.
# The **quantization delta** is post-quant − pre-quant, in bits per byte: above zero is a loss. The
# **gain by test-time training** is TTT − post-quant in the same sliding windows: below zero is a
# gain. Scores in different windows are never subtracted: `analysis.rows.stages` refuses.

# %%
# %matplotlib inline
import pandas as pd
from IPython.display import display

from analysis.conclusions.stage_interaction import stage_sentences
from analysis.figures.catalog import draw_or_reason
from analysis.figures.figure_data import FigureData
from analysis.rows.read import sweep_place
from analysis.stats.compare import compare
from analysis.stats.quantization import CHANGES, delta_stats, with_deltas
from analysis.study import read_study

pd.options.display.float_format = "{:.4f}".format
pd.options.display.width = 100

# %% tags=["parameters"]
RESULTS, SWEEP = "../../results", "example"

# %% [markdown]
# Whether quantization costs all activations the same is the second question that is tested, with an
# error rate of its own; and whether the activation that is lowest before is lowest after too.

# %%
study = read_study(sweep_place(RESULTS, SWEEP))
for sentence in stage_sentences(study):
    print(sentence)

# %% [markdown]
# How far each activation's delta is from the reference's, within seeds, with intervals that hold
# for all comparisons at once. Of TTT it is described, not tested.

# %%
columns = ["n", "difference", "low", "high", "p_value", "resolved"]
for name in CHANGES:
    for setting, rows in compare(study.derive(with_deltas), name).groupby("setting", sort=False):
        print(f"{setting}: {name}, reference {study.reference}")
        display(rows.sort_values("difference").set_index("label")[columns])

# %%
for one in study.settings.values():
    for name in ("quant_delta", "ttt_gain", "slot_gain", "artifact_bytes"):
        display(draw_or_reason(name, FigureData(one)))

# %% [markdown]
# The deltas themselves: mean, standard deviation and 95 % t interval over seeds, no narrower than
# that of the spread that all activations share. `ranked` is false where a seed diverged: the mean
# is then over survivors.

# %%
columns = ["n", "mean", "sd", "half_width", "n_diverged", "ranked"]
order = [study.labels[key] for key in study.sweep.keys if key in study.labels]
deltas = delta_stats(study.cells)
for (setting, quantity), rows in deltas.groupby(["setting", "quantity"], sort=False):
    print(f"{setting}: {quantity}, window {rows['window'].max()}, stride {rows['stride'].max()}")
    display(rows.set_index("label").reindex(order)[columns])
