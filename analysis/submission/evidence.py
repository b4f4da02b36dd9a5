"""What an attempt at a script's cell left: its log, the files that ran, and how they were run."""

import ast
import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from sweep.store.files import Files
from trainer.config.config_errors import ConfigError, validated
from trainer.contract import ScriptSpec
from trainer.script.patching import Rendered, render
from trainer.script.placeholders import placeholders
from trainer.script.run import DIFF_FILE, OF_THE_MACHINE, PACKING_FILE
from trainer.script.source.packing import pack
from trainer.script.source.syntax import parse_script

MAIN = "train_gpt.py"
_RANK_0 = re.compile(r"\A--- rank 0 ---\n(.*?)(?=^--- (?:rank \d+|agent) ---$|\Z)", re.M | re.S)
_CUT = "[the first "
_OF_EVERY_CELL = {"seed", "steps", "seconds", "data_dir", "tokenizer", "gpus"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """``log`` of rank 0; ``files`` as they are submitted, the script as ``MAIN``; the command.

    A file beside the script that is called ``MAIN`` keeps that name, and the script its own. One
    that was packed ran as plain text, and is packed again in ``files``. ``given``: variables and
    arguments of the command without which it is another cell, such as SLOPE=0.3 or --slope 0.3.
    ``imports``: packages that do not come with Python.
    """

    log: str
    files: Mapping[str, str]
    command: str
    given: tuple[str, ...]
    imports: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """The size of the files."""
        return sum(len(text.encode()) for text in self.files.values())


def read_evidence(files: Files, row: Mapping[str, Any]) -> Evidence:
    """What the attempt of ``row`` left; a ConfigError says what is missing or was changed."""
    if row["log"] is None:
        raise ConfigError("no log was kept.")
    # Of an answer that came late the log is under the attempt's first number, and so is the script.
    folder = f"scripts/{PurePosixPath(row['log']).stem}"
    kept = {name: _text(files, f"{folder}/{name}") for name in files.names(folder)}
    packing = kept.pop(PACKING_FILE, None)
    kept.pop(DIFF_FILE, None)
    ran, config = _rendered(row, kept, files.where(folder)), json.loads(row["config_json"])
    script = ran.files[ran.main] if packing is None else pack(ran.files[ran.main], packing)
    return Evidence(
        log=rank_0(_text(files, row["log"]), row["log"]),
        files={_name(ran): script} | {n: text for n, text in ran.files.items() if n != ran.main},
        command=_command(ran, config),
        given=tuple(_given(ran, config["recipe"]["script"])),
        imports=tuple(_imports(ran.files)),
    )


def rank_0(log: str, where: str) -> str:
    """The log of rank 0, of one that may hold several ranks'; a ConfigError where it was cut."""
    found = _RANK_0.match(log)
    own = log if found is None else found[1]
    if own.startswith(_CUT):
        raise ConfigError(f"{where}: {own.splitlines()[0]}; a log that was cut shows no result.")
    return own


def _imports(files: Mapping[str, str]) -> list[str]:
    own = {name.removesuffix(".py") for name in files}
    names = set()
    for name, text in files.items():
        for node in ast.walk(parse_script(text, name)) if name.endswith(".py") else ():
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    return sorted({name.split(".")[0] for name in names} - sys.stdlib_module_names - own)


def _rendered(row: Mapping[str, Any], kept: Mapping[str, str], where: str) -> Rendered:
    """The files that ran with their variables and arguments; those are in the row's question."""
    config = json.loads(row["config_json"])
    recipe = config["recipe"]
    mains = sorted(set(kept) - set(recipe["sources"]))
    if len(mains) != 1:
        found = ", ".join(kept) or "nothing"
        raise ConfigError(f"{where}: the script as it ran is to be kept here; here is {found}.")
    recipe["script"] = {**recipe["script"], "path": mains[0], "patch": []}  # kept as they ran
    recipe["sources"] = dict(kept)
    config["data_dir"] = ""
    ran = render(validated(ScriptSpec, config, f"cell {row['cell']}"))
    if ran.sha256 != row["script_sha256"]:
        raise ConfigError(f"{where}: these are not the files that ran (script_sha256 differs).")
    return ran


def _name(ran: Rendered) -> str:
    return ran.main if MAIN in ran.files else MAIN


def _given(ran: Rendered, script: Mapping[str, Any]) -> Iterator[str]:
    """What has a value of its own in the command: not that of every cell, nor of a machine."""
    for name, text in sorted(script.get("env", {}).items()):
        names = set(placeholders(text))
        if not OF_THE_MACHINE.fullmatch(name) and (not names or names - _OF_EVERY_CELL):
            yield f"{name}={ran.variables[name]}"
    texts = script.get("arguments", [])
    for before, text, value in zip(["", *texts], texts, ran.arguments, strict=False):
        if set(placeholders(text)) - _OF_EVERY_CELL:
            yield f"{before} {value}" if before.startswith("-") else value


def _command(ran: Rendered, config: Mapping[str, Any]) -> str:
    launch = config["recipe"]["script"].get("launch", "torchrun")
    ranks = f"torchrun --standalone --nproc_per_node={config['ranks']}"
    start = ranks if launch == "torchrun" else "python"
    variables = [f"{name}={shlex.quote(value)}" for name, value in ran.variables.items()]
    return " ".join([*variables, start, shlex.quote(_name(ran)), *map(shlex.quote, ran.arguments)])


def _text(files: Files, name: str) -> str:
    try:
        return files.read(name).decode(errors="replace")
    except FileNotFoundError:
        raise ConfigError(f"{files.where(name)}: there is no such file.") from None
