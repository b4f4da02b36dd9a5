"""The grid is every combination once, in shuffled blocks, and an id means the question."""

import copy
import json
from collections import Counter, defaultdict

import pytest

from sweep.spec.grid import NOT_IDENTITY, identity
from sweep.spec.sweep_file import SWEEPS, load_sweep
from tests.support.grids import cells_of, names, sweep_spec
from trainer.config import load_recipe
from trainer.config.config_errors import ConfigError
from trainer.contract import RunSpec, short_hash


def test_the_local_sweep_is_the_full_grid_of_the_mission():
    cells = cells_of(load_sweep("local"))
    assert len(cells) == 36
    by_activation = Counter(cell.spec.activation.label for cell in cells)
    slopes = {f"leaky_relu2-s{k / 10:.12g}" for k in range(10)}
    assert by_activation == dict.fromkeys({"relu2", "asqu"} | slopes, 3)
    assert {cell.spec.seed for cell in cells} == {1337, 42, 2025}
    assert "leaky_relu2-s0.5__seed1337" in {c.name.rpartition("__")[0] for c in cells}


def test_every_combination_appears_exactly_once():
    sweep = sweep_spec(
        budgets=["4steps", "2s"], replicates=2, grid={"set": {"optim.matrix_lr": [0.01, 0.02]}}
    )
    cells = cells_of(sweep)
    assert len(cells) == 3 * 2 * 2 * 2 * 2
    assert len({cell.id for cell in cells}) == len({cell.name for cell in cells}) == len(cells)
    assert [cell.order_position for cell in cells] == list(range(len(cells)))


def test_a_block_holds_every_activation_of_one_seed_and_budget_side_by_side():
    cells = cells_of(sweep_spec(budgets=["4steps", "8steps"]))
    positions = defaultdict(list)
    for cell in cells:
        positions[cell.block].append(cell.order_position)
        assert f"seed{cell.spec.seed}__{cell.spec.budget}" == cell.block
    for places in positions.values():
        assert places == list(range(min(places), min(places) + 3))


def test_blocks_are_shuffled_by_the_recorded_seed_and_by_nothing_else():
    first, again = cells_of(load_sweep("local")), cells_of(load_sweep("local"))
    assert [c.name for c in first] == [c.name for c in again]
    orders = defaultdict(list)
    for cell in first:
        orders[cell.block].append(cell.spec.activation.label)
    assert len({tuple(order) for order in orders.values()}) == 3
    other = cells_of(load_sweep("local").model_copy(update={"order_seed": 1}))
    assert [c.name for c in other] != [c.name for c in first]
    assert {c.id for c in other} == {c.id for c in first}


def test_editing_the_grid_changes_no_id_of_what_was_there():
    before = {cell.name: cell.id for cell in cells_of(sweep_spec())}
    wider = sweep_spec(
        seeds=[1, 2, 3],
        activations=[
            {"name": "asqu"},
            {"name": "leaky_relu2", "slope": [0.3, 0.5]},
            {"name": "relu2"},
        ],
    )
    after = {cell.name: cell.id for cell in cells_of(wider)}
    assert before.items() <= after.items()
    assert len(after) == 12


def test_what_does_not_change_the_answer_is_not_in_the_id():
    spec = cells_of(sweep_spec())[0].spec
    changed = {"recipe_name": "other", "data_dir": "/elsewhere", "threads": 7, "log_every": 99}
    assert set(changed) == set(NOT_IDENTITY)
    other = spec.model_copy(update=changed)
    assert short_hash(identity(spec, 0, None)) == short_hash(identity(other, 0, None))


LAYERS = {"name": "leaky_relu2_layers", "slopes": [0.3, 0.6]}


def test_a_list_of_slopes_for_the_layers_is_one_activation_and_no_axis():
    asked = sweep_spec().activations
    cells = cells_of(sweep_spec(activations=[*asked, LAYERS]))
    of_old = {cell.name: cell.id for cell in cells_of(sweep_spec())}
    assert {cell.name: cell.id for cell in cells}.items() >= of_old.items()
    new = [cell for cell in cells if cell.name not in of_old]
    assert {cell.name for cell in new} == {
        f"leaky_relu2_layers-s0.3to0.6-f92f4c0c__seed{seed}__4steps" for seed in (1, 2)
    }
    for cell in new:
        assert cell.spec.activation.params == {"slopes": [0.3, 0.6]}
        assert cell.slope is cell.neg_beta is None


def test_slopes_for_another_number_of_layers_are_refused_before_anything_runs():
    asked = sweep_spec().activations
    for slopes in ([0.3], 0.3):
        with pytest.raises(ConfigError, match=r"sweep test: .*slopes holds 1.*Give 2"):
            cells_of(sweep_spec(activations=[*asked, LAYERS | {"slopes": slopes}]))
    deeper = {"set": {"model.num_layers": [2, 4]}}
    with pytest.raises(ConfigError, match=r"slopes holds 2.*Give 4"):
        cells_of(sweep_spec(activations=[*asked, LAYERS], grid=deeper))


CHANGES = {
    "activation": lambda v: v["activation"].update(name="asqu", params={}),
    "seed": lambda v: v.update(seed=99),
    "budget": lambda v: v.update(budget="5steps"),
    "replicate": lambda v: v.update(replicate=1),
    "device": lambda v: v.update(device="cuda"),
    "dtype": lambda v: v.update(dtype="bfloat16"),
    "corpus_sha256": lambda v: v.update(corpus_sha256="c" * 64),
    "tokenizer_sha256": lambda v: v.update(tokenizer_sha256="c" * 64),
    "recipe": lambda v: v["recipe"]["optim"].update(matrix_lr=0.123),
}


