"""Specifications of cells that run small scripts, written in the test."""

import textwrap
from typing import Any

from trainer.config import ScriptRecipe
from trainer.contract import ScriptSpec

MAIN = "train.py"
ENV = {"SEED": "{seed}", "SLOPE": "{slope}", "ITERATIONS": "{steps}"}
READ = {"forms": ["parameter-golf"], "post_quant": {"label": "final_int6_roundtrip_exact"}}


def script_recipe(
    source: str, *, read: Any = READ, packed: str | None = None, **script: Any
) -> ScriptRecipe:
    """A recipe of the script ``source``; further keys are those of ``[script]``."""
    return ScriptRecipe.model_validate(
        {
            "data": {"dataset": "some-text", "vocab_size": 512},
            "script": {"path": MAIN, "env": ENV, "read": read, **script},
            "sources": {MAIN: textwrap.dedent(source)},
            "packed": packed,
        }
    )


def script_spec(
    source: str,
    *,
    seed: int = 42,
    slope: float | None = 0.5,
    budget: str = "4steps",
    ranks: int = 1,
    data_dir: str = "data/some-text",
    axes: dict[str, Any] | None = None,
    activation: dict[str, Any] | None = None,
    **recipe: Any,
) -> ScriptSpec:
    """A cell of LeakyReLU² with ``slope``, or of ``activation``."""
    default = {"name": "leaky_relu2", "params": {"slope": slope}}
    return ScriptSpec.model_validate(
        {
            "recipe_name": "mine",
            "recipe": script_recipe(source, **recipe),
            "activation": activation or default,
            "seed": seed,
            "budget": budget,
            "device": "cpu",
            "data_dir": data_dir,
            "corpus_sha256": "a" * 64,
            "tokenizer_sha256": "b" * 64,
            "axes": axes or {},
            "ranks": ranks,
        }
    )
