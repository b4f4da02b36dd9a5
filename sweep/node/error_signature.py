"""The error that a rank's log ends with, and a signature by which equal errors are known.

Pure: text in, values out. The signature of an error is its type, where in the project it came from
and its message without what changes from run to run: numbers, addresses, paths.
"""

import re
from dataclasses import dataclass

MAX_CHARS = 200
MAX_MESSAGE_LINES = 30

_HEADER = "Traceback (most recent call last):"
_RANK_PREFIX = re.compile(r"^\[rank\d+\]:[ ]?", re.MULTILINE)  # torch's own excepthook writes it
_FRAME = re.compile(r'^\s+File "(?P<path>[^"]*)", line \d+,? in (?P<function>.+)$', re.MULTILINE)
_EXCEPTION = re.compile(r"^(?P<type>[A-Za-z_][\w.]*)(?:: ?(?P<message>.*))?$")
_IN_PROJECT = re.compile(r"(?:^|/)((?:trainer|sweep)/(?:\w+/)*\w+\.py)$")

# In this order: a path may hold addresses and numbers, an address holds digits.
_VARIABLE = (
    (re.compile(r"""(["'])~?/[^"']*\1"""), "<path>"),
    (re.compile(r"(?<![\w.])~?(?:/[\w.\-+@%=~]+)+/?"), "<path>"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "#"),
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "#"),
    (re.compile(r"\b(?=[a-f]*[0-9])[0-9a-f]{4,}\b"), "#"),
    (re.compile(r"\d+"), "#"),
    (re.compile(r"[-+]?#(?:[-+.,:_e]*#)*"), "#"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedError:
    """The exception that a log ends with. ``text`` is its last line and what follows it."""

    type: str
    where: str | None
    message: str
    text: str

    @property
    def line(self) -> str:
        """As Python prints it."""
        return f"{self.type}: {self.message}" if self.message else self.type

    @property
    def signature(self) -> str:
        place = f" at {self.where}" if self.where else ""
        message = f": {without_variables(self.message)}" if self.message else ""
        return f"{self.type}{place}{message}"[:MAX_CHARS]


def logged_error(log: str) -> LoggedError | None:
    """The last traceback of ``log``; in a chain of exceptions that is the one that was raised."""
    lines = _RANK_PREFIX.sub("", log).splitlines()
    starts = [
        index
        for index, line in enumerate(lines)
        if line.strip() == _HEADER
        and not (index and lines[index - 1].startswith("Exception ignored"))
    ]
    if not starts:
        return None
    traceback = lines[starts[-1] + 1 :]
    end = next((i for i, line in enumerate(traceback) if line and not line[0].isspace()), None)
    match = _EXCEPTION.match(traceback[end]) if end is not None else None
    if end is None or match is None:
        return None
    text = traceback[end : end + MAX_MESSAGE_LINES]
    message = match["message"] or ""
    if not message or message.endswith(":"):  # "backend='inductor' raised:" says nothing yet
        message = f"{message} {next(filter(None, map(str.strip, text[1:])), '')}".strip()
    return LoggedError(
        type=match["type"].rpartition(".")[2],
        where=_where("\n".join(traceback[:end]), innermost=-1),
        message=message,
        text="\n".join(text),
    )


def crash_frame(log: str) -> str | None:
    """Where faulthandler saw a crash, innermost frame of the project; None where it saw none."""
    _, found, stacks = _RANK_PREFIX.sub("", log).rpartition("Fatal Python error: ")
    crashed = stacks.rpartition("Current thread ")[2].split("\n\n")[0]
    return _where(crashed, innermost=0) if found else None


def without_variables(message: str) -> str:
    """
    >>> without_variables("step 12: no file '/tmp/x 7/a.bin' at 0x7f3a, loss 1.5e-3")
    'step #: no file <path> at #, loss #'
    """
    for pattern, replacement in _VARIABLE:
        message = pattern.sub(replacement, message)
    return message.strip()


def _where(stack: str, *, innermost: int) -> str | None:
    """``file:function`` of the project's innermost frame, else of the innermost at all."""
    frames = [(match["path"], match["function"]) for match in _FRAME.finditer(stack)]
    own = [
        f"{match[1]}:{function}" for path, function in frames if (match := _IN_PROJECT.search(path))
    ]
    others = [f"{path.rpartition('/')[2]}:{function}" for path, function in frames]
    found = own or others
    return found[innermost] if found else None
