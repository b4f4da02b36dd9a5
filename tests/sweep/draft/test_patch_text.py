"""A drafted patch changes the constants that it is for, and nothing else of the script."""

import pytest

from sweep.draft.activation_plan import plan_activation
from trainer.script.patching import apply
from trainer.script.placeholders import fill

CODE = "F.leaky_relu(h, 0.5).square()"
SOURCES = [
    f'"""{CODE}"""\n# y = {CODE}\ny = @{CODE}\n',
    f'def f(h):\n    """\n    return {CODE}\n    """\n    return @{CODE}\n',
    f"y = @{CODE}\nz = 1  # not {CODE}\n",
    f"y = @{CODE} + @{CODE}\n",
    f"y = @{CODE}; z = F.leaky_relu(q, 0.2) + 1; w = @F.leaky_relu(k,0.5)**2\n",
    "y = [@F.leaky_relu(h,\n    0.5).square(),\n    @F.leaky_relu(h, 0.5)**2]\n",
    f'log(f"{{x}} {{{{slope}}}} {{y:.2f}}", @{CODE})\n',
    f"é = 'ü'; y = @{CODE}  # ü: {{slope}}\r\nz = @{CODE}\r\n",
    f"a = @{CODE}\nb = @{CODE}\nc = @{CODE}\n",
]


@pytest.mark.parametrize("marked", SOURCES)
def test_a_patch_changes_its_constants_alone(marked):
    """The constant after each @ becomes another; every other character stays."""
    source = marked.replace("@", "")
    first, *others = marked.split("@")
    expected = first + "".join(part.replace("0.5", "0.3", 1) for part in others)
    plan = plan_activation(source, {})
    assert plan.open == []
    for drafted in plan.patches:
        replacement = fill(drafted.patch.replace, {"slope": "0.3"}, "patch")
        source = apply(drafted.patch, source, replacement, "patch", "script")
    assert source == expected


def test_a_constant_with_no_text_of_its_own_is_asked():
    block = f"def f(h):\n    return {CODE}\n\n\n"
    text = "'''\n" + block * 12 + "'''\n" + block * 12
    assert any("stands elsewhere too" in question for question in plan_activation(text, {}).open)
