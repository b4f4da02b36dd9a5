"""The example of docs/scripts.md in variants that differ in how they have the slope: their texts,
recipes and sweeps, and runs by hand.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.commands import ROOT, environment
from trainer.script.source.packing import pack

FILE = "train_golf.py"
EXAMPLE = ROOT / "docs" / "examples" / FILE
VARIANTS = ("environment", "constants", "packed", "wrong_backward")
SLOPE = 0.5  # of the constants

# What a person changes for another slope: text of the script, and what stands there instead.
FORWARD = ("torch.where(x > 0, x, 0.5 * x)", "torch.where(x > 0, x, {slope} * x)")
BACKWARD = ("2.0 * x, 0.5 * x)", "2.0 * x, 2.0 * {slope}**2 * x)")
EAGER = ("negative_slope=0.5", "negative_slope={slope}")
EDITS = {
    "environment": (),
    "constants": (FORWARD, BACKWARD, EAGER),
    "packed": (FORWARD, BACKWARD, EAGER),
    "wrong_backward": (FORWARD, EAGER),  # as who looks for 0.5 would
}

PACKING = """import lzma as L,base64 as B
exec(L.decompress(B.b85decode("PAYLOAD"),format=L.FORMAT_RAW,filters=[{"id":L.FILTER_LZMA2}]))
"""
MLP_MULT = '    mlp_mult = int(os.environ.get("MLP_MULT", 3))\n'
VARIABLE = {
    MLP_MULT: f'{MLP_MULT}    negative_slope = float(os.environ.get("NEGATIVE_SLOPE", 0.5))\n',
    FORWARD[0]: "torch.where(x > 0, x, args.negative_slope * x)",
    BACKWARD[0]: "2.0 * x, 2.0 * args.negative_slope**2 * x)",
    EAGER[0]: "negative_slope=args.negative_slope",
}

RECIPE = """
[data]
dataset = "stdlib-512"
vocab_size = 512

[script]
path = "{path}"
launch = "{launch}"
artifact_file = "final_model.int6.ptz"

[script.env]
DATA_PATH = "{{data_dir}}"
TOKENIZER_PATH = "{{tokenizer}}"
SEED = "{{seed}}"
VAL_TOKENS = "1024"
{env}
[script.steps_env]
ITERATIONS = "{{steps}}"
MAX_WALLCLOCK_SECONDS = "0"

[script.seconds_env]
ITERATIONS = "1000000"
MAX_WALLCLOCK_SECONDS = "{{seconds}}"

[script.read]
forms = ["parameter-golf"]
pre_quant = {{ label = "DIAGNOSTIC post_ema", window = 32, stride = 32 }}
post_quant = {{ label = "final_int6_roundtrip", window = 32, stride = 32 }}
sliding = {{ label = "final_int6_sliding_window", window = 32, stride = 16 }}
{patches}"""

PATCH = """
[[script.patch]]
find = '{find}'
replace = '{replace}'
count = 1
"""

SWEEP = """
recipe = "{recipe}"
seeds = {seeds}
budgets = ["4steps"]
reference = "leaky_relu2-s{slopes[0]}"
estimate_cell_s = 6.0

[[activations]]
name = "leaky_relu2"
slope = {slopes}

[node]
cpus = 1
max_leases = 2

[limits]
no_progress_s = 60.0
slow_phase_s = 60.0
grace_s = 60.0
"""


def variant(name: str) -> str:
    """The example's text: with the slope in constants at three sites, or in a variable; the packed
    one is made of the constants, and another has a backward that fits a slope of 0.3.
    """
    text = EXAMPLE.read_text(encoding="utf-8")
    if name == "environment":
        for old, new in VARIABLE.items():
            text = _replaced(text, old, new)
    if name == "wrong_backward":
        return _replaced(text, BACKWARD[0], "2.0 * x, 0.18 * x)")
    return pack(text, PACKING) if name == "packed" else text


def edited(name: str, slope: float) -> str:
    """The plain script with the slope put in by hand."""
    text = variant("constants" if name == "packed" else name)
    for old, new in EDITS[name]:
        text = _replaced(text, old, new.format(slope=slope))
    return text


def recipe(name: str, path: str = FILE) -> str:
    """The recipe of a variant, whose script lies at ``path``."""
    return RECIPE.format(
        path=path,
        launch="torchrun" if name == "constants" else "python",
        env='NEGATIVE_SLOPE = "{slope}"\n' if name == "environment" else "",
        patches="".join(PATCH.format(find=old, replace=new) for old, new in EDITS[name]),
    )


def write_recipe(folder: Path, name: str) -> Path:
    """A variant and its recipe in ``folder``: the recipe's file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(variant(name), encoding="utf-8")
    path = folder / f"{name}.toml"
    path.write_text(recipe(name), encoding="utf-8")
    return path


def write_script_sweep(
    path: Path,
    recipe_file: Path,
    *,
    slopes: Sequence[float] = (0.5, 0.3, 0.8),
    seeds: Sequence[int] = (1, 2),
) -> Path:
    """A sweep over a script, compared with the first of ``slopes``."""
    text = SWEEP.format(recipe=recipe_file, slopes=list(slopes), seeds=list(seeds))
    path.write_text(text, encoding="utf-8")
    return path


def run_by_hand(
    folder: Path,
    text: str,
    data_dir: Path,
    seed: int,
    steps: int = 4,
    launcher: Sequence[str] = (),
    **variables: str,
) -> str:
    """What a script prints that a person starts in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(text, encoding="utf-8")
    given = {
        "DATA_PATH": str(data_dir),
        "TOKENIZER_PATH": str(data_dir / "tokenizer.model"),
        "SEED": str(seed),
        "VAL_TOKENS": "1024",
        "ITERATIONS": str(steps),
        "MAX_WALLCLOCK_SECONDS": "0",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *launcher, FILE],
        cwd=folder,
        env=environment(**given | variables),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)
