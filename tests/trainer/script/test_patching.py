"""Placeholders are filled exactly, and a patch changes what it says it changes, or is refused."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.script_spec import MAIN, script_spec
from trainer.config.config_errors import ConfigError
from trainer.script.patching import diff, render
from trainer.script.placeholders import fill, placeholders

SOURCE = """\
def forward(x, s=0.5):
    return max(x, 0.5 * x) ** 2
def backward(x):
    return 2 * x if x > 0 else 0.5 * x  # 2·0.5²
"""
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True)


def files(*patches, source=SOURCE, **spec):
    return render(script_spec(source, patch=list(patches), **spec)).files[MAIN]


def patch(find, replace, count=1, **more):
    return {"find": find, "replace": replace, "count": count, **more}


def refusal(*patches, **spec):
    with pytest.raises(ConfigError) as caught:
        files(*patches, **spec)
    return str(caught.value)


@given(st.lists(st.text() | st.sampled_from(["{", "}", "{{", "}}", "{x"])), st.text())
def test_what_is_not_a_name_in_braces_stays_as_it_is(parts, value):
    text = "".join(parts)
    assume(not re.search(r"\{\w+\}", text))
    assert fill(text, {"x": value}, "here") == text
    assert placeholders(text) == []


@given(NAMES, st.text(), st.text(alphabet="ab{}"), st.text(alphabet="ab{}"))
def test_a_name_in_braces_is_its_value_and_in_two_pairs_itself(name, value, before, after):
    assume(not before.endswith("{"))
    assume(not after.startswith("}"))
    assume(not placeholders(before + after))
    assume("{{" not in before + after)
    assert fill(f"{before}{{{name}}}{after}", {name: value}, "here") == before + value + after
    assert fill(f"{before}{{{{{name}}}}}{after}", {}, "here") == f"{before}{{{name}}}{after}"


def test_a_value_is_not_filled_again():
    assert fill("{a}", {"a": "{b}", "b": "no"}, "here") == "{b}"


@pytest.mark.parametrize(
    ("spec", "text", "filled"),
    [
        (
            {},
            "{seed} {slope} {neg_beta} {activation} {steps} {gpus}",
            "42 0.5 0.25 leaky_relu2 4 1",
        ),
        ({"slope": 0.1 + 0.2}, "{slope} {neg_beta}", "0.3 0.09"),
        ({"activation": {"name": "relu2"}}, "{slope} {neg_beta} {activation}", "0 0 relu2"),
        ({"budget": "600s", "env": {}}, "{seconds}", "600"),
        ({"axes": {"lr": 0.02, "layers": 11, "name": "a"}}, "{lr} {layers} {name}", "0.02 11 a"),
    ],
)
def test_each_name_has_the_value_of_the_cell(spec, text, filled):
    assert files(patch("def backward(x)", text), **spec).count(f"\n{filled}:\n") == 1


@pytest.mark.parametrize(
    ("spec", "name", "also"),
    [
        ({}, "seconds", "steps"),
        ({"budget": "60s", "env": {}}, "steps", "seconds"),
        ({"activation": {"name": "asqu"}}, "slope", "activation"),
        ({}, "slpe", "Did you mean 'slope'?"),
        ({}, "data_dir", "seed"),
        ({}, "loss", "{{loss}}"),
    ],
)
def test_a_name_without_a_value_is_refused_with_those_that_have_one(spec, name, also):
    message = refusal(patch("0.5 *", f"{{{name}}} *", 2), **spec)
    assert message.startswith("recipe mine: patch 1, for ")
    assert f" and a budget of {spec.get('budget', '4steps')}: {{{name}}} has no value" in message
    assert also in message


def test_paths_are_filled_in_by_the_node():
    asked = script_spec(
        SOURCE, env={"D": "{data_dir}", "T": "{tokenizer}"}, arguments=["{data_dir}"]
    )
    assert render(asked).variables == {"D": "{data_dir}", "T": "{tokenizer}"}
    here = render(asked, "/data", "/data/tokenizer.model")
    assert here.variables == {"D": "/data", "T": "/data/tokenizer.model"}
    assert here.arguments == ("/data",)
    assert here.sha256 == render(asked).sha256


@given(st.lists(st.sampled_from(["a", "b", "\n", "ab", "é"])), st.integers(1, 4), st.booleans())
def test_a_patch_changes_as_many_places_as_it_says_or_nothing(parts, count, regex):
    source = "".join(parts)
    change = patch("ab", "{seed}", count, regex=regex)
    if source.count("ab") == count:
        assert files(change, source=source) == source.replace("ab", "42")
    else:
        assert (
            f"matches at {source.count('ab')} places of train.py, count says {count}."
            in refusal(change, source=source)
        )


def test_too_many_matches_are_shown_with_their_lines():
    message = refusal(patch("0.5", "{slope}"))
    assert "the text '0.5' matches at 4 places of train.py, count says 1." in message
    for line in ("line 1: def forward(x, s=0.5):", "line 4: return 2 * x if x > 0 else 0.5 * x"):
        assert f"\n  {line}" in message
    many = refusal(patch("x", "y"), source="x\n" * 20)
    assert many.count("\n  line ") == 8
    assert "\n  and 12 more\n" in many


def test_a_text_is_no_regular_expression_and_its_replacement_is_no_template():
    assert "max(x, {x} * x)".format(x=r"\1") in files(patch("0.5 * x)", r"\1 * x)"))
    assert "matches at 0 places" in refusal(patch("max.x", "y"))


def test_a_regular_expression_takes_its_groups_along():
    change = patch(r"^(def \w+\()x", r"\1y", 2, regex=True)
    assert re.findall(r"def \w+\(y", files(change)) == ["def forward(y", "def backward(y"]
    assert "else 2.0 * 0.5**2 * x" in files(
        patch(r"(?<=else )[\d.]+", "2.0 * {slope}**2", regex=True)
    )


def test_an_empty_match_is_no_place():
    assert files(patch("z*", "y", 1, regex=True), source="azzb") == "ayb"
    assert "matches at 0 places" in refusal(patch("z*", "y", regex=True), source="ab")


@pytest.mark.parametrize("replace", [r"\2", r"\g<name>", "\\"])
def test_a_template_that_names_no_group_is_refused(replace):
    message = refusal(patch("(0.25)?def backward", replace, regex=True))
    assert f"replace {replace!r} is no template" in message


def test_later_patches_see_what_earlier_ones_left():
    first, second = patch("max(x, 0.5 * x)", "act(x)"), patch("act(x)", "f(x)")
    assert "return f(x) ** 2" in files(first, second)
    assert "recipe mine: patch 1: " in refusal(second, first)


def test_only_those_activations_are_patched_that_a_patch_is_for():
    changes = [patch("backward", name, only=[name]) for name in ("relu2", "leaky_relu2-s0.3")]
    assert files(*changes) == SOURCE
    assert "def leaky_relu2-s0.3(x)" in files(*changes, slope=0.3)
    assert "def relu2(x)" in files(*changes, activation={"name": "relu2"})
    assert "def leaky(x)" in files(patch("backward", "leaky", only=["leaky_relu2"]))


def test_another_file_is_patched_by_its_name():
    message = refusal(patch("0.5", "1", file="model.py"))
    assert "file 'model.py' is none of this script's: train.py." in message


def test_the_diff_shows_what_is_changed_and_nothing_else():
    asked = script_spec(SOURCE, patch=[patch("max(x, 0.5 * x)", "max(x, {slope} * x)")], slope=0.3)
    changed = [
        line for line in diff(asked, render(asked)).split("\n") if re.match(r"[-+][^-+]", line)
    ]
    assert changed == ["-    return max(x, 0.5 * x) ** 2", "+    return max(x, 0.3 * x) ** 2"]
    same = script_spec(SOURCE)
    assert diff(same, render(same)) == ""


def test_what_runs_alike_has_one_hash():
    change = patch("max(x, 0.5 * x)", "max(x, {slope} * x)")
    (a, b, c) = (
        render(script_spec(SOURCE, patch=[change], slope=slope, seed=seed)).sha256
        for slope, seed in ((0.3, 1), (0.3, 2), (0.5, 1))
    )
    assert a == b != c
    assert c == render(script_spec(SOURCE)).sha256
