"""A failure is laid where it belongs, and failures of one cause are told to be alike."""

import re
import signal
import subprocess
import sys
import textwrap

from hypothesis import given
from hypothesis import strategies as st

from sweep.node.error_signature import MAX_CHARS, logged_error
from sweep.node.failures import PREEMPTED, STOPPED, RankEnd, classify, hung, unable, unreported
from sweep.store.schema import FAILED_STATES, FAILURES

FOLLOWING = (
    "RuntimeError: [/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] "
    "Connection closed by peer [127.0.0.1]:32683. This is typically caused by a remote worker "
    "crashing."
)


def traceback(last, *, project="/home/ann/sweeps", prefix="", line=7, function="train"):
    text = f"""\
        Traceback (most recent call last):
          File "{project}/trainer/cell.py", line {line}, in run
            trained = train(cell)
          File "{project}/trainer/training/train.py", line {line + 30}, in {function}
            loss.backward()
          File "/venv/lib/python3.11/site-packages/torch/_tensor.py", line {line}, in backward
            raise error
                  ^^^^^
        """
    lines = [*textwrap.dedent(text).splitlines(), *last.splitlines()]
    return "\n".join(f"{prefix}{part}" for part in lines) + "\n"


def one(code, log=""):
    return classify([RankEnd(code=code, log=log)])


# -- the class


RAISED = {
    "ValueError: no such layer": "cell",
    "KeyError: 'x'": "cell",
    "AssertionError": "cell",
    "RuntimeError: mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)": "cell",
    "RuntimeError: CUDA error: an illegal memory access was encountered": "cell",
    "RuntimeError: CUDA error: device-side assert triggered": "cell",
    "torch.AcceleratorError: CUDA error: unspecified launch failure": "infrastructure",
    "RuntimeError: CUDA error: uncorrectable ECC error encountered": "infrastructure",
    "RuntimeError: CUDA error: initialization error": "infrastructure",
    "RuntimeError: CUDA error: driver shutting down": "infrastructure",
    "RuntimeError: CUDA error: all CUDA-capable devices are busy or unavailable": "infrastructure",
    "RuntimeError: NVML_SUCCESS == r INTERNAL ASSERT FAILED": "infrastructure",
    "torch.distributed.DistBackendError: NCCL error in: x.cpp:3, unhandled system error\n"
    "ncclSystemError: System call (e.g. socket, malloc) failed": "infrastructure",
    FOLLOWING: "infrastructure",
    "ConnectionResetError: [Errno 104] Connection reset by peer": "infrastructure",
    "OSError: [Errno 28] No space left on device: '/tmp/a'": "infrastructure",
    "OSError: [Errno 30] Read-only file system: '/tmp/a'": "infrastructure",
    "OSError: [Errno 116] Stale file handle": "infrastructure",
    "OSError: [Errno 5] Input/output error": "infrastructure",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.": "memory",
    "MemoryError": "memory",
}


def test_an_exception_is_the_cells_the_nodes_or_memorys():
    for last, expected in RAISED.items():
        failure = one(1, traceback(last))
        assert failure.failure == expected, last
        assert failure.state == ("oom" if expected == "memory" else "failed"), last
        line = last.splitlines()[0]
        assert line.removeprefix("torch.").removeprefix("distributed.") in failure.reason


CRASHES = {
    (signal.SIGKILL, ""): "infrastructure",
    (signal.SIGTERM, ""): "infrastructure",
    (signal.SIGSEGV, ""): "cell",
    (signal.SIGBUS, ""): "cell",
    (signal.SIGABRT, "terminate called after throwing an instance of 'c10::Error'"): "cell",
    (signal.SIGABRT, "[rank0]: Watchdog caught collective operation timeout: x"): "infrastructure",
    (signal.SIGSEGV, "misc/socket.cc:50 NCCL WARN socketProgress: ..."): "infrastructure",
    (signal.SIGSEGV, "node:1 NCCL INFO ncclCommInitRank comm 0x1 rank 0 - Init COMPLETE"): "cell",
    (signal.SIGBUS, "NVRM: Xid 79, GPU has fallen off the bus."): "infrastructure",
}


