"""Logs whose scores are not what their names say are refused with the line, or read as they are."""

import os
import re

import pytest

from analysis.__main__ import main
from analysis.published.importer import Claim, import_logs, load_imported, write_rows
from analysis.published.log_facts import parse_log
from analysis.published.log_verdicts import log_files, verdicts
from tests.support.logs import RULER, Scores, baseline_log, changed, record_log, scored, without
from trainer.config.config_errors import ConfigError

BASELINE, RECORD = baseline_log(), record_log()
SLOT = record_log(
    Scores(pre=1.1303, post=1.13863255, sliding=1.11520768, ttt=1.11164189, slot=1.09566416),
    xsa=11,
    params=27_038_812,
)
SLIDING_ROUND_TRIP = BASELINE.replace(scored(1.22963083), scored(1.1888)).replace(
    scored(1.22963083, 8), scored(1.18880000, 8)
)
HALF = ("leaky_relu2", {"slope": 0.5})


def claim(recipe="pr549", activation="leaky_relu2", params=None):
    params = {"slope": 0.5} if params is None else params
    return Claim(pr=1, recipe=recipe, activation=activation, params=params)


def told(log, *line):
    """``log`` with ``line`` after its seed."""
    return changed(log, "\nseed:1337\n", "\n".join(["\nseed:1337", *line, ""]))


def imported(tmp_path, log, claimed, accept=()):
    path = tmp_path / "some.log"
    path.write_text(log, encoding="utf-8")
    return import_logs([path], claimed, accept)


def refusal(tmp_path, log, claimed, accept=()):
    with pytest.raises(ConfigError) as error:
        imported(tmp_path, log, claimed, accept)
    return str(error.value)


def ttt_start(log, more):
    return changed(log, "total_windows=969088 stride=64", f"total_windows=969088 stride=64{more}")


@pytest.mark.parametrize(
    ("log", "line", "said"),
    [
        (SLIDING_ROUND_TRIP, "final_int8_zlib_roundtrip_exact", "below the pre-quant"),
        (changed(BASELINE, "final_int8_zlib_roundtrip v", "final_eval_mode:sliding_window\nf v"),
         "final_eval_mode", "sliding windows"),
        (record_log(Scores(sliding=1.09)), "final_int6_sliding_window_exact", "mixture"),
        (record_log(Scores(sliding=1.15)), "final_int6_sliding_window_exact", "above the post"),
        (changed(RECORD, f"post_ema {scored(1.1369)}", f"post_ema {scored(1.11)}"),
         "DIAGNOSTIC post_ema", "last validation"),
        (told(BASELINE, "swa:start step:9000"), "swa:start", "raw weights"),
        (record_log(Scores(ttt=1.06)), "legal_ttt_exact", "below the sliding"),
        (ttt_start(RECORD, " slot_lr=0.003 slot_steps=5"), "ttt_sliding:start", "illegal SLOT"),
        (RECORD + f"final_ngram7_exact {scored(0.96, 8)}\n", "final_ngram7", "mixture"),
        (RECORD + "lawa:applying LAWA averaging k=5\n", "lawa:", "averaged"),
        (changed(BASELINE, "zlib: 15895013 bytes\n", "zlib: 15895013 bytes\nTotal submission size"
                 " int6+zstd: 15895013 bytes\n"), "Total submission size int6", "which artifact"),
        (BASELINE.replace("val_bpb:1.22963083", "val_bpb:0.00000000").replace("val_bpb:1.2296 ",
         "val_bpb:0.0000 "), "final_int8_zlib_roundtrip_exact", "nothing"),
    ],
)  # fmt: skip
def test_a_score_that_is_not_what_its_name_says_is_refused(log, line, said):
    with pytest.raises(ConfigError) as error:
        parse_log(log, "some.log")
    number = int(re.match(r"some\.log, line (\d+): ", str(error.value))[1])
    assert log.split("\n")[number - 1].startswith(line)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "line",
    [
        "Loaded EMA weights (decay 0.999) for final eval",
        "ema_enabled:True ema_decay:0.999",
        "swa:applying 14 checkpoints",
        "averaged the last 5 checkpoints",
        "slot_enabled=1",
        "ngram_eval:order=7 alpha=0.3",
        "5-gram cache: on",
        "ctw_weight=0.1",
        "mixture alpha 0.2",
        "Sliding window eval: on",
        "eval_stride:256",
        "mlp_act leaky",
        "train_on_val:1",
        "data: byte260",
        "Resuming from step 5000",
        "loaded initial weights",
        "magnitude_pruning: frac=0.03",
        "gptq:calibrating with 64 batches (validation data)...",
        "eval_seq_len:4096",
        "paid_prefix:loaded 7,000,000 tokens",
        "qat_enabled:1",
        "logs/swiglu_seed42.txt",
    ],
)
def test_an_unknown_line_that_may_change_a_score_waits_for_a_person(line):
    log = told(RECORD, line)
    number = log.split("\n").index(line) + 1
    for accept in ((), ("something else",)):
        with pytest.raises(ConfigError, match="--accept") as error:
            parse_log(log, "some.log", accept)
        assert str(error.value).startswith(f"some.log, line {number}: {line!r}")
    facts = parse_log(log, "some.log", [line[3:]])
    assert (facts.row, facts.accepted) == (parse_log(RECORD, "some.log").row, (line[3:],))


