"""What is imported is what the log says, under a claim that the log does not contradict."""

import pandas as pd
import pyarrow.parquet as pq
import pytest

from analysis.__main__ import main
from analysis.published.importer import (
    PUBLISHED_RECIPES,
    Claim,
    import_logs,
    load_imported,
    write_rows,
)
from analysis.published.points import of_pull_request, published_points, seed_table
from analysis.rows.read import is_scored
from sweep.store.schema import SCHEMA
from tests.support.logs import Scores, baseline_log, changed, record_log, without
from trainer.config import load_recipe, parse_override
from trainer.config.config_errors import ConfigError

SLOPE = {"slope": 0.5}
SLOT = Scores(pre=1.1303, post=1.13863255, sliding=1.11520768, ttt=1.11164189, slot=1.09566416)


@pytest.fixture
def logs_of(tmp_path):
    def write(*texts):
        paths = [tmp_path / f"run{i}.log" for i in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8")
        return paths

    return write


def claim(recipe="pr549", activation="leaky_relu2", params=SLOPE, settings=(), pr=549):
    overrides = dict(map(parse_override, settings))
    return Claim(pr=pr, recipe=recipe, activation=activation, params=params, overrides=overrides)


def refusal(paths, claimed):
    with pytest.raises(ConfigError) as told:
        import_logs(paths, claimed)
    return str(told.value)


def test_a_row_has_the_columns_of_the_store_and_nothing_that_is_not_known(logs_of, tmp_path):
    frame = import_logs(logs_of(record_log(seed=1), record_log(seed=2)), claim())
    written = pq.read_table(write_rows(frame, tmp_path / "rows.parquet"))
    assert written.schema.equals(SCHEMA, check_metadata=True)
    rows = written.to_pylist()
    assert [row["seed"] for row in rows] == [1, 2]
    row = rows[0]
    known = {name: value for name, value in row.items() if value is not None}
    assert known["source"] == "published"
    assert known["evidence"] == "log: PR #549, run0.log"
    assert (known["recipe"], known["activation"], known["slope"]) == ("pr549", "leaky_relu2", 0.5)
    assert (known["neg_beta"], known["budget_kind"], known["budget_value"]) == (
        0.25,
        "seconds",
        600,
    )
    assert (known["steps"], known["tokens"], known["train_s"]) == (7100, 7100 * 786_432, 600.1)
    assert (known["window"], known["stride"], known["val_tokens"]) == (2048, 64, 62_021_632)
    assert (known["model_bytes"], known["artifact_bytes"]) == (15_887_928, 15_977_386)
    assert known["fits_cap"] is True
    for unknown in ("step_ms_p50", "train_loss", "val_bytes", "slot_bpb", "slot_legal", "node"):
        assert row[unknown] is None


def test_what_is_written_is_read_again(logs_of, tmp_path):
    settings = ("slot=",)
    log = baseline_log().replace("model_params:17059912", "model_params:17069128")
    for frame in (
        import_logs(logs_of(log), claim("pr1035", "asqu", {"init": 0.0}, pr=679)),
        import_logs(logs_of(record_log(seed=1), record_log(seed=2)), claim(settings=settings)),
    ):
        path = write_rows(frame, tmp_path / "rows.parquet")
        pd.testing.assert_frame_equal(load_imported(path), frame)


def test_a_file_that_no_import_wrote_is_refused(store, tmp_path):
    for path in (store / "cells.parquet", store / "sweep.json", tmp_path / "nowhere.parquet"):
        with pytest.raises(ConfigError, match=path.name):
            load_imported(path)


def test_steps_are_the_budget_of_a_run_without_a_cap(logs_of):
    frame = import_logs(logs_of(baseline_log()), claim("pr1035", "relu2", {}, pr=679))
    row = frame.iloc[0]
    assert (row["budget_kind"], row["budget_value"], row["budget"]) == (
        "steps",
        10_000,
        "10000 steps",
    )
    assert (row["stride"], row["device_name"], row["torch"]) == (
        1024,
        "NVIDIA Made-up 5000",
        "2.7.1+cu128",
    )
    assert (row["neg_beta"], row["key"]) == (0.0, "relu2")
    assert pd.isna(row["slope"])


def test_slot_is_never_legal(logs_of):
    log = record_log(SLOT, xsa=11, params=27_038_812)
    frame = import_logs(logs_of(log), claim("pr1176", pr=1176))
    assert frame["slot_bpb"].tolist() == [1.09566416]
    assert frame["slot_legal"].tolist() == [False]


def test_imported_rows_are_alike_each_time_and_tell_runs_apart(logs_of):
    texts = [record_log(seed=seed) for seed in (1, 2, 3)]
    frame = import_logs(logs_of(*texts), claim())
    again = import_logs(logs_of(*texts), claim())
    pd.testing.assert_frame_equal(frame, again)
    other = import_logs(logs_of(*texts), claim(params={"slope": 0.6}))
    assert len({*frame["cell_id"], *other["cell_id"]}) == 6
    assert is_scored(frame).all()
    assert frame["setting"].str.startswith("published").all()


def test_what_a_run_changed_of_a_recipe_is_said_and_keeps_it_off_that_recipes_curve(logs_of):
    settings = ("quantization.matrices=gptq", "model.qk_gain=1.5", "ttt=", "slot=")
    log = record_log(Scores(ttt=None), gptq=True, xsa=11, params=27_038_812)
    frame = import_logs(logs_of(log), claim("pr1176", settings=settings, pr=1135))
    assert "gptq" in frame["set_json"].iloc[0]
    assert published_points("pr1176", "post_quant_bpb", frame).empty
    told = refusal(logs_of(log), claim("pr1176", settings=settings[1:], pr=1135))
    assert "quantization.matrices = gptq" in told
    assert "--set" in told


@pytest.mark.parametrize(
    ("log", "claimed", "key"),
    [
        (baseline_log(), claim(), "train.seq_len = 1024"),
        (record_log(), claim("pr1035"), "train.seq_len = 2048"),
        (record_log(), claim("pr1176"), "model.xsa_last_layers = 4"),
        (record_log(), claim(settings=("scoring.stride=32",)), "scoring.stride = 64"),
        (changed(record_log(), "matrix_lr:0.025", "matrix_lr:0.027"), claim(), "optim.matrix_lr"),
        (record_log().replace("lzma", "zstd"), claim(), "quantization.compressor = zstd"),
        (record_log(Scores(ttt=None)), claim(), "ttt = nothing"),
        (record_log(SLOT), claim(), "slot = scored"),
        (record_log(), claim(activation="asqu", params={}), "26,928,220 parameters"),
        (record_log(params=26_928_220 + 11 * 1536), claim(), "with asqu"),
    ],
)  # fmt: skip
def test_a_claim_that_the_log_contradicts_is_refused_with_file_and_line(logs_of, log, claimed, key):
    paths = logs_of(log)
    told = refusal(paths, claimed)
    assert f"{paths[0]}, line " in told
    assert key in told


def test_a_run_that_ended_before_its_cap_has_no_budget_of_ours(logs_of):
    log = changed(baseline_log(), "max_wallclock_seconds:0.000", "max_wallclock_seconds:9000.000")
    told = refusal(logs_of(log), claim("pr1035", "relu2", {}))
    assert "neither steps nor seconds" in told
    assert ", line 29:" in told


def test_a_run_that_is_given_twice_is_refused(logs_of):
    paths = logs_of(record_log(), record_log())
    told = refusal(paths, claim())
    assert f"{paths[1]}, line " in told
    assert str(paths[0]) in told


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipe": "pr548"}, "Did you mean 'pr549'"),
        ({"recipe": "local"}, "no published run"),
        ({"activation": "leaky_relu", "params": {}}, "needs slope"),
        ({"activation": "leakyrelu2"}, "Did you mean 'leaky_relu2'"),
        ({"params": {"slope": 1.5}}, "outside its range"),
        ({"pr": 0}, "--pr 0"),
        ({"settings": ("optim",)}, "section.key=value"),
    ],
)
def test_a_claim_of_what_does_not_exist_is_refused(change, said):
    with pytest.raises(ConfigError, match=said):
        claim(**change)


