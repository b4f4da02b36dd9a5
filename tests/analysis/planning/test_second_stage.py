"""Claims about screening and second stage: who is kept, which seeds are fresh, what decides."""

import tomllib

import pytest
import tomli_w

from analysis.__main__ import main
from analysis.planning.second_stage import leaders, second_stage, second_stage_sentences
from analysis.report.summary import summarize
from analysis.study import read_study
from sweep.spec import sweep_file
from sweep.spec.sweep_file import SWEEPS
from tests.analysis.conftest import make_study
from tests.support.grids import cells_of, sweep_spec
from trainer.config.config_errors import ConfigError, read_toml

pytestmark = pytest.mark.usefixtures("few_draws")

REFERENCE = "leaky_relu2-s0.5"


def test_leaders_are_the_lowest_by_paired_difference_and_never_the_reference(cells):
    per_key = cells.groupby("key")["post_quant_sliding_bpb"].mean()
    lowest = per_key.drop([REFERENCE, "leaky_relu2-s0"]).nsmallest(4)
    assert leaders(make_study(cells), keep=4) == list(lowest.index)


def test_no_order_of_rows_changes_the_leaders(cells):
    shuffled = cells.sample(frac=1.0, random_state=1)
    assert leaders(make_study(shuffled), keep=3) == leaders(make_study(cells), keep=3)


def test_an_activation_with_a_diverged_seed_is_never_a_leader(cells_with_losses):
    assert "leaky_relu2-s0.8" not in leaders(make_study(cells_with_losses), keep=9)


def test_two_names_of_one_function_are_one_leader(cells):
    everything = leaders(make_study(cells), keep=10)
    assert len(everything) == 10
    assert "leaky_relu2-s0" not in everything
    with pytest.raises(ConfigError, match="10 activations can be ranked"):
        leaders(make_study(cells), keep=11)


@pytest.fixture
def screening(store_of, rows):
    """The results of the sweep file ``local``."""
    return store_of(rows)


def test_a_second_stage_is_the_screening_but_for_activations_and_seeds(screening):
    table = tomllib.loads(second_stage("local", screening, keep=2, seeds=4))
    first = read_toml(SWEEPS / "local.toml")
    changed = {"activations", "seeds", "screened_in"}
    assert {k: v for k, v in table.items() if k not in changed} == {
        k: v for k, v in first.items() if k not in changed
    }
    assert table["screened_in"] == "local"
    assert table["seeds"] == [4, 5, 6, 7]  # the rows have 1, 2 and 3, the file 1337, 42 and 2025
    assert table["activations"][0] == {"name": "leaky_relu2", "slope": 0.5}
    assert len(table["activations"]) == 3


def test_the_file_is_written_once_and_can_be_run(screening, tmp_path, capsys):
    out = tmp_path / "again.toml"
    command = ["leaders", "--sweep", "local", "--results", str(screening.parent)]
    command += ["--keep", "3", "--seeds", "5", "--out", str(out)]
    assert main(command) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    sweep = sweep_file.load_sweep(str(out))
    assert (sweep.name, sweep.screened_in, sweep.reference) == ("again", "local", REFERENCE)
    assert len(cells_of(sweep)) == 4 * 5
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(("keep", "seeds"), [(0, 5), (3, 1)])
def test_a_second_stage_needs_leaders_and_two_seeds(screening, keep, seeds):
    with pytest.raises(
        ConfigError, match=f"--keep {keep} --seeds {seeds}: at least one leader is kept"
    ):
        second_stage("local", screening, keep=keep, seeds=seeds)


def test_more_seeds_than_anyone_runs_are_refused_before_they_are_counted(screening):
    with pytest.raises(ConfigError, match="at most 10,000"):
        second_stage("local", screening, keep=3, seeds=10**12)


def test_what_cannot_be_written_whole_leaves_no_file(screening, tmp_path, capsys):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "again.toml"
    command = ["leaders", "--sweep", "local", "--results", str(screening.parent)]
    assert main([*command, "--seeds", "5", "--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith(f"{out}: this cannot be kept there")
    assert not out.exists()


def test_seeds_that_chose_the_leaders_are_refused_through_all_stages(tmp_path):
    first = read_toml(SWEEPS / "local.toml")

    def write(name, seeds, before):
        table = first | {"seeds": seeds} | ({"screened_in": before} if before else {})
        (tmp_path / f"{name}.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
        return sweep_file.load_sweep(str(tmp_path / f"{name}.toml"))

    write("one", [1, 2], None)
    write("two", [3, 4], "one")
    assert write("three", [5, 6], "two").screened_in == "two"
    with pytest.raises(ConfigError, match="seeds: 2 chose its activations already, in one"):
        write("three", [2, 6], "two")
    with pytest.raises(ConfigError, match="no second stage of itself"):
        write("three", [5, 6], "three")
    assert write("three", [1, 2], "a sweep whose file is gone").seeds == [1, 2]


def test_having_been_screened_does_not_change_what_a_cell_asks():
    plain, second = (cells_of(sweep_spec(screened_in=before)) for before in (None, "first"))
    assert [cell.id for cell in plain] == [cell.id for cell in second]


def second_stage_of(store_of, rows, **changes):
    folder = store_of([{**row, "sweep": "again", **changes} for row in rows])
    (folder / "sweep.json").write_text(
        f'{{"name": "again", "reference": "{REFERENCE}", "screened_in": "local"}}', encoding="utf-8"
    )
    return read_study(folder)


def test_the_summary_says_that_a_second_stage_alone_decides(store_of, rows, study):
    second = second_stage_of(store_of, rows)
    (sentence,) = second_stage_sentences(second)
    assert sentence.startswith("Second stage of local: its own rows alone decide; 10 comparisons.")
    assert sentence in summarize(second).sentences
    assert second_stage_sentences(study) == []


def test_rows_of_the_screening_are_not_mixed_in(store_of, rows):
    with pytest.raises(ConfigError, match="rows of its screening, local"):
        second_stage_sentences(second_stage_of(store_of, rows, sweep="local"))