@pytest.mark.parametrize(
    "line",
    [
        "[rank3]:[W331 05:29:52.441397118 reducer.cpp:327] Warning: Grad strides do not match",
        "/lib/torch/x.py:824: UserWarning: Grad strides do not match bucket view strides.",
        "STARTING SEED=1337 at Mon Mar 30 05:16:52 UTC 2026",
        "train_schema: the remains of a bigram",
        "final_eval_mode:standard",
        "selective_prune: already fits, no pruning needed",
    ],
)
def test_noise_is_no_question(line):
    assert parse_log(told(RECORD, line), "").row == parse_log(RECORD, "").row


def test_an_acceptance_goes_with_the_row_for_good(tmp_path):
    frame = imported(tmp_path, told(RECORD, "eval_stride:64"), claim(), ["stride:64"])
    kept = load_imported(write_rows(frame, tmp_path / "rows.parquet"))
    assert kept["citation"].tolist() == ["PR #1, some.log (accepted: lines with 'stride:64')"]


def test_acceptance_is_of_unknown_lines_alone_and_of_a_text(tmp_path):
    slot = ttt_start(RECORD, " slot_lr=0.003 slot_steps=5")
    assert "illegal SLOT" in refusal(tmp_path, slot, claim(), ["slot_lr"])
    assert "mixture" in refusal(tmp_path, RECORD + "ngram bpb=0.96\n", claim(), ["ngram"])
    other = told(RECORD, "mlp_act:relu_sq mlp_leaky_slope:0.5 ema_decay:0.9")
    assert "names activation relu2" in refusal(tmp_path, other, claim(), ["ema_decay"])
    assert "--accept ''" in refusal(tmp_path, RECORD, claim(), [" "])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("dataset:fineweb10B_sp1024 ", "dataset:fineweb10B_sp4096 ", "data.dataset"),
        ("sp1024 train_shards:80", "sp1024_valonly train_shards:1", "data.dataset"),
        ("train_shards:80", "train_shards:1", "again and again"),
        ("pattern=./fineweb", "pattern=./fineweb10B_byte260/fineweb", "byte260"),
        ("fineweb_1024_bpe.model", "fineweb_4096_bpe.model", "tokens of"),
        ("tokens:62021632", "tokens:1048576", "another text"),
    ],
)
def test_other_data_than_the_recipes_are_refused(tmp_path, old, new, said):
    message = refusal(tmp_path, changed(RECORD, old, new), claim())
    assert said in message
    number, text = re.search(r"some\.log, line (\d+): '(.+)': ", message).groups()
    assert changed(RECORD, old, new).split("\n")[int(number) - 1] == text


def test_bytes_that_are_counted_otherwise_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.support.logs.NATS_PER_BIT_OF_BYTE", 1.69)
    for log, claimed in ((record_log(), claim()), (baseline_log(), claim("pr1035"))):
        assert "bytes that are counted otherwise" in refusal(tmp_path, log, claimed)


