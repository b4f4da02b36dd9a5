"""Say what each environment variable of a script is for, by its name: seed, budget, data, slope."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from trainer.script.source.variables import VariableRead

ROLES = {
    "seed": r"SEED",
    "seed?": r"(?:.*_)?SEED(?:_.*)?",
    "seconds": r"MAX_WALLCLOCK_SECONDS",
    "seconds?": r".*(?:WALL_?CLOCK|TIME_LIMIT|TIME_BUDGET|MAX_TIME|(?:MAX|TRAIN|BUDGET)_SEC).*",
    "steps": r"ITERATIONS",
    "steps?": r"(?:NUM_|MAX_|TRAIN_|N_|TOTAL_)*(?:ITERATIONS|ITERS|STEPS)",
    "data": r"DATA_PATH",
    "train files": r"TRAIN_FILES|TRAIN_GLOB|TRAIN_PATTERN",
    "validation files": r"VAL_FILES|VAL_GLOB|VAL_PATTERN",
    "tokenizer": r"TOKENIZER_PATH|TOKENIZER_MODEL",
    "vocabulary": r"VOCAB_SIZE",
    "data?": r"DATA_?(?:SET)?S?_?(?:DIR|ROOT|FOLDER)|(?:.*_)?DATASETS?(?:_(?:DIR|PATH|NAME))?",
    "slope": r".*SLOPE.*|.*LEAKINESS.*|(?:.*_)?NEG(?:ATIVE)?_?BETA",
    "activation": r"(?:.*_)?ACT(?:IVATION)?(?:_(?:FN|FUNC|TYPE|NAME|KIND))?|(?:.*_)?(?:USE_)?"
    r"(?:LEAKY|L?RELU2?|RELU_?SQ|LRELU)(?:_.*)?",
    "sequence": r"TRAIN_SEQ_LEN",
    "scored sequence": r"EVAL_SEQ_LEN",
    "stride": r"EVAL_STRIDE",
    "ranks": r"RANK|LOCAL_RANK|WORLD_SIZE|MASTER_ADDR|MASTER_PORT|LOCAL_WORLD_SIZE",
}
"""Full patterns of names, tried in this order; "?" are look-alikes, which are asked."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable with its role and its default; None where it has none, or several."""

    name: str
    role: str | None
    default: str | None
    lines: tuple[int, ...]


def variables_of(reads: Iterable[VariableRead]) -> dict[str, Variable]:
    """The variables by name, in the order of their first read."""
    by_name: dict[str, list[VariableRead]] = {}
    for read in reads:
        if read.name is not None:
            by_name.setdefault(read.name, []).append(read)
    return {name: _variable(name, found) for name, found in by_name.items()}


def role_of(name: str) -> str | None:
    """What a variable of that name is for, None where the name does not say.

    >>> [role_of(n) for n in ("SEED", "MLP_LEAKY_SLOPE", "MLP_ACT", "NUM_LAYERS", "DATA_SEED")]
    ['seed', 'slope', 'activation', None, 'seed?']
    """
    return next((role for role, text in ROLES.items() if re.fullmatch(text, name)), None)


def _variable(name: str, reads: list[VariableRead]) -> Variable:
    defaults = {read.default for read in reads if read.default is not None}
    default = defaults.pop() if len(defaults) == 1 else None
    return Variable(name, role_of(name), default, tuple(read.line for read in reads))
