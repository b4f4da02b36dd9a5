"""Watch what a script prints: relay it to its log, keep its lines, and say how far it is."""

import codecs
import io
import re
from pathlib import Path
from typing import BinaryIO, Final

from trainer.config.config_errors import ConfigError
from trainer.config.script import Script
from trainer.progress import Progress
from trainer.script.logs.log_grammar import KINDS

QUIET: Final = "quiet"
MAX_BYTES: Final = 64 << 20
MAX_LINE_CHARS: Final = 1 << 20


class Output:
    """The output of rank 0, fed as bytes, and what ``progress.json`` says of it.

    While the script trains, silence for long is a hang. The phase is ``train`` after a line of the
    training curve, ``quiet`` after one after which the recipe expects silence, else ``script``.
    With the shared forms every line but those of training and of test-time training may be
    followed by silence: compiling, quantizing and scoring take minutes without a word.
    """

    def __init__(self, script: Script, folder: Path, log: BinaryIO) -> None:
        self._log = log
        self._progress = Progress(folder, enabled=True)
        self._uses_forms = bool(script.read.forms)
        patterns = map(re.compile, script.read.lines)
        self._curve = [pattern for pattern in patterns if "train_loss" in pattern.groupindex]
        self._quiet = [re.compile(p) for p in script.progress.quiet_after]
        self._line = re.compile(script.progress.line) if script.progress.line else None
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
        self._rest, self._num_bytes = "", 0
        self.lines: list[str] = []

    def feed(self, data: bytes) -> None:
        """Take in what was printed; a ConfigError where that is more than can be kept."""
        self._log.write(data)
        self._log.flush()
        self._num_bytes += len(data)
        if self._num_bytes > MAX_BYTES:
            raise ConfigError(
                f"the script has printed more than {MAX_BYTES >> 20} MiB, which is more than is "
                f"kept and read. Make it print less."
            )
        *whole, self._rest = (self._rest + self._decoder.decode(data)).split("\n")
        if len(self._rest) > MAX_LINE_CHARS:
            whole, self._rest = [*whole, self._rest], ""
        for line in whole:
            self._take(line)

    def end(self) -> None:
        """Nothing more is printed."""
        last = self._rest + self._decoder.decode(b"", final=True)
        for line in last.splitlines():
            self._take(line)
        self._progress.report("done")

    def _take(self, line: str) -> None:
        self.lines.append(line)
        if not line.strip():
            return
        found = self._training(line)
        if found is not None:
            self._progress.report("train", **found)
        elif any(pattern.search(line) for pattern in self._quiet) or self._is_quiet_form(line):
            self._progress.report(QUIET)
        elif self._line is None or self._line.search(line):
            self._progress.report("script")

    def _training(self, line: str) -> dict[str, float | None] | None:
        """What a line of the training curve says for the display; None for any other line."""
        known: dict[str, str | None]
        if self._uses_forms and (match := KINDS["train"].fullmatch(line)):
            known = match.groupdict()
            step, total = int(known["step"] or 0), int(known["iterations"] or 0)
            return {
                "step": step,
                "remaining_steps": max(0, total - step),
                "step_ms": _finite(known["step_avg_ms"]),
                "train_loss": _finite(known["loss"]),
            }
        for pattern in self._curve:
            if match := pattern.search(line):
                known = match.groupdict()
                return {
                    name: _finite(known.get(name)) for name in ("step", "step_ms", "train_loss")
                }
        return None

    def _is_quiet_form(self, line: str) -> bool:
        return self._uses_forms and not KINDS["chunk"].fullmatch(line)


def _finite(text: str | None) -> float | None:
    """For a progress file, which is JSON and knows no nan."""
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and abs(value) < float("inf") else None