def test_a_run_without_the_line_that_names_its_dataset_is_refused(tmp_path):
    assert "train_loader:dataset" in refusal(tmp_path, without(RECORD, "train_loader:"), claim())


TTT = " ttt_lr={} ttt_epochs={} freeze_blocks={}"


@pytest.mark.parametrize(
    ("log", "recipe", "key"),
    [
        (ttt_start(RECORD, TTT.format(0.01, 3, 0)), "pr549", "ttt.lr"),
        (ttt_start(RECORD, TTT.format(0.002, 30, 0)), "pr549", "ttt.epochs"),
        (ttt_start(RECORD, TTT.format(0.002, 3, 2)), "pr549", "ttt.freeze_layers"),
        (changed(SLOT, "steps=5", "steps=24"), "pr1176", "slot.steps"),
        (changed(SLOT, "lr=0.003", "lr=0.01"), "pr1176", "slot.lr"),
    ],
)
def test_another_adaptation_than_the_recipes_is_refused(tmp_path, log, recipe, key):
    assert f"the log says {key} = " in refusal(tmp_path, log, claim(recipe))


LEAKY = "F.leaky_relu(F.linear(x, up.to(x.dtype)), negative_slope={})"
ONE_RELU = "torch.relu(self.fc(x))"


def with_source(log, *lines):
    return "\n".join(["class MLP(nn.Module):", *lines, RULER, "", RULER, log])


def mlp(call):
    return with_source(
        baseline_log(preamble=False),
        '    """LeakyReLU(0.9)² once, relu(x) now"""',
        "    def forward(self, x):",
        f"        x = {call}  # relu(x) ** 2 of old",
        "        return self.proj(x.square())",
        "class Block: gate = F.gelu(x)",
    )


@pytest.mark.parametrize(
    ("log", "own"),
    [
        (told(BASELINE, "mlp_act:relu_sq mlp_leaky_slope:0.9"), "relu2"),
        (told(BASELINE, "mlp_act:leaky_relu_sq mlp_leaky_slope:0.5"), HALF),
        (told(BASELINE, "mlp_act:leaky_relu_sq", "leaky_slope=0.5"), HALF),
        (
            changed(
                BASELINE, "\nRunning PyT", "\n  mlp_act: leaky_relu_sq\n  slope: 0.5\nRunning PyT"
            ),
            HALF,
        ),
        (told(BASELINE, "activation: LeakyReLU²", "negative_slope: .5"), HALF),
        (mlp(LEAKY.format(0.5)), HALF),
        (mlp("F.leaky_relu(self.fc(x), .5)"), HALF),
        (mlp("F.leaky_relu(\n            self.fc(x),\n            0.5,\n        )"), HALF),
        (mlp(ONE_RELU), "relu2"),
    ],
)
def test_what_a_log_says_of_its_activation_is_held_against_the_claim(tmp_path, log, own):
    own = (own, {}) if isinstance(own, str) else own
    for claimed in (("relu2", {}), HALF, ("leaky_relu2", {"slope": 0.9}), ("gelu", {})):
        if claimed == own:
            assert len(imported(tmp_path, log, claim("pr1035", *claimed))) == 1
        else:
            assert re.search(r"line \d+: '.+': the log's own (?:line|source)", refusal(
                tmp_path, log, claim("pr1035", *claimed)
            ))  # fmt: skip


def test_the_first_beta_of_a_learned_one_is_in_the_source(tmp_path):
    log = with_source(
        baseline_log(preamble=False, params=17_069_128),
        "    def __init__(self):",
        "        self.beta = nn.Parameter(torch.full((dim,), 0.25))",
        "        self.act = ASQU(dim)",
    )
    assert len(imported(tmp_path, log, claim("pr1035", "asqu", {}))) == 1
    message = refusal(tmp_path, log, claim("pr1035", "asqu", {"init": 0.0}))
    assert "a first β of 0.25" in message


