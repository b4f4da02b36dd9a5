"""The doctor says what is wrong, what to do about it, and by its status whether cells may run."""

import io
import json

from rich.console import Console

from sweep.cli.doctor import show_checks
from sweep.preflight import CHECKS, run_checks
from tests.support.gpus import NO_PERMISSION, h100s
from tests.support.nodes import node_facts, requirements


def machine(*found, **options):
    """What the doctor says of nodes where this was found, and its exit status."""
    nodes = {
        f"node-{i}": here and run_checks(requirements(), facts=here) for i, here in enumerate(found)
    }
    text = io.StringIO()
    return show_checks(nodes, Console(file=text, width=200), **options), text.getvalue()


def remedy(name):
    return next(check.remedy for check in CHECKS if check.name == name)


def test_a_healthy_machine_is_fit():
    status, text = machine(node_facts())
    assert status == 0
    assert "Fit for this sweep." in text
    assert all(check.name in text for check in CHECKS)
    assert not any(check.remedy in text for check in CHECKS)


def test_what_refuses_comes_with_its_remedy_and_a_status():
    status, text = machine(node_facts(h100s(mig=1), shm_bytes=2**26))
    assert status == 2
    assert "Not fit for this sweep: MIG. Warned of: /dev/shm." in text
    assert text.index(remedy("MIG")) < text.index(remedy("/dev/shm"))


def test_a_warning_or_the_unknown_stops_nobody_and_is_said():
    status, text = machine(node_facts(h100s(reasons=NO_PERMISSION), shm_bytes=2**26))
    assert status == 0
    assert "Not known here, which is no pass: throttling." in text
    assert "Warned of: /dev/shm." in text


def test_json_has_every_check_and_nothing_else_on_stdout(capsys):
    status, _ = machine(node_facts(h100s(mig=1)), as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert status == 2
    assert list(found) == ["node-0"]
    assert [entry["name"] for entry in found["node-0"]] == [check.name for check in CHECKS]
    assert set(found["node-0"][0]) == {"name", "status", "detail", "remedy"}


def test_a_node_that_does_not_answer_is_not_fit():
    status, text = machine(node_facts(), None)
    assert status == 2
    assert "Fit for this sweep." in text
    assert "node-1 did not answer." in text
