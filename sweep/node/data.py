"""Stage the data that the cells read on this node, by the trainer's own command, in time."""

import subprocess
import sys
from pathlib import Path

from sweep.environment import rank_environment
from sweep.messages import RequiredDataset
from sweep.processes.process_tree import Processes
from sweep.provenance import PROJECT

STAGE_S = 7200.0


class NotStaged(Exception):  # noqa: N818  (it says what is the case, in a line)
    """The data cannot be had here; the message says why."""


def stage(dataset: RequiredDataset, deadline_s: float = STAGE_S) -> str:
    """The folder of this node that holds the data, put there if need be."""
    processes = Processes()
    started = processes.start(
        _command(dataset),
        cwd=Path.cwd(),
        environment=rank_environment(PROJECT, 1),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with started as process:
        try:
            out, err = process.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            raise NotStaged(
                f"{dataset.data_dir}: staging has not ended within {deadline_s:g} s; "
                f"a folder that does not answer, or too slow a network?"
            ) from None
        finally:
            processes.kill()
    if process.returncode != 0:
        lines = err.decode(errors="replace").strip().splitlines()
        raise NotStaged(lines[0] if lines else f"staging ended with status {process.returncode}")
    return out.decode().strip().splitlines()[-1]


def _command(dataset: RequiredDataset) -> list[str]:
    command = [sys.executable, "-m", "trainer.data", "stage", "--data", dataset.data_dir]
    command += ["--dataset", dataset.dataset, "--vocab-size", str(dataset.vocab_size)]
    command += ["--corpus", dataset.corpus_sha256, "--tokenizer", dataset.tokenizer_sha256]
    command += ["--missing", dataset.missing]
    options = {"--train-shards": dataset.train_shards, "--cache": dataset.cache}
    given = ((flag, str(value)) for flag, value in options.items() if value is not None)
    return [*command, *(part for pair in given for part in pair)]
