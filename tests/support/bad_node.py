"""Make every cell fail on a node, in the way that the file ``bad`` beside this one names, or wait.

A copy of it is the ``sitecustomize`` of every Python process of a node of tests/support/cluster.py.
It waits in the trainer for the beginning of training; without that file it does nothing.
"""

import importlib.abc
import importlib.util
import math
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

BAD = Path(__file__).with_name("bad")
SLOW_EVERY_S, SLOW_S = 0.1, 0.03


def spoiled(train):
    """``train`` of trainer/cell.py, on a node that may be bad."""

    def run(*arguments):
        match BAD.read_text() if BAD.exists() else None:
            case "oom":
                raise MemoryError("no memory is left on this node")
            case "hang":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "slow":
                signal.signal(signal.SIGALRM, lambda *_: time.sleep(SLOW_S))
                signal.setitimer(signal.ITIMER_REAL, SLOW_EVERY_S, SLOW_EVERY_S)
            case str(held) if held.startswith("wait"):
                BAD.with_name(held).touch()
                while BAD.read_text() == held:
                    time.sleep(0.1)
            case "not finite":
                result = train(*arguments)
                return replace(result, losses=tuple(math.nan for _ in result.losses))
        return train(*arguments)

    return run


class Spoiler(importlib.abc.MetaPathFinder):
    """Replaces the training loop where ``trainer.cell`` is imported."""

    def find_spec(self, name, path, target=None):
        if name != "trainer.cell":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            module.train = spoiled(module.train)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Spoiler())
