"""Over fifty scripts that are drawn: what a draft sets is set right, and the rest is asked."""

import pytest

from sweep.draft.draft import write_draft
from tests.support.script_generator import SLOPE, generated, measured
from trainer.script.load import load_any_recipe
from trainer.script.patching import apply
from trainer.script.placeholders import fill

SEEDS = range(50)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_wrong_is_drafted_silently(seed, tmp_path):
    script = generated(seed)
    for probe, expected in script.probes.items() if not script.asked else ():
        assert measured(script.plain, probe, {}) == pytest.approx(expected(SLOPE))
    path = tmp_path / "train.py"
    path.write_text(script.text, encoding="utf-8")
    draft = write_draft(str(path), folder=tmp_path / "recipes")
    recipe = load_any_recipe(str(draft.path))
    sets = [*recipe.script.patch, *(v for v in recipe.script.env.values() if v == "{slope}")]
    for text in script.asked:
        number = script.plain.count("\n", 0, script.plain.rindex(text)) + 1
        assert f"line {number:,}" in draft.report.partition("must check")[2]
        assert sets == []
    if script.asked:
        return
    for slope in (0.3, 0.0, 1.0):
        values = {"slope": f"{slope:g}", "neg_beta": f"{slope**2:.12g}", "seed": "1"}
        source = recipe.sources["train.py"]
        for patch in recipe.script.patch:
            source = apply(patch, source, fill(patch.replace, values, "patch"), "patch", "train.py")
        variables = {
            name: fill(text, values | {"data_dir": "data"}, "env")
            for name, text in recipe.script.env.items()
        }
        for probe, expected in script.probes.items():
            assert measured(source, probe, variables) == pytest.approx(expected(slope), abs=1e-9)


def test_the_scripts_are_of_every_kind():
    scripts = [generated(seed) for seed in SEEDS]
    assert 10 <= sum(bool(script.asked) for script in scripts) <= 30
    assert sum(script.variable is not None for script in scripts) >= 5
    assert sum(script.text != script.plain for script in scripts) >= 5