def test_the_counts_of_parameters_are_those_of_the_recipes():
    """By formula: embeddings, four matrices of attention and two of the MLP, gains and mixes."""
    for name, expected in PUBLISHED_RECIPES.items():
        m = load_recipe(name).model
        kv = m.width * m.num_kv_heads // m.num_heads
        layer = 2 * m.width**2 + 2 * m.width * kv + 2 * m.width * m.mlp_hidden
        small = m.num_heads + 2 * m.width + 2 * m.width  # q gain, two scales, two mixes
        count = m.vocab_size * m.width + m.num_layers * (layer + small)
        count += (m.num_layers // 2) * m.width  # skips
        count += m.width if m.smear_gate else 0
        if m.bigram is not None:
            count += m.bigram.vocab_size * m.bigram.dim + m.bigram.dim * m.width + 1
        if (extra := m.value_embedding) is not None:
            count += m.vocab_size * extra.dim + extra.dim * kv + 1 + len(extra.layers)
        assert count == expected, name


def run(*words):
    return main(["import", *map(str, words)])


def test_the_command_writes_the_rows_and_says_where(logs_of, tmp_path, capsys):
    out = tmp_path / "rows.parquet"
    flags = ("--pr", 549, "--activation", "leaky_relu2", "--slope", 0.5, "--recipe", "pr549")
    odd = "FutureWarning: made up\n" + record_log(seed=2)
    assert run(*logs_of(record_log(seed=1), odd), *flags, "--out", out) == 0
    told = capsys.readouterr()
    assert told.out == f"wrote {out}\n"
    assert told.err == (
        "PR #549, run1.log: 1 line passed over, not of the grammar; the first is line 1\n"
    )
    assert pq.read_table(out)["ttt_bpb"].to_pylist() == [1.11922988] * 2


def test_a_mistake_is_one_sentence_and_no_file(logs_of, tmp_path, capsys):
    out = tmp_path / "rows.parquet"
    flags = ("--pr", 549, "--activation", "leaky_relu2", "--slope", 0.5, "--recipe", "pr549")
    whole, broken = logs_of(record_log(), without(record_log(), "legal_ttt_exact"))
    for words in (
        (broken, *flags, "--out", out),
        (tmp_path / "nowhere.log", *flags, "--out", out),
        (whole, *flags, "--out", tmp_path / "rows.csv"),
        (whole, *flags, "--activation-param", "init", "--out", out),
    ):
        assert run(*words) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.count("\n") == 1
        assert "Traceback" not in told.err
    assert not out.exists()


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(b"\x80\x02\xff")
    assert str(path) in refusal([path], claim())


def test_imported_runs_make_a_table_as_the_shipped_ones_do(logs_of):
    logs = [record_log(Scores(ttt=ttt), seed=i) for i, ttt in enumerate((1.1192, 1.12, 1.1189))]
    frame = import_logs(logs_of(*logs), claim())
    table = seed_table(frame, 549).set_index("quantity")
    assert len(of_pull_request(frame, 549)) == 3
    assert table.loc["ttt_bpb", "n"] == 3
    assert table.loc["ttt_bpb", "mean_printed"] == 1.1194
    assert table.loc["ttt_gain", "mean"] == pytest.approx(1.11936667 - 1.12165091, abs=1e-8)
