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
# # What have others measured, and does it agree with ours?
#
# Published runs are rows of the same schema (`results/published/`). They stand beside measured ones
# of the same recipe and are never averaged with them; under another recipe only the shape of a
# curve may be compared, not its height.

# %%
# %matplotlib inline
import pandas as pd
from IPython.display import display
from matplotlib import pyplot as plt

from analysis.figures.catalog import draw_or_reason
from analysis.figures.figure_data import FigureData
from analysis.figures.slope_curve import published_handles, published_over
from analysis.published.points import load_published, points_caption, published_points, seed_table
from analysis.rows.read import sweep_place
from analysis.rows.stages import PANELS, title_of
from analysis.study import read_study

pd.options.display.float_format = "{:.4f}".format
pd.options.display.width = 100

# %% tags=["parameters"]
RESULTS, SWEEP = "../../results", "example"

# %% [markdown]
# This sweep, with the published runs of its recipe where there are any.

# %%
study = read_study(sweep_place(RESULTS, SWEEP))
published = load_published()
for setting, one in study.settings.items():
    recipe = one.cells["recipe"].iloc[0]
    points = [published_points(recipe, stage, published) for stage in PANELS]
    for sentence in dict.fromkeys(points_caption(found, recipe) for found in points):
        print(f"{setting}: {sentence}")
    display(draw_or_reason("slope_bpb", FigureData(one)))

# %% [markdown]
# The seeds' tables of three pull requests, from their numbers: mean and standard deviation over n
# runs with a stated seed, rounded as they were printed.

# %%
columns = ["label", "quantity", "n", "seeds", "mean_printed", "sd_printed"]
for pr in (1035, 549, 1176):
    for stack, rows in seed_table(published, pr).groupby("stack", sort=False):
        print(f"PR #{pr}, {stack}")
        display(rows[columns])

# %% [markdown]
# Where others varied the slope most: the runs of one stack at one stage, most of them one seed. One
# seed tells no slope from its neighbour.

# %%
STACKS = (
    ("#549 stack", "post_quant_sliding_bpb"),
    ("SP8192 CaseOps #1938 stack phased TTT", "ttt_bpb"),
)
figure, axes = plt.subplots(1, len(STACKS), figsize=(9, 3.6), layout="constrained")
shown = []
for ax, (stack, stage) in zip(axes, STACKS, strict=True):
    shown.append(published_points(stack, stage, published))
    published_over(shown[-1], ax)
    ax.legend(handles=published_handles(shown[-1]), frameon=False)
    ax.set_title(stack, loc="left", fontsize="small")
    ax.set(xlabel="negative slope s  (β = s²)", ylabel=f"{title_of(stage)} (BPB)")
plt.show()
for (stack, _), points in zip(STACKS, shown, strict=True):
    print(stack)
    display(points[["label", "seed", "n", "value", "pr", "evidence"]])