def test_what_changes_the_answer_changes_the_id():
    spec = next(c.spec for c in cells_of(sweep_spec()) if c.spec.activation.name == "relu2")
    ids = {short_hash(identity(spec, 0, None))}
    for change in CHANGES.values():
        values = copy.deepcopy(spec.model_dump(mode="json"))
        change(values)
        other = RunSpec.model_validate_json(json.dumps(values))
        ids.add(short_hash(identity(other, 0, None)))
    assert len(ids) == 1 + len(CHANGES)


def test_every_field_of_the_specification_is_either_identity_or_declared_not_to_be():
    covered = set(CHANGES) | set(NOT_IDENTITY) | {"contract_version"}
    assert covered == set(RunSpec.model_fields)


def test_the_node_is_part_of_a_timed_cell_and_of_no_other():
    steps, seconds = (cells_of(sweep_spec(budgets=[budget]))[0].spec for budget in ("4steps", "2s"))
    assert identity(steps, 0, None) == identity(steps, 8, "H100")
    assert identity(seconds, 8, "H100") != identity(seconds, 4, "H100")
    assert identity(seconds, 8, "H100") != identity(seconds, 8, "A100")


def test_a_share_of_the_cluster_is_in_no_id():
    alone, beside = (
        cells_of(sweep_spec(budgets=["2s"], node={"share": share})) for share in (1.0, 3.0)
    )
    assert [cell.id for cell in alone] == [cell.id for cell in beside]


def test_a_known_id_stays_what_it_was():
    cell = next(c for c in cells_of(sweep_spec()) if c.name == "asqu__seed1__4steps")
    assert cell.id == "194c9b422a1620c1", "ids changed: every stored result would be run again"


def test_further_axes_are_in_the_name():
    sweep = sweep_spec(grid={"set": {"optim.matrix_lr": [0.01, 0.02]}}, seeds=[1])
    assert "relu2__seed1__4steps__matrix_lr0.02" in names(cells_of(sweep))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activations": []}, "activations"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "more than once"),
        ({"budgets": ["10"]}, "unit"),
        ({"budgets": []}, "budgets"),
        ({"activations": [{"name": "relu22"}]}, "Did you mean 'relu2'"),
        ({"activations": [{"name": "leaky_relu2", "slope": 1.5}]}, "outside its range"),
        ({"activations": [{"name": "leaky_relu2"}]}, "needs slope"),
        ({"activations": [{"name": "relu2", "slope": 0.5}]}, "takes no parameter"),
        ({"activations": [{"name": "relu2"}, {"name": "relu2"}]}, "more than once"),
        ({"activations": [{"slope": 0.5}]}, "has no name"),
        ({"activations": [{"name": "leaky_relu2", "slope": "steep"}]}, "a list of numbers"),
        ({"activations": [LAYERS | {"slopes": [[0.3, 0.6]]}]}, "a list of numbers"),
        ({"activations": [LAYERS, LAYERS]}, "more than once"),
        ({"reference": "gelu"}, "not among the activations"),
        ({"seed": [1]}, "Did you mean 'seeds'"),
        ({"node": {"gpu": 8}}, "node.gpu: unknown key"),
        ({"seeds": ["1"]}, "seeds.0 = '1'"),
        ({"node": {"cpus": 0}}, "node.cpus = 0"),
        ({"node": {"share": 0.0}}, "node.share = 0"),
    ],
)
def test_a_mistake_in_a_sweep_file_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        sweep_spec(**changes)


def test_a_mistake_in_an_axis_is_named():
    with pytest.raises(ConfigError, match="Did you mean 'matrix_lr'"):
        cells_of(sweep_spec(grid={"set": {"optim.matrix_rl": [0.1]}}))
    with pytest.raises(ConfigError, match="ask the same question"):
        cells_of(sweep_spec(grid={"set": {"optim.matrix_lr": [0.1, 0.1]}}))


# -- the sweeps of this repository

SHIPPED = {
    "local": (36, "local"),
    "tiny": (8, "tiny"),
    "slopes": (36, "pr549"),
    "slopes-lr": (27, "pr549"),
    "slope-study": (15, "pr1176"),
    "asqu-10k": (9, "pr1035"),
}


def test_the_sweeps_of_the_repository_ask_what_they_say():
    """Every block holds each activation once, and blocks differ in nothing but seed and axes."""
    assert {path.stem for path in SWEEPS.glob("*.toml")} == set(SHIPPED)
    for name, expected in SHIPPED.items():
        sweep = load_sweep(name)
        cells = cells_of(sweep)
        assert (len(cells), sweep.recipe) == expected
        labels = sorted(activation.label for activation in sweep.expanded_activations())
        for block in {cell.block for cell in cells}:
            assert sorted(c.spec.activation.label for c in cells if c.block == block) == labels


def test_the_rates_around_the_published_one_are_an_axis():
    sweep = load_sweep("slopes-lr")
    rates = sweep.grid.set["optim.matrix_lr"]
    assert load_recipe(sweep.recipe).optim.matrix_lr in rates
    assert len(rates) == 3
