"""How a driver's run ends: as often as somebody asks, and where a sweep stops when it knows.

Not claimed: what Ray does then.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from sweep.__main__ import EXIT_UNREAD, main
from sweep.cli import verbs
from sweep.cli.invocation import Invocation
from sweep.cli.selection import Selection
from sweep.cli.session import _Session
from sweep.driver.control import Control
from sweep.environment import Environment
from sweep.schedule.plan import plan_unsettled
from sweep.store.store import Store
from tests.support.commands import ROOT, environment
from tests.support.drivers import row_of
from tests.support.grids import cells_of, sweep_spec
from tests.support.reports import delivered, failed
from tests.support.trial import invocation, said
from trainer.config.config_errors import ConfigError
from trainer.contract import RunSpec

pytestmark = pytest.mark.usefixtures("looks_often")


def test_ctrl_c_while_the_cluster_is_left_is_one_word(monkeypatch, capsys):
    def interrupted(invocation):
        raise KeyboardInterrupt

    monkeypatch.setattr(Invocation, "close", interrupted)
    assert main(["which", "--sweep", "local"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


class Racing(Store):
    """A store where another driver ends its attempt just after the first look at attempts."""

    end_other = staticmethod(lambda: None)

    def running(self):
        found = super().running()
        self.end_other()
        return found

    def read(self):
        found = super().read()
        self.end_other()
        return found


class Silent(SimpleNamespace):
    """What a session needs of an invocation that finds nothing to run."""

    sweep = SimpleNamespace(name="test")
    planned = None

    def estimate(self, todo, history):
        return None

    def plan_sentence(self, todo, cost):
        self.planned = todo
        return "nothing"

    def say(self, text):
        pass


def test_a_cell_that_another_driver_ends_meanwhile_is_not_run_again(tmp_path):
    cell = cells_of(sweep_spec())[0]
    other = Store(tmp_path)
    with other.as_driver(join=True) as driver_id:
        attempt = other.announce(cell.id, 1, {"driver": driver_id})
        store = Racing(tmp_path)
        store.end_other = lambda: other.commit(attempt, row)
        row = row_of(attempt)  # committing it twice alike is committing it once
        invocation = Silent(store=store)
        assert not _Session(invocation, [cell], None, "us", ()).run(plan_unsettled, Control())
    assert invocation.planned.todo == ()


def scored(order, stop):
    """Lowest for slope 0.3, with less noise than two seeds need to know it."""
    spec = RunSpec.model_validate_json(order.spec_json)
    slope = spec.activation.params.get("slope", 0.0)
    noise = 1e-6 * (-1) ** (spec.seed + round(10 * slope))
    return delivered(order, post_quant_sliding_bpb=2 + abs(slope - 0.3) / 100 + noise)


def breaking(order, stop):
    spec = RunSpec.model_validate_json(order.spec_json)
    if spec.activation.label == "leaky_relu2-s0.9" and spec.seed == 5:
        return failed("oom", "too large", failure="memory")
    return scored(order, stop)


@pytest.mark.parametrize("work", [scored, breaking], ids=["all well", "one out of memory"])
def test_a_sweep_that_knows_ends_with_status_0_and_runs_no_cell_that_nobody_needs(tmp_path, work):
    run = invocation(tmp_path, work, until=0.001)
    assert verbs.run(run) == 0
    attempted = {row["seed"] for row in run.store.read().rows}
    assert attempted == {7, 5}
    assert "leaky_relu2-s0.3 is selected. No other is better by 0.001 BPB." in said(run)
    assert "4 were not needed" in said(run)
    assert ("out of memory" in said(run)) == (work is breaking)

    status = invocation(tmp_path)
    assert verbs.status(status) == 0
    assert "leaky_relu2-s0.9: dropped after 2 seeds, 0.0060 behind leaky_relu2-s0.3" in said(status)
    again = invocation(tmp_path, work, until=0.001)
    assert verbs.run(again) == 0
    assert "nothing to run" in said(again)


def test_a_sweep_goes_on_seed_by_seed_until_none_is_left(tmp_path):
    run = invocation(tmp_path, wavering, until=0.0001)
    assert verbs.run(run) == 0
    assert {row["seed"] for row in run.store.read().rows} == {7, 5, 3}
    assert "No seed is left" in said(run)
    plan = invocation(tmp_path, until=0.0001)
    verbs.plan(plan)
    assert "nothing to run" in said(plan)


def wavering(order, stop):
    """Scores that tell nothing."""
    spec = RunSpec.model_validate_json(order.spec_json)
    slope = spec.activation.params.get("slope", 0.0)
    return delivered(order, post_quant_sliding_bpb=2 + 0.01 * ((7 * spec.seed * slope) % 1))


def test_a_sweep_that_was_cut_short_ends_as_one_that_was_not(tmp_path):
    (tmp_path / "whole").mkdir()
    whole = invocation(tmp_path / "whole", scored, until=0.001)
    verbs.run(whole)
    part = invocation(tmp_path, scored, until=0.001, selection=Selection(limit=3))
    assert verbs.run(part) == 3
    assert len(part.store.read().rows) == 3
    assert "Nothing is decided" in said(part)
    rest = invocation(tmp_path, scored, until=0.001)
    assert verbs.run(rest) == 0
    assert said(rest).splitlines()[-6:] == said(whole).splitlines()[-6:]


def test_two_versions_of_the_code_never_decide_together(tmp_path):
    with pytest.raises(ConfigError, match="scores of two versions"):
        verbs.run(invocation(tmp_path, scored, until=0.001, refresh=True))


@pytest.mark.parametrize(("job_s", "status"), [(1000.0, 4), (150.0, 3)])
def test_a_job_that_ends_too_soon_leaves_cells_to_the_next_if_that_can_help(
    tmp_path, job_s, status
):
    """Cells of unlike length: the second kind never fits, the first only into the longer job."""
    at = Environment(ray_address=None, yes=True, job_end_at=time.time() + job_s)
    job = replace(invocation(tmp_path, scored, seeds=[3]), environment=at)
    file = tmp_path / "trial.toml"
    text = file.read_text().replace("estimate_cell_s = 1.0", "estimate_cell_s = 3000.0")
    file.write_text(text.replace('["4steps"]', '["4steps", "400steps"]'))
    (cell, *_) = [cell for cell in job.cells() if cell.spec.budget == "4steps"]
    with job.store.as_driver() as driver_id:
        attempt = job.store.announce(cell.id, 1, {"driver": driver_id})
        job.store.commit(attempt, row_of(attempt, started_at=attempt.started_at))
    assert verbs.run(job) == status
    assert "cells are not begun, for this job ends too soon" in said(job)
    assert ("The next job goes on with them" in said(job)) == (status == 4)


def test_the_end_of_a_job_that_has_ended_is_of_another_shell(tmp_path):
    past = Environment(ray_address=None, yes=True, job_end_at=time.time() - 1.0)
    with pytest.raises(ConfigError, match="SLURM_JOB_END_TIME has passed"):
        verbs.run(replace(invocation(tmp_path, scored), environment=past))


def test_the_command_of_a_sweep_file_is_told_from_the_start_to_the_end(tmp_path):
    told = tmp_path / "told"
    trial = invocation(tmp_path, scored, seeds=[3])
    file = tmp_path / "trial.toml"
    hook = f"[events]\ncommand = 'cat >> {told}'\ntimeout_s = 240.0\n"
    file.write_text(file.read_text() + hook)
    assert verbs.run(trial) == 0
    events = [json.loads(line) for line in told.read_text().splitlines()]
    names = ["started", *["attempt ended"] * 4, "finished"]
    assert [event["event"] for event in events] == names
    assert [event["done"] for event in events[1:-1]] == [1, 2, 3, 4]
    assert events[-1]["attempts"] == {"succeeded": 4}


def test_whoever_reads_only_the_beginning_sees_no_traceback(tmp_path):
    Store(tmp_path / "local").write_sweep({"name": "local", "cells": []})
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody:
        command = [sys.executable, *("-m", "sweep", "status", "--sweep", "local", "--json")]
        command += ["--results", str(tmp_path)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment(), stdout=nobody, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (EXIT_UNREAD, "")
