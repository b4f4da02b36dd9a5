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
# The trainer measures its layers: how often pre-activations are negative, how dense activations and
# weights are, how heavy their tails, what quantization does to each tensor, how many bits a code
# carries. Each measure is held against the quantization delta and the bytes of the artifact.
# Everything here is **association**: what moves with the slope goes together between activations,
# whether or not one drives the other (`analysis.mechanism.measures`).

# %%
# %matplotlib inline
from IPython.display import display

from analysis.figures.catalog import draw
from analysis.mechanism.measures import (
    beta_by_layer,
    layer_table,
    mechanism_sentences,
    relations,
    slope_relations,
)
from analysis.rows.read import load_cells, load_layers, load_sweep, settings, sweep_place

# %% tags=["parameters"]
RESULTS = "../../results"
SWEEP = "local"

# %%
place = sweep_place(RESULTS, SWEEP)
cells = load_cells(place)
sweep = load_sweep(place, cells)
layers = load_layers(place, cells)
for sentence in mechanism_sentences(cells, layers):
    print(sentence)

# %% [markdown]
# What is to be explained: the quantization delta at each slope.

# %%
for setting in settings(cells):
    display(draw("quant_delta", cells[cells["setting"] == setting], sweep))

# %% [markdown]
# Every measure against every outcome. `between` is the correlation of the effects of activations,
# seeds taken out; `p` holds for all measures of an outcome at once (Holm). `within` is what is left
# after seed and activation: no slope can be behind it.

# %%
columns = ["kind", "name", "measure", "between", "between_low", "between_high", "p", "survives"]
columns += ["within", "p_within", "n", "activations", "reason"]
found = relations(cells, layers)
for (setting, outcome), rows in found.groupby(["setting", "outcome"], sort=False):
    print(f"{setting}: {outcome}")
    display(rows[columns].sort_values("p"))

# %% [markdown]
# What the slope says of the quantization delta alone (`share`, partial R² within seeds), and what
# it says beyond a measure that is held fixed (`share_given`).

# %%
display(slope_relations(cells, layers, ["quant_delta"]))

# %% [markdown]
# The measures by layer, mean and t interval over seeds, and the quantiles of what learned its β.

# %%
display(layer_table(cells, layers))
display(beta_by_layer(layers))
