"""The shipped table is what was published, gives the published averages, and mixes no recipes."""

import csv

import pandas as pd
import pytest

import analysis.published as published
from analysis.load import is_scored
from analysis.published import (
    TABLE,
    load_published,
    mixing_sentence,
    of_pull_request,
    points_caption,
    published_points,
    seed_table,
)
from analysis.published_frame import EVIDENCE, EXTRAS
from analysis.published_import import claim_of, import_logs
from analysis.seed_stats import paired_differences
from sweep.schema import SCHEMA
from tests.support.logs import REFERENCE
from trainer.strict import ConfigError

needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"{REFERENCE} is not there")
SCORES = ("pre_quant_bpb", "post_quant_bpb", "post_quant_sliding_bpb", "ttt_bpb", "slot_bpb")


@pytest.fixture(scope="module")
def table():
    return load_published()


def test_every_row_has_the_columns_of_the_store_and_its_source(table):
    assert len(table) == 137
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


def test_beta_is_the_square_of_the_slope(table):
    slopes = table.dropna(subset=["slope"])
    assert len(slopes) > 50
    assert (slopes["neg_beta"] - slopes["slope"] ** 2).abs().max() < 1e-12
    learned = table["activation"] == "asqu"
    assert learned.sum() == 5
    assert table.loc[learned, ["slope", "neg_beta"]].isna().all(axis=None)
    assert (table.loc[table["activation"] == "relu2", "neg_beta"] == 0).all()


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


@needs_reference
def test_every_number_of_the_reference_is_there_unchanged():
    with (REFERENCE / "published.csv").open(encoding="utf-8", newline="") as file:
        facts = list(csv.DictReader(file))
    with TABLE.open(encoding="utf-8", newline="") as file:
        shipped = list(csv.DictReader(file))
    same = {
        **{name: name for name in ("pr", "stack", "evidence", "slot_bpb", "ttt_bpb")},
        **{"prequant_bpb": "pre_quant_bpb", "postquant_bpb": "post_quant_bpb"},
        "sliding_bpb": "post_quant_sliding_bpb",
    }
    for fact, row in zip(facts, shipped, strict=True):
        assert {name: row[other] for name, other in same.items()} == {n: fact[n] for n in same}
        assert fact["source"] in row["citation"]
        for name in ("seed", "steps", "artifact_bytes"):
            assert row[name] == (fact[name] if fact[name].isdigit() else "")
        assert float(row["delta_bpb"] or 9) == float(fact["delta_bpb"] or 9)
        if fact["neg_beta"].replace(".", "").isdigit():
            assert float(row["neg_beta"]) == float(fact["neg_beta"])
        else:  # in words, or absent: only ReLU² has a β all the same
            assert row["neg_beta"] == ("0" if fact["activation"] == "ReLU2" else "")


# PR #1035, README: pre-quant, post-quant, bytes of each run, and the averages over seeds. The bytes
# of LeakyReLU² average to 15,860,904 and not to the 15,860,870 that stand there.
ASQU = {1337: (1.2236, 1.2296, 15895013), 42: (1.2240, 1.2309, 15894743)}
ASQU |= {2025: (1.2225, 1.2295, 15892158)}
LEAKY = {1337: (1.2243, 1.2315, 15861749), 42: (1.2247, 1.2315, 15862578)}
LEAKY |= {2025: (1.2234, 1.2302, 15858384)}
RELU2 = {1337: (1.2262, 1.2328, 15861272), 42: (1.2276, 1.2343, 15856563)}
RELU2 |= {2025: (1.2253, 1.2321, 15853892)}
PR1035 = {
    "relu2": (RELU2, (1.2264, 1.2331, 15857242)),
    "leaky_relu2-s0.5": (LEAKY, (1.2241, 1.2311, 15860904)),
    "asqu": (ASQU, (1.2234, 1.2300, 15893971)),
}
COLUMNS_1035 = ["pre_quant_bpb", "post_quant_bpb", "artifact_bytes"]


def check_1035(frame, key):
    runs, averages = PR1035[key]
    rows = of_pull_request(frame, 1035)
    rows = rows[rows["key"] == key].set_index("seed")
    assert set(rows.index) == set(runs)
    for seed, printed in runs.items():
        found = rows.loc[seed, COLUMNS_1035].astype(float).round(4).tolist()
        assert found == list(printed)
    means = seed_table(frame, 1035)
    means = means[means["key"] == key].set_index("quantity")
    assert means.loc[COLUMNS_1035, "mean_printed"].tolist() == list(averages)
    assert means.loc[COLUMNS_1035, "n"].tolist() == [3, 3, 3]


@pytest.mark.parametrize("key", PR1035)
def test_the_nine_rows_and_three_averages_of_1035(table, key):
    check_1035(table, key)


def test_the_paired_differences_of_1035(table):
    """Mean and sd of the post-quant differences within seeds, as computed from rows and logs."""
    runs = of_pull_request(table, 1035).assign(setting="one", replicate=0)
    for key, reference, mean, sd in (
        ("asqu", "leaky_relu2-s0.5", -0.00105, 0.00070),
        ("leaky_relu2-s0.5", "relu2", -0.0020, 0.0007),
        ("asqu", "relu2", -0.0031, 0.0004),
    ):
        pairs = paired_differences(runs, "post_quant_bpb", reference)
        differences = pairs.loc[pairs["key"] == key, "difference"]
        places = 5 if mean == -0.00105 else 4
        assert (len(differences), round(differences.mean(), places)) == (3, mean)
        assert round(differences.std(), places) == pytest.approx(sd)


