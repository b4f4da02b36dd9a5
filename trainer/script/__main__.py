"""Run one cell of a script, or read its output: ``python -m trainer.script``.

python -m trainer.script --spec spec.json --out DIR     patch it, run it, read it, write report.json
python -m trainer.script --read LOG --recipe NAME       print what the recipe's rules read in a log

Exit status: 0 a report was written, 2 bad input or an output that its rules refuse, 1 the script
failed, and how is in ``ends.json``.
"""

import argparse
import json
import sys
from pathlib import Path

from trainer.config import ScriptRecipe
from trainer.config.config_errors import ConfigError
from trainer.contract import (
    ARTIFACT_FILE,
    CURVE_FILE,
    ENDS_FILE,
    EXIT_BAD_INPUT,
    EXIT_REPORTED,
    OUTPUT_FILES,
    REPORT_FILE,
    SPEC_FILE,
    ScriptSpec,
    read_script_spec,
)
from trainer.files import write_atomically
from trainer.script.load import load_any_recipe
from trainer.script.logs.read import missing_stages, read_output
from trainer.script.report import make_report, write_curve
from trainer.script.run import RUN_FOLDER, rendered_here, run_script

EXIT_SCRIPT_FAILED, EXIT_INTERRUPTED = 1, 130


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        if options.read is not None:
            print(json.dumps(_read(Path(options.read), options.recipe), indent=1))
            return EXIT_REPORTED
        return _run(read_script_spec(Path(options.spec)), Path(options.out))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _run(spec: ScriptSpec, out: Path) -> int:
    out.mkdir(parents=True, exist_ok=True)
    for name in (*OUTPUT_FILES, ENDS_FILE):  # to another question
        (out / name).unlink(missing_ok=True)
    write_atomically(out / SPEC_FILE, spec.model_dump_json(indent=1).encode())
    rendered, rules = rendered_here(spec), spec.recipe.script.read
    ended = run_script(spec, rendered, out)
    if not ended.is_good:
        return EXIT_SCRIPT_FAILED
    where = f"output of {rendered.main}"
    reading = read_output(ended.lines, rules, where)
    artifact = _artifact(spec, out, where)
    weighed = None if artifact is None else len(artifact)
    report = make_report(spec, rendered, reading, weighed, where)
    write_curve(reading, out / CURVE_FILE)
    if artifact is not None:
        write_atomically(out / ARTIFACT_FILE, artifact)
    write_atomically(out / REPORT_FILE, report.model_dump_json(indent=1).encode())
    return EXIT_REPORTED


def _artifact(spec: ScriptSpec, out: Path, where: str) -> bytes | None:
    name = spec.recipe.script.artifact_file
    if name is None:
        return None
    try:
        return (out / RUN_FOLDER / name).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{where}: it left no {name} ({error.strerror}), which script.artifact_file names."
        ) from None


def _read(log: Path, recipe_name: str | None) -> dict[str, object]:
    """What the rules of a recipe read in a log that is there, to try them without a run."""
    if recipe_name is None:
        raise ConfigError("--read LOG needs --recipe NAME, whose [script.read] are the rules.")
    recipe = load_any_recipe(recipe_name)
    if not isinstance(recipe, ScriptRecipe):
        raise ConfigError(f"recipe {recipe_name!r} has no [script], so it has no rules to read by.")
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"{log}: this cannot be read ({error.strerror}).") from None
    reading = read_output(text.split("\n"), recipe.script.read, str(log))
    return {
        "stages": {
            name: {"bpb": s.bpb, "line": s.said.number} for name, s in reading.stages.items()
        },
        "missing": missing_stages(reading, recipe.script.read),
        "values": {name: said.value for name, said in reading.values.items()},
        "steps_in_curve": len(reading.curve),
        "activations": [said.text for said in reading.activations],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.script",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--spec", metavar="FILE", help="a spec.json")
    which.add_argument("--read", metavar="LOG", help="a log to read by the rules of --recipe")
    parser.add_argument("--out", metavar="DIR", default=".", help="where everything goes")
    parser.add_argument("--recipe", metavar="NAME-OR-PATH")
    return parser


if __name__ == "__main__":
    sys.exit(main())
