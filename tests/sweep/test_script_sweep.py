"""A sweep over a script that others wrote, as a user runs it: real Ray, the script's own processes.

Its scores are those that the script prints when a person makes the same edits and starts it.
"""

import contextlib
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.commands import (
    alive,
    descendants,
    rows,
    running_sweep,
    sweep,
    wait_until,
)
from tests.support.scripts import FILE, edited, run_by_hand, write_recipe, write_script_sweep
from tests.support.tiny import DATASET, build_tiny_dataset

pytestmark = pytest.mark.slow

SLOPES, SEEDS = (0.5, 0.3), (1, 2)
PRINTED = {
    "pre_quant_bpb": r"DIAGNOSTIC post_ema val_loss:\S+ val_bpb:(\S+)",
    "post_quant_bpb": r"final_int6_roundtrip_exact val_loss:\S+ val_bpb:(\S+)",
    "post_quant_sliding_bpb": r"final_int6_sliding_window_exact val_loss:\S+ val_bpb:(\S+)",
    "train_loss": r"step:4/4 train_loss:(\S+)",
    "model_bytes": r"Serialized model int6\+lzma: (\d+)",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    build_tiny_dataset(root)
    return root


@pytest.fixture(scope="module")
def expected(data, tmp_path_factory):
    """What a person reads who sets the slope at three sites and starts the script, by slope and
    seed; the environment variable does the same.
    """

    def by_hand(slope: float, seed: int) -> dict[str, float]:
        folder = tmp_path_factory.mktemp("by-hand")
        output = run_by_hand(folder, edited("constants", slope), data / DATASET, seed)
        found = {name: re.findall(pattern, output) for name, pattern in PRINTED.items()}
        return {name: float(text) for name, (text,) in found.items()}

    return {(slope, seed): by_hand(slope, seed) for slope in SLOPES for seed in SEEDS}


class Place:
    """A sweep over one variant: its file, its results, its arguments."""

    def __init__(self, folder: Path, data: Path, variant: str, **sweep_file: Any):
        self.recipe = write_recipe(folder / "theirs", variant)
        self.file = write_script_sweep(folder / "trial.toml", self.recipe, **sweep_file)
        self.folder = folder / "results" / "trial"
        self.arguments = ("--sweep", self.file, "--results", folder / "results", "--data", data)

    @property
    def attempts(self) -> list[str]:
        return sorted(path.stem for path in (self.folder / "attempts").glob("*.parquet"))

    def assert_settled(self, expected: Mapping[tuple[float, int], Mapping[str, float]]) -> None:
        """One success a cell with the scores by hand, and a row for each start."""
        found = rows(self.folder)
        assert {row["state"] for row in found} == {"succeeded"}
        scores = {(r["slope"], r["seed"]): {name: r[name] for name in PRINTED} for r in found}
        assert scores == expected
        starts = {path.stem for path in (self.folder / "attempts").glob("*.start")}
        assert starts == set(self.attempts)


@pytest.fixture
def place(tmp_path, data):
    return lambda variant, **sweep_file: Place(tmp_path, data, variant, **sweep_file)


def scripts(pid: int) -> list[psutil.Process]:
    """Processes of the script below ``pid``."""
    found = []
    for process in descendants(pid):
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[-1:] == [FILE]:
                found.append(process)
    return found


def test_a_killed_sweep_goes_on_and_one_cell_runs_again(place, expected):
    here = place("constants", slopes=SLOPES, seeds=SEEDS)
    with running_sweep(*here.arguments) as process:
        wait_until(lambda: len(here.attempts) >= 2 and scripts(process.pid))
        below = descendants(process.pid)
        kept = here.attempts
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not alive(below))
    resumed = sweep("run", *here.arguments)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    here.assert_settled(expected)
    assert set(kept) <= set(here.attempts)

    before = here.attempts
    rerun = sweep("rerun", "leaky_relu2-s0.3__seed2", *here.arguments)
    assert rerun.returncode == 0, rerun.stdout + rerun.stderr
    assert len(here.attempts) == len(before) + 1
    here.assert_settled(expected)


@pytest.mark.parametrize("variant", ["environment", "packed"])
def test_a_script_with_a_variable_or_packed_gives_the_same_scores(place, expected, variant):
    here = place(variant, slopes=SLOPES, seeds=SEEDS[:1])
    done = sweep("run", *here.arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    here.assert_settled({cell: expected[cell] for cell in expected if cell[1] == SEEDS[0]})
    for attempt in here.attempts:  # what ran was plain text
        assert "class LeakySquared" in (here.folder / "scripts" / attempt / FILE).read_text()


def test_a_backward_of_another_slope_is_refused_unless_it_is_asked_for(place):
    here = place("wrong_backward", slopes=[0.5], seeds=[1])
    refused = sweep("run", *here.arguments)
    assert refused.returncode == 2
    assert "β = 0.25" in refused.stderr
    assert "β = 0.09" in refused.stderr
    text = here.recipe.read_text().replace("[script]\n", "[script]\ncheck_text = false\n", 1)
    here.recipe.write_text(text)
    assert "1 cells to run" in sweep("plan", *here.arguments).stdout