# Steps, pre-quant, post-quant, sliding, TTT, SLOT, bytes, by seed: from the logs.
PR549 = {
    1337: (7179, 1.1369, 1.14518023, 1.12165091, 1.11922988, None, 15977386),
    42: (7182, 1.1376, 1.14603270, 1.12266500, 1.12002032, None, 15876510),
    2025: (7193, 1.1363, 1.14467677, 1.12119033, 1.11888882, None, 15990006),
}
PR1176 = {
    1337: (6845, 1.1303, 1.13863255, 1.11520768, 1.11164189, 1.09566416, 15971946),
    42: (6851, 1.1310, 1.13918623, 1.11571466, 1.11226855, 1.09625166, 15970834),
    2024: (6858, 1.1313, 1.13952341, 1.11604247, 1.11261031, 1.09660018, 15979670),
}


def check_runs(frame, recipe, expected):
    rows = frame[frame["recipe"] == recipe].set_index("seed")
    assert set(rows.index) == set(expected)
    for seed, values in expected.items():
        for name, value in zip(("steps", *SCORES, "artifact_bytes"), values, strict=True):
            found = rows.loc[seed, name]
            assert pd.isna(found) if value is None else found == value, (seed, name)


def averages(frame, pr, stack):
    means = seed_table(frame, pr)
    return means[means["stack"] == stack].set_index("quantity")


def check_549(frame, stack):
    check_runs(frame, "pr549", PR549)
    means = averages(frame, 549, stack)
    assert (means["n"] == 3).all()
    assert means.loc["ttt_bpb", ["mean_printed", "sd_printed"]].tolist() == [1.1194, 0.0006]
    assert round(means.loc["post_quant_sliding_bpb", "sd"], 5) == 0.00075
    assert round(means.loc["ttt_bpb", "sd"], 5) == 0.00058
    assert means.loc["ttt_gain", "mean_printed"] == -0.0025
    gains = [ttt - sliding for _, _, _, sliding, ttt, _, _ in PR549.values()]
    assert means.loc["ttt_gain", "mean"] == pytest.approx(sum(gains) / 3, abs=1e-12)


def test_the_three_seeds_of_549_their_mean_sd_and_ttt_gain(table):
    check_549(table, "11L #549 stack XSA4 BH1536 int6 GPTQ-lite")


def test_the_three_seeds_of_1176_their_mean_and_sd(table):
    check_runs(table, "pr1176", PR1176)
    means = averages(table, 1176, "11L #1176 stack XSA11 QK4 BH2816x112 GPTQ-lite")
    assert means.loc["slot_bpb", ["mean_printed", "sd_printed"]].tolist() == [1.0962, 0.0005]
    assert means.loc["slot_bpb", "seeds"] == (1337, 42, 2024)


def real(pattern, recipe, activation, pr, **params):
    paths = sorted((REFERENCE / "logs").glob(pattern))
    return import_logs(paths, claim_of(pr=pr, recipe=recipe, activation=activation, params=params))


@needs_reference
def test_the_published_logs_of_549_give_its_table():
    check_549(real("pr549*.log", "pr549", "leaky_relu2", 549, slope=0.5), "pr549")


@needs_reference
def test_the_published_logs_of_1035_give_its_table():
    asqu = real("pr1035_asqu*.log", "pr1035", "asqu", 1035)
    leaky = real("pr1035_lr2*.log", "pr1035", "leaky_relu2", 1035, slope=0.5)
    check_1035(asqu, "asqu")
    check_1035(leaky, "leaky_relu2-s0.5")
    relu2 = real("pr679*.log", "pr1035", "relu2", 679)
    assert relu2[["seed", "post_quant_bpb", "artifact_bytes"]].to_numpy().tolist() == [
        [1337, 1.23280563, 15861272]
    ]


@needs_reference
def test_the_shipped_rows_are_those_of_the_published_logs(table):
    """To the last digit, wherever a log is here."""
    compared = ["steps", *SCORES, "artifact_bytes", "window", "stride", "neg_beta", "budget"]
    for imported in (
        real("pr1035_asqu*.log", "pr1035", "asqu", 1035),
        real("pr1035_lr2*.log", "pr1035", "leaky_relu2", 1035, slope=0.5),
        real("pr679*.log", "pr1035", "relu2", 679),
        real("pr549*.log", "pr549", "leaky_relu2", 549, slope=0.5),
    ):
        ours = table[table["evidence_class"] == "log"].merge(
            imported[["pr", "recipe", "key", "seed"]], on=["pr", "recipe", "key", "seed"]
        )
        by_seed = [frame.set_index("seed").sort_index()[compared] for frame in (ours, imported)]
        pd.testing.assert_frame_equal(*by_seed, check_exact=True)


@pytest.mark.parametrize("recipe", ["pr1035", "pr549", "pr1176"])
@pytest.mark.parametrize("stage", published.STAGES)
def test_points_are_of_the_recipe_that_was_asked_for(table, recipe, stage):
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
