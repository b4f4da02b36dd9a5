"""Answer one question from a terminal: ``python -m trainer --recipe local --activation relu2 …``.

The flags write the same ``spec.json`` that a driver writes; with ``--spec`` they are not needed.
Under torchrun every rank runs this. Exit status: 0 a report was written, 2 bad input, 12 out of
memory, 143 stopped by SIGTERM with a checkpoint to go on from, anything else a crash.
"""

import argparse
import faulthandler
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from trainer.activations import ACTIVATIONS, Value
from trainer.config import Recipe, load_recipe, parse_override
from trainer.config.config_errors import ConfigError, validated
from trainer.contract import (
    EXIT_BAD_INPUT,
    EXIT_OUT_OF_MEMORY,
    EXIT_REPORTED,
    EXIT_STOPPED,
    OUTPUT_FILES,
    SPEC_FILE,
    ActivationSpec,
    Report,
    RunSpec,
    read_spec,
)
from trainer.data.manifest import read_manifest
from trainer.files import write_atomically


def run_rank() -> NoReturn:
    """Be the process of a rank, as the command line says, from here to its end."""
    _dump_stacks_on_sigusr1()
    try:
        _exit(main())
    except SystemExit as error:  # of argparse, which has said why
        _exit(error.code if isinstance(error.code, int) else 0)
    except Exception:
        traceback.print_exc()
        _exit(1)


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.out is None and not arguments.describe:
        parser.error("the following arguments are required: --out (or --describe)")
    try:
        if arguments.describe:
            return _describe(arguments)
        spec = read_spec(Path(arguments.spec)) if arguments.spec else _spec_from_flags(arguments)
        return _run(spec, arguments)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        traceback.print_exc()
        print(f"out of memory: {error}", file=sys.stderr)
        return EXIT_OUT_OF_MEMORY


def _run(spec: RunSpec, arguments: argparse.Namespace) -> int:
    from trainer.cell import run
    from trainer.distributed.world import open_world
    from trainer.training.checkpoint import CheckpointSettings, Stopped

    out = Path(arguments.out)
    _make_folder(out, f"--out {out}")
    checkpoint = None
    if arguments.checkpoint is not None:
        checkpoint = CheckpointSettings(Path(arguments.checkpoint), arguments.checkpoint_every_s)
        _make_folder(checkpoint.path.parent, f"--checkpoint {checkpoint.path}")
    with open_world(spec.device, spec.threads) as world:
        if world.is_main:
            for name in OUTPUT_FILES:  # to another question
                (out / name).unlink(missing_ok=True)
            write_atomically(out / SPEC_FILE, spec.model_dump_json(indent=1).encode())
        try:
            report = run(spec, out, world, checkpoint)
        except Stopped as stopped:
            print(stopped, flush=True)
            return EXIT_STOPPED
    if world.is_main:
        print(_summary(report), flush=True)
    return EXIT_REPORTED


