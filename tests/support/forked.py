"""Processes that are forks of one server, which has imported what they need."""

import multiprocessing
from multiprocessing.context import ForkServerContext

_PRELOADED: list[str] = []


def forked_from(*modules: str) -> ForkServerContext:
    """Makes processes that have ``modules``; one server has all that are ever named here.

    Its environment is the one of its start.
    """
    _PRELOADED.extend(modules)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context
