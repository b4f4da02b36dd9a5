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
# # Does the slope change quantization through the weights?
#
# The trainer measures its layers: how dense activations and weights are, how heavy their tails,
# what quantization does to each tensor. The question was put beforehand (PR #1062): is it density
# that makes quantization cost more? Its three measures are held against the quantization delta and
# the bytes of the artifact. Everything here is **association**: what moves with the slope goes
# together between activations, whether or not one drives the other
# (`analysis.mechanism.associations`).

# %%
# %matplotlib inline
import pandas as pd
from IPython.display import display

from analysis.figures.catalog import draw_or_reason
from analysis.figures.figure_data import FigureData
from analysis.mechanism.associations import association_sentences, associations
from analysis.rows.read import sweep_place
from analysis.study import read_study

pd.options.display.float_format = "{:.4f}".format
pd.options.display.width = 100

# %% tags=["parameters"]
RESULTS, SWEEP = "../../results", "example"

# %%
study = read_study(sweep_place(RESULTS, SWEEP))
layers = study.layers()
for sentence in association_sentences(study, layers):
    print(sentence)

# %% [markdown]
# Every measure against every outcome: the correlation of the effects of activations, seeds taken
# out. `p` holds for all measures of an outcome at once (Holm).

# %%
columns = ["name", "measure", "correlation", "low", "high", "p", "survives", "activations"]
found = associations(study, layers)
for (setting, outcome), rows in found.groupby(["setting", "outcome"], sort=False):
    print(f"{setting}: {outcome}")
    display(rows[columns])

# %% [markdown]
# These measures of each activation: means over its n cells and their layers.

# %%
asked = layers.merge(found[["name", "measure"]].drop_duplicates())
asked = asked.assign(measure=asked["name"] + ": " + asked["measure"])
order = [study.labels[key] for key in study.sweep.keys if key in study.labels]
for setting, rows in asked.groupby("setting", sort=False):
    print(setting)
    means = rows.pivot_table(index="label", columns="measure", values="value")
    display(means.assign(n=rows.groupby("label")["cell_id"].nunique()).reindex(order))

# %%
for one in study.settings.values():
    for name in ("mechanism_delta", "mechanism_layers", "beta_by_layer"):
        display(draw_or_reason(name, FigureData(one)))
