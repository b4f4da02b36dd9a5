"""``--where`` selects the cells of which a condition is true, and refuses what it cannot read."""

import contextlib
import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.cli.selection import Selection, positions, values_of
from tests.support.grids import cells_of, sweep_spec
from trainer.config.config_errors import ConfigError
from trainer.contract import canonical_json

SLOPES = [0.0, 0.1, 0.3, 0.5, 0.9]
SEEDS = [1, 42, 1337]
RATES = [0.0175, 0.025]
CELLS = cells_of(
    sweep_spec(
        seeds=SEEDS,
        budgets=["4steps", "60s"],
        activations=[{"name": "relu2"}, {"name": "leaky_relu2", "slope": SLOPES}, {"name": "asqu"}],
        grid={"set": {"optim.matrix_lr": RATES}},
    )
)
FRAME = pd.DataFrame([values_of(cell) for cell in CELLS])
NUMBERS = {"slope": SLOPES, "seed": SEEDS, "matrix_lr": RATES, "budget_value": [4, 60.0]}
TEXTS = {"activation": ["relu2", "leaky_relu2", "asqu"], "budget_kind": ["steps", "seconds"]}


def matching(cells, expression):
    return [cells[i] for i in positions([values_of(cell) for cell in cells], expression)]


def text_of(*, present_only: bool) -> st.SearchStrategy[str]:
    """Conditions; those that compare nothing absent mean the same to pandas."""
    number = st.sampled_from([n for n in NUMBERS if not present_only or n != "slope"]).flatmap(
        lambda name: st.builds(
            lambda op, value: f"{name} {op} {value!r}",
            st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
            st.sampled_from(NUMBERS[name]) | st.floats(-1, 100),
        )
    )
    text = st.sampled_from(sorted(TEXTS)).flatmap(
        lambda name: st.builds(
            lambda op, value: f"{name} {op} {json.dumps(value)}",
            st.sampled_from(["==", "!="]),
            st.sampled_from(TEXTS[name]),
        )
    )
    member = st.lists(st.sampled_from(SEEDS), min_size=1).map(lambda seeds: f"seed in {seeds}")
    return st.recursive(
        number | text | member,
        lambda inner: (
            st.builds(
                lambda word, a, b: f"({a}) {word} ({b})",
                st.sampled_from(["and", "or"]),
                inner,
                inner,
            )
            | inner.map(lambda a: f"not ({a})")
        ),
        max_leaves=5,
    )


@given(text_of(present_only=True))
def test_a_condition_selects_what_a_pandas_query_selects(expression):
    expected = FRAME.query(expression, engine="python")["cell"].tolist()
    assert [cell.name for cell in matching(CELLS, expression)] == expected


@given(text_of(present_only=False))
def test_a_condition_and_its_negation_share_the_grid_out(expression):
    yes, no = matching(CELLS, expression), matching(CELLS, f"not ({expression})")
    assert {c.id for c in yes}.isdisjoint(c.id for c in no)
    assert len(yes) + len(no) == len(CELLS)
    assert yes == [cell for cell in CELLS if cell in yes]


def test_every_comparison_with_an_absent_value_is_false():
    """``!=`` and ``not in`` too."""
    for op in ("==", "!=", "<", "<=", ">", ">="):
        for expression in (f"slope {op} 0.3", f"0.3 {op} slope", f"slope {op} slope"):
            assert {c.slope for c in matching(CELLS, expression)} <= set(SLOPES)
    for expression in ("slope in (0.3,)", "slope not in (0.3,)"):
        assert {c.slope for c in matching(CELLS, expression)} <= set(SLOPES)


def test_absence_itself_can_be_asked_for():
    absent = matching(CELLS, "slope is None")
    assert {cell.spec.activation.name for cell in absent} == {"relu2", "asqu"}
    assert len(absent) + len(matching(CELLS, "slope is not None")) == len(CELLS)


@given(st.floats(-1e6, 1e6), st.floats(-4e-12, 4e-12))
def test_two_numbers_are_equal_exactly_where_a_cells_id_takes_them_to_be(number, noise):
    other = number + number * noise
    equal = len(positions([{"slope": number}, {"slope": None}], f"slope == {other!r}")) == 1
    assert equal == (canonical_json(number) == canonical_json(other))


def test_comparisons_chain():
    chained = matching(CELLS, "0.1 < slope <= 0.5")
    assert chained == matching(CELLS, "0.1 < slope and slope <= 0.5")
    assert {cell.slope for cell in chained} == {0.3, 0.5}


def test_a_value_of_the_grid_is_known_by_its_leaf_and_by_its_whole_name():
    short = matching(CELLS, "matrix_lr == 0.025")
    assert short == matching(CELLS, "optim.matrix_lr == 0.025")
    assert len(short) == len(CELLS) // 2


REFUSED = {
    "slop == 0.3": (r"unknown name 'slop'.*Did you mean 'slope'\?.*Known: .*matrix_lr", 0),
    "seed == 42 or activation == relu": ("unknown name 'relu'; text stands in quotes", 28),
    "seed == 42 and": ("invalid syntax", 14),
    "seed = 42": ("invalid syntax", 5),
    "activation == 'é' and seed.bit_length() > 3": ("not understood", 22),
    "__import__('os').system('true')": ("not understood", 0),
    "seed == 42 if slope else seed": ("not understood", 0),
    "seed + 1 == 43": ("not understood", 0),
    "seed == '42'": ("42 is a number and '42' is text|1 is a number and '42' is text", 0),
    "seed": ("is a number and no condition", 0),
    "seed in (42)": (r"`in` wants a list, such as \(42,\)", 9),
    "slope is 0.3": ("there can only be None", 9),
    "seed == [x for x in (1,)]": ("not understood", 8),
}


def test_what_cannot_be_read_is_shown_with_a_mark_where():
    for expression, (message, column) in REFUSED.items():
        with pytest.raises(ConfigError, match=message) as caught:
            matching(CELLS, expression)
        shown = str(caught.value).splitlines()
        assert shown[1] == f"  {expression}"
        assert shown[2] == " " * (2 + column) + "^"


def test_a_mistake_in_a_part_that_is_never_reached_is_found_all_the_same():
    with pytest.raises(ConfigError, match="unknown name 'nonsense'"):
        matching(CELLS, "seed == 1 or seed != 1 or nonsense == 1")


@given(st.text(max_size=30) | st.text("()[]'\"\\ \n=<>.,0159abenotridsl", max_size=40))
def test_any_text_selects_cells_or_is_refused_in_a_sentence(text):
    with contextlib.suppress(ConfigError):
        assert {c.id for c in matching(CELLS, text)} <= {c.id for c in CELLS}


def test_a_deep_nest_is_refused_and_breaks_nothing():
    for text in ("(" * 5000 + "1" + ")" * 5000, "not " * 5000 + "seed == 1", "-" * 5000 + "1"):
        with pytest.raises(ConfigError, match="--where"):
            matching(CELLS, text)


def test_a_condition_that_no_cell_meets_is_said():
    with pytest.raises(ConfigError, match="none of the 84 cells is so"):
        Selection("seed == 43").cells(CELLS)


def test_what_is_asked_of_a_cell_survives_being_kept_as_json():
    kept = json.loads(json.dumps([values_of(cell) for cell in CELLS]))
    expression = "slope >= 0.3 and seed == 42 and budget_kind == 'steps'"
    positions = Selection(expression).positions(kept)
    assert [CELLS[i] for i in positions] == matching(CELLS, expression)