def test_a_signal_from_outside_is_the_nodes_and_a_crash_is_the_cells():
    for (number, log), expected in CRASHES.items():
        failure = one(-number, log)
        assert failure.failure == expected, (number, log)
        assert number.name in failure.reason
        assert failure.signature == f"signal {number.name}"


def test_what_a_log_tells_of_things_survived_is_not_held_against_the_node():
    survived = "NCCL WARN retrying\nOSError: Input/output error, trying again\n"
    assert one(1, survived + traceback("ValueError: x")).failure == "cell"


def test_a_refused_input_says_what_was_wrong_with_it():
    failure = one(2, "error: recipe tiny: no such key\n")
    assert (failure.failure, failure.state) == ("cell", "failed")
    assert failure.reason == "rank 0 refused its input: recipe tiny: no such key"
    assert failure.signature != one(2, "error: something else\n").signature
    assert one(2, "error: device cuda: torch sees no CUDA device here.").failure != "cell"


def test_out_of_memory_comes_with_its_numbers_whoever_noticed():
    log = traceback("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
    told = classify([RankEnd(code=12, log=log)], memory="the node had 3 GiB")
    assert (told.state, told.failure) == ("oom", "memory")
    assert "Tried to allocate 2.00 GiB" in told.reason
    assert "the node had 3 GiB" in told.reason
    ends = [RankEnd(code=1, log=traceback(FOLLOWING)), RankEnd(code=-9, log="")]
    by_kernel = classify(ends, killed_by_kernel=True, memory="the node had 3 GiB")
    assert (by_kernel.state, by_kernel.failure) == ("oom", "memory")
    assert "rank 1 was killed by the kernel" in by_kernel.reason
    assert "the node had 3 GiB" in by_kernel.reason
    assert classify(ends).failure == "infrastructure"


# -- the culprit


CULPRITS = {
    "the one that raised, not those that lost it": (
        [(1, FOLLOWING, 1.0), (1, "ValueError: its own", 2.0), (1, FOLLOWING, 3.0)],
        (1, "cell"),
    ),
    "the one that a signal ended": (
        [(1, FOLLOWING, 1.0), (1, "ValueError: its own", 1.0), (-9, None, 0.5)],
        (2, "infrastructure"),
    ),
    "the earliest of those that raised": (
        [(1, "ValueError: late", 2.0), (1, "KeyError: 'early'", 1.0)],
        (1, "cell"),
    ),
    "one that has raised and is still being taken down": (
        [(None, "ValueError: its own", 1.0), (1, FOLLOWING, 2.0)],
        (0, "cell"),
    ),
    "nobody but the network, where all lost each other": (
        [(None, None, 0.0), (1, FOLLOWING, 2.0)],
        (1, "infrastructure"),
    ),
    "not one that NCCL's watchdog aborted for a peer that was gone": (
        [(-6, "RuntimeError: ncclRemoteError: a remote process exited", 1.0), (3, None, 2.0)],
        (1, "cell"),
    ),
}


def test_the_culprit_is_the_rank_that_did_not_merely_lose_another():
    for case, (ranks, (culprit, failure)) in CULPRITS.items():
        ends = [
            RankEnd(code=code, log=traceback(last) if last else "some line\n", wrote_at=at)
            for code, last, at in ranks
        ]
        found = classify(ends)
        assert found.reason.startswith(f"rank {culprit} "), case
        assert found.failure == failure, case


texts = st.text(max_size=200)
codes = st.one_of(st.none(), st.integers(-31, 255))


@given(
    st.lists(st.tuples(codes, texts, st.floats(0, 9)), max_size=4),
    st.integers(-31, 255).filter(bool),
    texts,
    st.booleans(),
)
def test_every_failure_has_a_known_class_and_says_why(others, code, log, by_kernel):
    ends = [RankEnd(code=c, log=text, wrote_at=at) for c, text, at in others]
    failure = classify([*ends, RankEnd(code=code, log=log)], killed_by_kernel=by_kernel)
    assert failure.failure in FAILURES
    assert failure.state in FAILED_STATES
    assert failure.reason.startswith("rank ")
    assert bool(failure.signature) == (failure.failure != "preemption")
    assert len(failure.signature or "") <= MAX_CHARS


def test_what_no_rank_did_has_a_class_too():
    stopped = (STOPPED, PREEMPTED)
    for failure in (hung("train", 60.0), *stopped, unable("no room in /tmp/x7"), unreported("r")):
        assert failure.failure in FAILURES
        assert failure.state in FAILED_STATES
    assert hung("train", 60.4).reason == "no progress for 60 s in phase train; killed"
    assert [failure.signature for failure in stopped] == [None, None]


# -- the signature


words = st.text("abcdefghij _-", min_size=1, max_size=20).map(str.strip).filter(bool)
messages = st.lists(
    st.one_of(
        words.map(lambda word: (word, word)),
        st.just(("N", "{number}")),
        st.just(("A", "{address}")),
        st.just(("P", "{path}")),
    ),
    min_size=1,
    max_size=6,
)


@st.composite
def places(draw):
    """One node's way of telling an error: its paths, numbers, addresses, lines and rank."""
    folder = "/" + "/".join(draw(st.lists(st.sampled_from(["a", "b2", "c.d"]), min_size=1)))
    return {
        "number": draw(st.one_of(st.integers(-(10**9), 10**9), st.floats(0.001, 1e9))),
        "address": hex(draw(st.integers(0, 2**48))),
        "path": f"{folder}/file-{draw(st.integers(0, 99))}.bin",
        "project": folder,
        "line": draw(st.integers(1, 999)),
        "prefix": draw(st.sampled_from(["", "[rank0]: ", "[rank11]: "])),
    }


def told(parts, place, kind="ValueError"):
    message = " ".join(template for _, template in parts).format(**place)
    keys = ("project", "line", "prefix")
    log = traceback(f"{kind}: {message}", **{key: place[key] for key in keys})
    return logged_error(f"step 3 loss 2.5\n{log}").signature


@given(messages, places(), places())
def test_the_same_error_has_the_same_signature_on_every_node(parts, here, there):
    assert told(parts, here) == told(parts, there)
    assert not re.search(r"\d", told(parts, here))


@given(messages, places())
def test_different_errors_have_different_signatures(parts, place):
    known = told(parts, place)
    assert told(parts, place, kind="KeyError") != known
    assert told([("x", "zzz"), *parts], place) != known
    elsewhere = traceback("ValueError: x", function="pack")
    assert logged_error(elsewhere).signature != logged_error(traceback("ValueError: x")).signature


def test_a_signature_says_what_where_in_the_project_and_how():
    log = traceback("torch._C.SomeError: 3 of '/a b/c' failed", prefix="[rank3]: ")
    assert (
        logged_error(log).signature
        == "SomeError at trainer/training/train.py:train: # of <path> failed"
    )


def test_of_a_chain_of_exceptions_the_one_that_was_raised_counts():
    between = "\nThe above exception was the direct cause of the following exception:\n\n"
    log = traceback("KeyError: 'x'") + between + traceback("ValueError: y", function="pack")
    assert logged_error(log).signature == "ValueError at trainer/training/train.py:pack: y"


def test_an_exception_ignored_at_exit_hides_no_other():
    log = traceback("ValueError: y") + "Exception ignored in: <module 'threading'>\n"
    assert logged_error(log + traceback("KeyboardInterrupt")).type == "ValueError"


def test_a_message_that_begins_on_the_next_line_is_found():
    log = traceback("BackendCompilerFailed: backend='inductor' raised:\nTypeError: odd\n\nmore")
    assert logged_error(log).message == "backend='inductor' raised: TypeError: odd"


def test_what_python_itself_writes_is_understood(tmp_path):
    folder = tmp_path / "trainer"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "deep.py").write_text(
        "import faulthandler, os, signal\n"
        "def dive(what):\n"
        "    faulthandler.enable()\n"
        "    int('x1') if what == 'raise' else os.kill(os.getpid(), signal.SIGSEGV)\n"
    )

    def run(what):
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from trainer.deep import dive; "
        command = [sys.executable, "-c", code + f"dive({what!r})"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        return classify([RankEnd(code=done.returncode, log=done.stderr)])

    assert run("raise").signature == (
        "ValueError at trainer/deep.py:dive: invalid literal for int() with base #: 'x#'"
    )
    assert run("crash").signature == "signal SIGSEGV at trainer/deep.py:dive"