def test_a_source_that_can_run_several_needs_a_line_that_says_which(tmp_path):
    log = mlp(f"{ONE_RELU} if self.act == 'relu' else {LEAKY.format('self.slope')}")
    assert "no line says which one ran" in refusal(tmp_path, log, claim("pr1035"))
    log = changed(log, "\nseed:1337\n", "\nseed:1337\nmlp_act:leaky_relu_sq leaky_slope:0.5\n")
    assert len(imported(tmp_path, log, claim("pr1035"))) == 1


def test_three_rulers_are_not_two_runs():
    with pytest.raises(ConfigError, match="3 rulers") as error:
        parse_log(RULER + "\n" + BASELINE, "some.log")
    assert "two runs" not in str(error.value)
    assert "another script" in str(error.value)


def test_brotli_is_a_known_compressor():
    facts = parse_log(RECORD.replace("lzma", "brotli"), "some.log")
    assert facts.configured["quantization.compressor"] == ("brotli", "model")
    assert parse_log(BASELINE.replace("int8+zlib", "int8+brotli"), "").row["post_quant_bpb"]


@pytest.fixture
def folder(tmp_path):
    """Every kind of file that lies about in a folder of logs."""
    (tmp_path / "below").mkdir()
    texts = {
        "record.log": RECORD,
        "below/baseline.txt": BASELINE,
        "below/wide.log": changed(RECORD, "train_seq_len:2048", "train_seq_len:4096"),
        "brackets.log": told(RECORD, "[/bold] ema"),
        "long.log": told(RECORD, "Ab3_" * 20_000),
        "digits.log": changed(RECORD, "num_heads:8 ", f"num_heads:{'8' * 5000} "),
        "notes.txt": "no log\n",
        "empty.log": "",
        "script.py": "no log either\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "model.log").write_bytes(b"\x80\x02\xff")
    (tmp_path / "gone.log").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.log")
    return tmp_path


def test_a_dry_run_says_of_every_log_what_it_would_be_read_as(folder):
    (table,) = verdicts(log_files([folder])).sections
    said = {line[0].removeprefix(f"{folder}/"): line for line in table.lines}
    verdict = {name: line[1] for name, line in said.items()}
    assert verdict == {
        **dict.fromkeys(["record.log", "below/baseline.txt", "long.log"], "read"),
        "below/wide.log": "other",
        **dict.fromkeys(["brackets.log", "digits.log", "notes.txt", "empty.log"], "refused"),
        **dict.fromkeys(["model.log", "gone.log", "pipe.log"], "refused"),
    }
    assert said["record.log"][2:] == (
        *("1337", "1.1369", "1.14518023", "1.12165091", "1.11922988", "–"),
        "pr549, no learned β",
    )
    assert "train.seq_len = 4096" in said["below/wide.log"][-1]
    assert said["brackets.log"][-1].startswith("line 16: '[/bold] ema'")


def test_a_fault_of_ours_is_a_verdict_too(folder, monkeypatch):
    def fails(path, accept):
        raise ZeroDivisionError("made up")

    monkeypatch.setattr("analysis.published.log_verdicts.read_log", fails)
    (table,) = verdicts(log_files([folder])).sections
    assert {line[-1] for line in table.lines} == {"ZeroDivisionError: made up: our own fault"}


def test_the_command_needs_no_claim_and_takes_acceptances(folder, capsys):
    assert main(["import", "--dry-run", str(folder), "--accept", "[/bold]"]) == 0
    out = capsys.readouterr().out
    assert "accepted: '[/bold]'" in out
    assert "4 read:" in out
    assert "1 other:" in out
    assert main(["import", str(folder / "record.log")]) == 2
    assert "--dry-run" in capsys.readouterr().err


def test_an_import_names_every_log_that_is_refused(folder):
    paths = log_files([folder])
    with pytest.raises(ConfigError) as error:
        import_logs(paths, claim())
    lines = str(error.value).split("\n")
    # record.log and long.log are one run: the second of the two is refused as well.
    assert lines[-1] == f"{len(paths) - 1} logs are refused, so nothing is imported."
    assert len(lines) == len(paths)
