"""What a plan shows of a script: variables, arguments and the patch."""

from dataclasses import dataclass

from sweep.cli.script_patches import patch_lines
from tests.support.script_spec import script_spec
from trainer.contract import ScriptSpec


@dataclass(frozen=True)
class Named:
    name: str
    spec: ScriptSpec


def test_variables_arguments_and_patch_are_shown():
    script = {
        "env": {"SEED": "{seed}"},
        "arguments": ["--slope", "{slope}", "--name", "a b"],
        "patch": [{"find": "0.5", "replace": "{slope}", "count": 1}],
    }
    cells = [
        Named(f"s{slope}", script_spec("x = 0.5", slope=slope, **script)) for slope in (0.3, 0.5)
    ]
    shown = list(patch_lines(cells))
    assert shown[1:3] == ["  SEED=42", "  arguments: --slope 0.3 --name 'a b'"]
    assert shown[3] == "patched for s0.3; 1 other cells differ in the values alone:"
    assert [line for line in shown if line.startswith(("  +x", "  -x"))] == [
        "  -x = 0.5",
        "  +x = 0.3",
    ]
