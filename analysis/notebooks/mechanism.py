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
from IPython.display import display

from analysis.figures.catalog import draw, draw_or_reason
from analysis.figures.figure_data import FigureData
from analysis.mechanism.associations import association_sentences, associations
from analysis.rows.read import sweep_place
from analysis.study import read_study

# %% tags=["parameters"]
RESULTS = "../../results"
SWEEP = "local"

# %%
study = read_study(sweep_place(RESULTS, SWEEP))
layers = study.layers()
for sentence in association_sentences(study, layers):
    print(sentence)

# %% [markdown]
# What is to be explained: the quantization delta at each slope.

# %%
for one in study.settings.values():
    display(draw("quant_delta", FigureData(one)))

# %% [markdown]
# Every measure against every outcome: the correlation of the effects of activations, seeds taken
# out. `p` holds for all measures of an outcome at once (Holm).

# %%
columns = ["kind", "name", "measure", "correlation", "low", "high", "p", "survives"]
columns += ["n", "activations", "reason"]
found = associations(study, layers)
for (setting, outcome), rows in found.groupby(["setting", "outcome"], sort=False):
    print(f"{setting}: {outcome}")
    display(rows[columns])

# %% [markdown]
# The measures by layer, mean and standard deviation over n cells, and the quantiles of what learned
# its β.

# %%
by = ["setting", "label", "kind", "name", "measure", "layer"]
display(layers.groupby(by, sort=False, dropna=False)["value"].agg(["count", "mean", "std"]))
for one in study.settings.values():
    for name in ("mechanism_layers", "beta_by_layer"):
        display(draw_or_reason(name, FigureData(one)))
