"""The shipped table is what was published, gives the published averages, and mixes no recipes."""

import csv
from itertools import product

import pytest

from analysis.published.points import (
    TABLE,
    load_published,
    mixing_sentence,
    points_caption,
    published_points,
    seed_table,
)
from analysis.published.published_rows import EVIDENCE, EXTRAS
from analysis.rows.read import is_scored
from analysis.rows.stages import STAGES
from sweep.store.schema import SCHEMA
from tests.support.logs import REFERENCE
from trainer.config.config_errors import ConfigError

needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"{REFERENCE} is not there")
SCORES = ("pre_quant_bpb", "post_quant_bpb", "post_quant_sliding_bpb", "ttt_bpb", "slot_bpb")


@pytest.fixture(scope="module")
def table():
    return load_published()


def test_every_row_has_the_columns_of_the_store_and_its_source(table):
    assert len(table) == 139
    assert set(table) == {*SCHEMA.names, *EXTRAS, "key", "label", "budget", "setting"}
    assert table["citation"].str.len().min() > 10
    assert set(table["evidence_class"]) == set(EVIDENCE)
    assert (table["source"] == "published").all()
    assert table["cell_id"].is_unique
    assert is_scored(table).all()


def test_numbers_are_in_their_ranges(table):
    for name in SCORES:
        assert table[name].dropna().between(1.0, 2.5).all(), name
    assert table["neg_beta"].dropna().between(0, 1).all()
    assert table["artifact_bytes"].dropna().between(10**7, 17 * 10**6).all()
    assert table["delta_bpb"].dropna().between(-0.1, 0.1).all()
    assert table.loc[table["delta_against"].notna(), "delta_bpb"].notna().all()
    assert table.loc[table["slot_bpb"].notna(), "slot_legal"].eq(False).all()


def test_a_setting_of_published_rows_is_no_setting_of_ours(table):
    assert table["setting"].str.startswith("published").all()
    assert set(table["recipe"].dropna()) == {"pr1035", "pr549", "pr1176"}
    assert table.groupby("recipe")["stack"].nunique().eq(1).all()


def test_the_readme_counts_what_the_table_has(table):
    readme = (TABLE.parent / "README.md").read_text(encoding="utf-8")
    for name, count in table["evidence_class"].value_counts().items():
        assert f"| `{name}` | {count} | {EVIDENCE[name]} |" in readme
    with TABLE.open(encoding="utf-8") as file:
        for column in next(csv.reader(file)):
            assert f"`{column}`" in readme


# Where a source was read again and says otherwise than the reference, or gives more digits.
CORRECTED = {
    *(("1948", "evidence"), ("1208", "delta_bpb"), ("1655", "stack"), ("1655", "sliding_bpb")),
    *(("1859", "postquant_bpb"), ("784", "postquant_bpb"), ("1928", "delta_bpb")),
    *(("1256", "evidence"), ("1256", "sliding_bpb"), ("610", "evidence"), ("610", "sliding_bpb")),
    *(("552", "evidence"), ("552", "sliding_bpb"), ("1330", "stack"), ("877", "evidence")),
}


@needs_reference
def test_every_number_of_the_reference_is_there_unless_its_source_says_otherwise():
    with (REFERENCE / "published.csv").open(encoding="utf-8", newline="") as file:
        facts = list(csv.DictReader(file))
    with TABLE.open(encoding="utf-8", newline="") as file:
        shipped = list(csv.DictReader(file))
    same = {
        **{name: name for name in ("pr", "stack", "evidence", "slot_bpb", "ttt_bpb")},
        **{name: name for name in ("seed", "steps", "artifact_bytes", "delta_bpb")},
        **{"prequant_bpb": "pre_quant_bpb", "postquant_bpb": "post_quant_bpb"},
        "sliding_bpb": "post_quant_sliding_bpb",
    }
    for number, fact in enumerate(facts):
        if fact["source"] == "training log":  # the first half of a run that stands above
            runs = {row["pre_quant_bpb"]: row for row in shipped if row["pr"] == fact["pr"]}
            row = runs[fact["prequant_bpb"].rstrip("0")]
            assert (row["seed"], row["hardware"]) == (fact["seed"], fact["hardware"])
            continue
        row = shipped[number]
        assert fact["source"] in row["citation"]
        for name, other in same.items():
            if fact[name] and (fact["pr"], name) not in CORRECTED:
                assert _alike(fact[name], row[other]), (fact["pr"], name)
        if fact["neg_beta"].replace(".", "").isdigit():
            assert float(row["neg_beta"]) == float(fact["neg_beta"])
        else:  # in words, or absent: only ReLU² has a β all the same
            assert row["neg_beta"] == ("0" if fact["activation"] == "ReLU2" else "")


