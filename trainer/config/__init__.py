"""Recipes: everything that is held constant but the activation, the seed and the budget.

A recipe is a TOML file under ``configs/recipes/``. Every value can be reached as ``section.key``
(``--set optim.matrix_lr=0.03`` on a command line, ``[grid.set]`` in a sweep file), and an unknown
key is an error. Each default is the sound choice, and leaving a key out means the same as writing
its default. What each key does, and which published switch it stands for: docs/recipes.md.
"""

from trainer.config.data import Coprime, Data
from trainer.config.loading import RECIPES, Recipe, data_of, load_recipe, parse_override
from trainer.config.model import Bigram, Model, ValueEmbedding
from trainer.config.quantization import Artifact, Gptq, Quantization
from trainer.config.scoring import TTT, Scoring, Slot
from trainer.config.script import ScriptRecipe
from trainer.config.training import Averaging, Optim, Train

__all__ = [
    "RECIPES",
    "TTT",
    "Artifact",
    "Averaging",
    "Bigram",
    "Coprime",
    "Data",
    "Gptq",
    "Model",
    "Optim",
    "Quantization",
    "Recipe",
    "Scoring",
    "ScriptRecipe",
    "Slot",
    "Train",
    "ValueEmbedding",
    "data_of",
    "load_recipe",
    "parse_override",
]