def _make_folder(folder: Path, what_for: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{what_for}: this folder cannot be made ({error.strerror}).") from None


def _describe(arguments: argparse.Namespace) -> int:
    from trainer.describe import describe

    recipe, activation, dtype = _question_from_flags(arguments)
    print(json.dumps(describe(recipe, activation, dtype), indent=1))
    return EXIT_REPORTED


def _summary(report: Report) -> str:
    if report.state == "diverged":
        return f"diverged: {report.reason}"
    scores = {
        "pre_quant_bpb": report.pre_quant_bpb,
        "post_quant_bpb": report.post_quant_bpb,
        "post_quant_sliding_bpb": report.post_quant_sliding_bpb,
        "ttt_bpb": report.ttt_bpb,
        "slot_bpb": report.slot_bpb,
    }
    parts = [f"{name}:{value:.8f}" for name, value in scores.items() if value is not None]
    return " ".join([*parts, f"artifact_bytes:{report.artifact_bytes}"])


def _spec_from_flags(arguments: argparse.Namespace) -> RunSpec:
    recipe, activation, dtype = _question_from_flags(arguments)
    data_dir = Path(arguments.data or Path("data") / recipe.data.dataset)
    manifest = read_manifest(data_dir)
    return validated(
        RunSpec,
        {
            "recipe_name": Path(arguments.recipe).stem,
            "recipe": recipe,
            "activation": activation,
            "seed": arguments.seed,
            "budget": arguments.budget,
            "device": arguments.device,
            "dtype": dtype,
            "data_dir": str(data_dir),
            "corpus_sha256": manifest.corpus_sha256,
            "tokenizer_sha256": manifest.tokenizer_sha256,
            "threads": arguments.threads,
            "log_every": arguments.log_every,
        },
        "command line",
    )


def _question_from_flags(arguments: argparse.Namespace) -> tuple[Recipe, ActivationSpec, str]:
    """Recipe, activation and dtype, all that does not depend on data."""
    if arguments.recipe is None or arguments.activation is None:
        raise ConfigError("give either --spec FILE, or --recipe NAME and --activation NAME.")
    recipe = load_recipe(arguments.recipe, dict(map(parse_override, arguments.set)))
    params = dict(map(_parse_param, arguments.activation_param))
    if arguments.slope is not None:
        params["slope"] = arguments.slope
    activation = validated(
        ActivationSpec, {"name": arguments.activation, "params": params}, "activation"
    )
    dtype = arguments.dtype or ("bfloat16" if arguments.device == "cuda" else "float32")
    return recipe, activation, dtype


def _parse_param(text: str) -> tuple[str, Value]:
    key, _, value = text.partition("=")
    try:
        if value.startswith("["):
            return key, [float(number) for number in value.strip("[]").split(",")]
        return key, float(value)
    except ValueError:
        raise ConfigError(
            f"--activation-param {text!r}: write name=number, such as slope=0.5, or a list of one "
            f"for each layer, such as slopes=[0.3,0.5]."
        ) from None


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        sign in str(error) for sign in ("not enough memory", "can't allocate memory")
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer", description="Train and score one cell on this node."
    )
    add = parser.add_argument
    add("--spec", metavar="FILE", help="a spec.json; replaces every flag of a question")
    add("--out", metavar="DIR", help="where report, curve, artifact and layers go")
    add("--checkpoint", metavar="FILE", help="go on from FILE, if it is there, and keep it up")
    add("--checkpoint-every-s", type=float, default=240.0, metavar="N", help="default: %(default)g")
    add("--describe", action="store_true", help="print recipe, tensors and sizes; needs no data")
    add("--recipe", metavar="NAME-OR-PATH", help="a recipe of configs/recipes/ or a TOML file")
    add("--activation", metavar="NAME", help=f"one of {', '.join(ACTIVATIONS)}")
    add("--slope", type=float, help="negative slope of leaky_relu2, 0 to 1")
    add("--activation-param", action="append", default=[], metavar="KEY=VALUE")
    add("--seed", type=int, default=1337)
    add("--budget", default="200steps", help="200steps or 600s (default: %(default)s)")
    add("--data", metavar="DIR", help="default: data/<the recipe's dataset>")
    add("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--dtype", choices=("float32", "bfloat16"), help="default: float32, bfloat16 on cuda")
    add("--threads", type=int, default=1, help="CPU threads of each rank (default: 1)")
    add("--log-every", type=int, default=10, metavar="N")
    return parser


def _dump_stacks_on_sigusr1() -> None:
    """Of every thread, on stderr: of a crash, and at a SIGUSR1, after which the run goes on."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)


def _exit(status: int) -> NoReturn:
    """Exit at once, for nothing is left to do.

    At an ordinary exit the threads of a group of ranks may wait for one that is gone, or abort the
    process ("terminate called without an active exception", seen once after a good run).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    run_rank()
