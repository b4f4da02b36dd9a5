"""What does each peculiarity of the published code do to the numbers, at the local recipe?

Every choice is run with its published and with its sound value, over the same seeds; the difference
within a seed is reported. The table goes into docs/recipes.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.models.interval import TInterval
from trainer.contract import REPORT_FILE, canonical_json
from trainer.source import trainer_source

RESULTS = Path(__file__).parent / "results"
SEEDS = (1337, 42, 2025)
STAGES = {
    "pre-quant": "pre_quant_bpb",
    "post-quant": "post_quant_bpb",
    "sliding": "post_quant_sliding_bpb",
    "TTT": "ttt_bpb",
}
# The local recipe has no projections: its embeddings are as wide as what they are added to.
PROJECTED = {"model.bigram.dim": 32, "model.value_embedding.dim": 16}


@dataclass(frozen=True)
class Choice:
    """One key with its two values, over ``base``; ``stage`` is the first score it acts on."""

    key: str
    published: Any
    sound: Any
    stage: str
    base: Mapping[str, Any] = field(default_factory=dict)

    def overrides(self, value: Any) -> dict[str, Any]:
        return dict(self.base) | {self.key: value}


CHOICES = (
    Choice("scoring.tail", "published", "once", "sliding"),
    Choice("optim.clip", "per_shard", "global", "pre-quant"),
    Choice("optim.gain_weight_decay", 0.04, 0.0, "pre-quant"),
    Choice("model.orthogonal_min_dim", 64, 1, "pre-quant", PROJECTED),
    Choice("model.rope_ntk_len", 64, None, "pre-quant"),
    Choice("data.virtual_world", 2, 1, "pre-quant", {"data.loader": "coprime"}),
    Choice(
        "data.seed_names",
        "data/datasets/fineweb10B_sp1024",
        None,
        "pre-quant",
        {"data.loader": "coprime", "data.virtual_world": 2},
    ),
    Choice("quantization.scale_floor", 1 / 31, None, "post-quant"),
    Choice("quantization.int8_scale_floor", 1 / 127, None, "post-quant"),
    Choice("quantization.int8_codes_by", "exact_scale", "stored_scale", "post-quant"),
    Choice("ttt.late_qat", True, False, "TTT", PROJECTED | {"model.orthogonal_min_dim": 1}),
    Choice("ttt.freeze_matrices", False, True, "TTT", {"ttt.freeze_layers": 1}),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choices", description=__doc__)
    parser.add_argument("--data", default="data/stdlib-1024")
    parser.add_argument("--budget", default="170steps")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    reports = _run_all(options.data, options.budget, options.workers)
    rows = [_row(choice, reports) for choice in CHOICES]
    RESULTS.mkdir(exist_ok=True)
    result = {"budget": options.budget, "seeds": SEEDS, "trainer": trainer_source().sha256}
    path = RESULTS / "published_choices.json"
    path.write_text(json.dumps({**result, "choices": rows}, indent=1) + "\n", encoding="utf-8")
    print("| key | published | sound | stage | difference in BPB |\n|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(str(row[key]) for key in row if key != "differences") + " |")


def _run_all(data: str, budget: str, workers: int) -> dict[str, dict[str, Any]]:
    """The report of every distinct question, by its key."""
    questions = {
        _key(overrides, seed): (overrides, seed)
        for choice in CHOICES
        for overrides in (choice.overrides(choice.published), choice.overrides(choice.sound))
        for seed in SEEDS
    }
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda q: _run(q[0], q[1], data, budget), questions.values())
        return dict(zip(questions, found, strict=True))


def _run(overrides: Mapping[str, Any], seed: int, data: str, budget: str) -> dict[str, Any]:
    given = [f"{key}={'' if v is None else canonical_json(v)}" for key, v in overrides.items()]
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "trainer", "--recipe", "local", "--out", out]
        command += ["--activation", "leaky_relu2", "--slope", "0.5", "--seed", str(seed)]
        command += ["--data", data, "--budget", budget]
        command += [part for text in given for part in ("--set", text)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        report: dict[str, Any] = json.loads((Path(out) / REPORT_FILE).read_text())
        return report


def _row(choice: Choice, reports: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    column = STAGES[choice.stage]
    differences = [
        reports[_key(choice.overrides(choice.published), seed)][column]
        - reports[_key(choice.overrides(choice.sound), seed)][column]
        for seed in SEEDS
    ]
    estimate = TInterval(0.95)(differences)
    return {
        "key": f"`{choice.key}`",
        "published": choice.published,
        "sound": choice.sound,
        "stage": choice.stage,
        "difference": f"{estimate.mean:+.5f} ± {estimate.half_width:.5f}",
        "differences": differences,
    }


def _key(overrides: Mapping[str, Any], seed: int) -> str:
    return canonical_json([dict(overrides), seed])


if __name__ == "__main__":
    main()
