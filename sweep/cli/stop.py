"""The verb stop: ask the drivers of a sweep, wherever they run, to end or to hold other leases."""

import contextlib
import json
from datetime import datetime

from sweep.cli.invocation import Invocation
from sweep.cli.session import EXIT_DONE, EXIT_INCOMPLETE
from sweep.driver.display import running_sentence
from sweep.driver.requests import Request, ask
from sweep.store.store import PROGRESS, Store
from trainer.config.config_errors import ConfigError


def stop(invocation: Invocation) -> int:
    """Let the driver finish its running cells and end (--now: stop them), or change its leases."""
    store, leases = invocation.store, invocation.leases
    drivers = store.drivers()
    if not drivers:
        raise ConfigError(
            f"{store.place}: no driver is running this sweep, so there is nothing to stop. "
            f"RESULTS= names another place of results, SWEEP= another sweep."
        )
    if invocation.now and leases is not None:
        raise ConfigError("stop: give NOW=1 or LEASES=n, not both.")
    how = Request(max_leases=leases, stop=None if leases else "now" if invocation.now else "drain")
    heard = True
    for driver in drivers:
        answer = ask(store, driver.id, how)
        invocation.say(f"{driver.note}: {answer or UNHEARD}")
        if answer is not None and how.stop == "drain":
            invocation.say(_running(store, driver.id))
        heard &= answer is not None
    return EXIT_DONE if heard else EXIT_INCOMPLETE


UNHEARD = "no answer yet; it obeys at its next look, if it lives, which `make status` shows."


def _running(store: Store, driver_id: str) -> str:
    """What the driver has last told of its cells."""
    ends = []
    with contextlib.suppress(FileNotFoundError):
        told = json.loads(store.files.read(f"{PROGRESS}/{driver_id}.json"))["running"]
        ends = [each["expected_end"] for each in told]
    return running_sentence([end and datetime.fromisoformat(end) for end in ends])
