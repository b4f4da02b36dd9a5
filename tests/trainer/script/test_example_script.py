"""The script of the tests: its variants compute what they say, and print the field's lines."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor

from analysis.published.log_lines import read_lines
from tests.support.scripts import VARIANTS, edited, run_by_hand, variant, write_recipe
from trainer.config import ScriptRecipe
from trainer.data.shards import load_stream
from trainer.data.token_bytes import ByteTable
from trainer.script.load import load_any_recipe
from trainer.script.logs.log_grammar import ONCE

EXACT = r"^final_int6_{}_exact val_loss:(\S+) val_bpb:(\S+)$"


def scores(output: str) -> tuple[str, ...]:
    """All that depends on the weights: losses of training and validation, without times."""
    return tuple(re.findall(r"(?:loss:|bpb:|model int6\+lzma: )[\d.]+", output))


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_has_a_recipe_that_loads(name: str, tmp_path: Path) -> None:
    recipe = load_any_recipe(str(write_recipe(tmp_path, name)))
    assert isinstance(recipe, ScriptRecipe)
    assert recipe.sources == {"train_golf.py": variant(name if name != "packed" else "constants")}
    assert (recipe.packed is not None) == (name == "packed")


@pytest.fixture(scope="module")
def outputs(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    def run(name: str, seed: int = 1, **variables: str) -> str:
        folder = tmp_path_factory.mktemp("by-hand")
        return run_by_hand(folder, edited(name, 0.3), data_dir, seed, **variables)

    return {
        "environment": run("environment", NEGATIVE_SLOPE="0.3"),
        "constants": run("constants"),
        "wrong backward": run("wrong_backward"),
        "another slope": run("environment", NEGATIVE_SLOPE="0.31"),
        "another seed": run("environment", seed=2, NEGATIVE_SLOPE="0.3"),
    }


@pytest.mark.slow
def test_every_line_is_of_the_grammar(outputs: dict[str, str]) -> None:
    lines = read_lines(outputs["environment"].strip(), "by hand")
    assert lines.unknown_lines == ()
    never = {"raw_total", "xsa", "stop", "memory", "swa", "late_qat", "int8"}
    kinds = {kind for kind in ONCE if not kind.startswith(("second", "ttt", "slot"))}
    assert kinds - set(lines.once) == never


@pytest.mark.slow
def test_slope_and_seed_change_the_scores_and_where_the_slope_stands_does_not(
    outputs: dict[str, str],
) -> None:
    of_slope = scores(outputs["environment"])
    assert len(of_slope) == 4 + 6 * 2 + 1
    assert scores(outputs["constants"]) == of_slope
    assert scores(outputs["wrong backward"]) == of_slope  # its backward is that of 0.3
    assert len({scores(output) for output in outputs.values()}) == 3


@pytest.mark.slow
def test_bits_per_byte_count_the_bytes_of_the_published_rule(
    outputs: dict[str, str], data_dir: Path
) -> None:
    tokens = load_stream(sorted(data_dir.glob("*_val_*.bin")))[: 1024 + 1].astype(np.int64)
    processor = SentencePieceProcessor(model_file=str(data_dir / "tokenizer.model"))
    num_bytes = ByteTable.from_tokenizer(processor, 512).count(tokens[:-1], tokens[1:]).sum()
    for line in ("roundtrip", "sliding_window"):
        found = re.search(EXACT.format(line), outputs["environment"], re.MULTILINE)
        assert found is not None
        loss, bpb = map(float, found.groups())
        assert bpb == pytest.approx(loss / math.log(2) * 1024 / num_bytes, rel=1e-7)


@pytest.mark.slow
def test_two_ranks_under_torchrun_train_as_one_does(
    outputs: dict[str, str], data_dir: Path, tmp_path: Path
) -> None:
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone")
    both = run_by_hand(
        tmp_path, variant("environment"), data_dir, 1, launcher=launcher, NEGATIVE_SLOPE="0.3"
    )
    assert "world_size:2 grad_accum_steps:1" in both
    one, two = (
        [float(text) for text in re.findall(r"(?:loss|bpb):([\d.]+)", output)]
        for output in (outputs["environment"], both)
    )
    assert two == pytest.approx(one, abs=2e-4)  # sums in another order, then four decimals


@pytest.mark.slow
def test_a_cap_on_seconds_stops_it_early(data_dir: Path, tmp_path: Path) -> None:
    output = run_by_hand(
        tmp_path, variant("environment"), data_dir, 1, 10**6, MAX_WALLCLOCK_SECONDS="0.5"
    )
    stop = read_lines(output.strip(), "by hand").once["stop"]
    assert 500 <= stop.values["train_ms"] < 5000
    assert 4 < stop.values["step"] < 10**6
