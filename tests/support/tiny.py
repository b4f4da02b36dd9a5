"""A cell of a second: made-up text, the recipe ``tiny``, one rank on the CPU."""

import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from tests.support.commands import PHYSICAL
from trainer.activations import ACTIVATIONS, Given, Range, Value, check_activation
from trainer.cell import run
from trainer.config import Recipe, load_recipe
from trainer.config.config_errors import ConfigError
from trainer.contract import (
    CURVE_FILE,
    REPORT_FILE,
    ActivationSpec,
    Report,
    RunSpec,
    parse_report,
)
from trainer.data.building.corpus import Corpus, split_documents
from trainer.data.building.documents import Document
from trainer.data.building.prepare import build_dataset
from trainer.data.manifest import read_manifest
from trainer.distributed.world import World
from trainer.evaluate.bpb import Stream
from trainer.model import GPT
from trainer.model.init import initialize

DATASET, VOCAB_SIZE = "stdlib-512", 512
RANK_0 = World(rank=0, size=1, device=torch.device("cpu"))


def activation_cases() -> list[tuple[str, dict[str, Value]]]:
    """Every activation of the table, with five values of each parameter that must be given.

    What may be omitted is omitted, and then given five values, one such parameter at a time; those
    that the defaults of the others refuse are left out.
    """
    cases = []
    for name, entry in ACTIVATIONS.items():
        required = {key: b for key, b in entry.params.items() if b.default is None}
        for values in itertools.product(*map(five_values, required.values())):
            cases.append((name, dict(zip(required, values, strict=True))))
        for key in [key for key in entry.params if key not in required]:
            for value in five_values(entry.params[key]):
                params = default_params(name) | {key: value}
                if is_accepted(name, params):
                    cases.append((name, params))
    return cases


def five_values(bounds: Range) -> Sequence[Value]:
    """Numbers, or lists of two for the layers of ``tiny``."""
    fractions = (0.0, 0.1, 0.5, 0.9, 1.0)
    numbers = [bounds.low + f * (bounds.high - bounds.low) for f in fractions]
    return [[number, bounds.high - number] for number in numbers] if bounds.per_layer else numbers


def is_accepted(name: str, params: Given) -> bool:
    try:
        check_activation(name, params)
    except ConfigError:
        return False
    return True


def default_params(name: str) -> dict[str, Value]:
    """Something near the middle for every parameter that must be given; the others are omitted."""
    return {
        key: five_values(bounds)[1 if bounds.per_layer else 2]
        for key, bounds in ACTIVATIONS[name].params.items()
        if bounds.default is None
    }


def word_corpus() -> Corpus:
    """Forty documents of made-up words, the same under every Python."""
    draw = random.Random(7).random
    syllables = [c + v for c in "bcdfghklmnprst" for v in ("a", "e", "i", "o", "u", "é")]
    words = [
        "".join(syllables[int(len(syllables) * draw())] for _ in range(1 + index % 3))
        for index in range(500)
    ]
    texts = [" ".join(words[int(500 * draw() ** 2)] for _ in range(300)) for _ in range(40)]
    documents = [Document(f"doc-{index}", text) for index, text in enumerate(texts)]
    return split_documents(documents, 0.3, source="made-up words")


def build_tiny_dataset(folder: Path) -> Path:
    """The dataset that the recipe ``tiny`` asks for, of made-up words, in ``folder``."""
    build_dataset(folder / DATASET, DATASET, VOCAB_SIZE, word_corpus())
    return folder / DATASET


def tiny_recipe(overrides: Mapping[str, Any] | None = None) -> Recipe:
    return load_recipe("tiny", overrides)


def tiny_spec(
    data_dir: Path,
    *,
    activation: str = "leaky_relu2",
    params: Given | None = None,
    budget: str = "4steps",
    overrides: Mapping[str, Any] | None = None,
    **changes: Any,
) -> RunSpec:
    """What the driver would ask: 4 steps of ``tiny``, seed 7, on the data in ``data_dir``."""
    manifest = read_manifest(data_dir)
    values: dict[str, Any] = {
        "recipe_name": "tiny",
        "recipe": tiny_recipe(overrides),
        "activation": ActivationSpec(
            name=activation, params=default_params(activation) if params is None else dict(params)
        ),
        "seed": 7,
        "budget": budget,
        "device": "cpu",
        "dtype": "float32",
        "data_dir": str(data_dir),
        "corpus_sha256": manifest.corpus_sha256,
        "tokenizer_sha256": manifest.tokenizer_sha256,
    }
    return RunSpec(**(values | changes))


def run_cell(spec: RunSpec, out: Path) -> Report:
    """``spec`` answered in this process, as one rank."""
    out.mkdir(parents=True, exist_ok=True)
    return run(spec, out, RANK_0)


def read_report(out: Path) -> Report:
    return parse_report((out / REPORT_FILE).read_text(encoding="utf-8"))


def read_curve(out: Path) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = pq.read_table(out / CURVE_FILE).to_pydict()
    return columns


def answer(report: Report) -> dict[str, Any]:
    """All of ``report`` that must not depend on the machine or the moment."""
    of_the_moment = ("compile_misses", "spec_hash")  # how, and which question; not what it is
    values = report.model_dump().items()
    return {k: v for k, v in values if not PHYSICAL.search(k) and k not in of_the_moment}


def tiny_model(
    overrides: Mapping[str, Any] | None = None,
    *,
    activation: str = "asqu",
    params: Given | None = None,
    seed: int = 7,
    num_positions: int = 32,
    dtype: torch.dtype = torch.float32,
) -> GPT:
    """The model that a seed gives, before any training."""
    model = GPT(
        tiny_recipe(overrides).model,
        activation=activation,
        activation_params=default_params(activation) if params is None else params,
        num_positions=num_positions,
        dtype=dtype,
    )
    initialize(model, seed)
    return model


def busy_model(overrides: Mapping[str, Any] | None = None, **options: Any) -> GPT:
    """A model in which every parameter matters.

    Fresh weights will not do where a property of the forward path is to be shown: the output
    projections begin at zero, so nothing flows through attention and MLP.
    """
    return _with_noise(tiny_model(overrides, **options))


def make_busy(model: GPT, seed: int = 7) -> GPT:
    """``model`` with the weights of ``seed``, every one of them moved so that it matters."""
    initialize(model, seed)
    return _with_noise(model)


def _with_noise(model: GPT) -> GPT:
    draw = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    return model


def random_tokens(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randint(VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(seed))


def random_stream(num_targets: int, seed: int = 3) -> Stream:
    """Tokens drawn evenly, each worth one to five bytes."""
    draw = torch.Generator().manual_seed(seed + 1)
    return Stream(
        tokens=random_tokens(num_targets + 1, seed=seed),
        target_bytes=torch.randint(1, 6, (num_targets,), generator=draw),
    )