def _alike(fact: str, shipped: str) -> bool:
    """Whether a cell is the fact; what is no plain number there ("~7000") may be left out."""
    try:
        number = float(fact)
    except ValueError:
        return shipped in {fact, ""}
    return shipped != "" and float(shipped) == number


def test_points_are_of_the_recipe_that_was_asked_for(table):
    for recipe, stage in product(("pr1035", "pr549", "pr1176"), STAGES):
        points = published_points(recipe, stage, table)
        assert (points["recipe"] == recipe).all()
        assert points["value"].notna().all()
        assert mixing_sentence(points, recipe) is None
        places = points.dropna(subset=["x"])
        assert (places["x"] ** 2 - places["neg_beta"]).abs().max() < 1e-12 or places.empty


def test_points_lie_at_the_root_of_beta_and_learned_ones_nowhere(table):
    points = published_points("pr1035", "post_quant_bpb", table)
    places = points.drop_duplicates("key").set_index("key")["x"]
    assert places[["relu2", "leaky_relu2-s0.5"]].tolist() == [0.0, 0.5]
    assert places[["asqu", "asqu-init0"]].isna().all()
    assert points.groupby("key")["n"].first().to_dict() == {
        **{"relu2": 3, "leaky_relu2-s0.5": 3},
        **{"asqu": 3, "asqu-init0": 1},
    }


def test_where_the_stride_is_the_window_sliding_scores_are_the_contiguous_ones(table):
    sliding = published_points("pr1035", "post_quant_sliding_bpb", table)
    contiguous = published_points("pr1035", "post_quant_bpb", table)
    assert sliding["value"].tolist() == contiguous["value"].tolist()
    assert (published_points("pr549", "post_quant_bpb", table)["stride"] == 2048).all()
    assert (published_points("pr549", "ttt_bpb", table)["stride"] == 64).all()


def test_points_of_another_recipe_come_with_a_sentence(table):
    other = published_points("pr549", "ttt_bpb", table)
    told = mixing_sentence(other, "pr1176")
    assert "pr549 (PR #549)" in told
    assert "not of pr1176" in told
    assert told in points_caption(other, "pr1176")
    ladder = published_points("#549 stack", "post_quant_sliding_bpb", table)
    assert ladder["slope"].tolist() == [0.3, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.78]
    assert "#549 stack (PR #977)" in mixing_sentence(ladder, "pr549")


def test_a_recipe_of_which_nothing_is_published_has_no_points(table):
    points = published_points("local", "ttt_bpb", table)
    assert points.empty
    assert mixing_sentence(points, "local") is None
    assert "No published run of local" in points_caption(points, "local")


def test_points_of_one_kind_of_budget(table):
    assert len(published_points("pr549", "ttt_bpb", table, kind="seconds")) == 3
    assert published_points("pr549", "ttt_bpb", table, kind="steps").empty


def test_a_stage_or_pull_request_that_is_not_known_is_refused(table):
    with pytest.raises(ConfigError, match="Known: pre_quant_bpb"):
        published_points("pr549", "bpb", table)
    with pytest.raises(ConfigError, match="no run of PR #1"):
        seed_table(table, 1)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("0.5,0.25,", "0.5,0.5,", "neg_beta"),
        (",log,", ",rumour,", "evidence 'rumour'"),
        ("1.22963083", "1.2296E", "line 2"),
        (",asqu,", ",asku,", "Did you mean 'asqu'"),
        ("quoted_by", "quoted", "columns missing: quoted_by; unknown: quoted"),
        ("pr1035,", "pr1035,,", "line 2: this line has more"),
        ("refs/pull/1035/head: records/track_non_record_16mb/2026-03-28_ASQU/"
         "train_log_asqu_1337.txt", "", "line 2: there is no source"),
    ],
)  # fmt: skip
def test_a_table_that_was_damaged_is_refused_with_its_line(tmp_path, old, new, said):
    path = tmp_path / "published.csv"
    text = TABLE.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=said) as told:
        load_published(path)
    assert str(path) in str(told.value)
