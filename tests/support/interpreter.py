"""A process in which Triton interprets kernels on the CPU instead of compiling them for a GPU.

``TRITON_INTERPRET`` has to be set before Triton is imported, and torch.compile may have imported it
in a process of tests long before: so there is one process for the kernels alone. Triton 3.7's
interpreter keeps a bfloat16 as 16 bits of an integer, multiplies those integers in ``tl.dot``, and
cuts digits off where hardware rounds. Both are mended there: nothing in the kernels knows of it.
"""

import atexit
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

Interpreted = Callable[..., Any]
"""Calls a function of a module of the tests there: what goes in and comes out is pickled."""


@contextmanager
def interpreter() -> Iterator[Interpreted]:
    """The process, as long as the context lasts."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def _begin() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    import torch
    import triton.language as tl
    from triton.runtime import interpreter as triton_interpreter

    atexit.register(os._exit, 0)  # all was answered; to take torch and Triton apart takes 3 s
    torch.set_num_threads(1)
    builder = triton_interpreter.InterpreterBuilder
    dot, cast = builder.create_dot, builder.cast_impl

    def widen(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        wide = torch.from_numpy(handle.data.copy()).view(torch.bfloat16).float().numpy()
        return triton_interpreter.TensorHandle(wide, tl.float32)

    def exact_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, widen(a), widen(b), *rest)

    def rounding_cast(self: Any, source: Any, to: Any) -> Any:
        if (source.dtype.scalar, to.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, source, to)
        rounded = torch.from_numpy(source.data).bfloat16().view(torch.uint16).numpy()
        return triton_interpreter.TensorHandle(rounded, tl.bfloat16)

    builder.create_dot, builder.cast_impl = exact_dot, rounding_cast
