"""Claims about the folder of a submission: what is in it, what refuses it, and what it warns of."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from analysis.__main__ import main
from analysis.stats.compare import compare
from analysis.study import read_study
from analysis.submission.claim import About, read_claim
from analysis.submission.rules import RULES, checked
from sweep.node.scratch import append_agent_log, rank_log, read_logs
from sweep.store.store import Store
from tests.analysis.conftest import KEYS, REFERENCE
from tests.support.script_rows import CONTIGUOUS, script_row
from tests.support.script_spec import MAIN, script_spec
from trainer.config.config_errors import ConfigError
from trainer.contract import canonical_json, spec_values
from trainer.script.patching import render
from trainer.script.source.packing import pack, unpack

KEY = "leaky_relu2-s0.3"
SEEDS = (1, 2, 3)
FOOTING = {"pre_quant_bpb": CONTIGUOUS, "post_quant_bpb": CONTIGUOUS}
SOURCE = "import os, zstandard\nimport torch\nSLOPE = 0.5\nprint(os.environ['SEED'], SLOPE)\n"
PACKING = "import lzma,base64\nexec(lzma.decompress(base64.b85decode('PAYLOAD')))\n"
LOG = "step:1/2 train_loss:3.1\nfinal_int6_roundtrip val_bpb:2.3\n"
ENV = {"SEED": "{seed}", "DATA_PATH": "{data_dir}"}
ROW = {
    **{"world_size": 8, "device": "cuda", "device_name": "NVIDIA H100 80GB HBM3"},
    **{"train_s": 599.0, "eval_s": 300.0, "step_ms_p50": 85.5, "steps": 7000},
    **{"python": "3.11.9", "torch": "2.9.1+cu128", "model_bytes": 15_900_000},
    **{"code_bytes": len(SOURCE), "artifact_bytes": 15_900_000 + len(SOURCE)},
}


def write(folder, *, log=LOG, packed=None, slope="SLOPE = {slope}", env=ENV, beside=None, args=()):
    """The results of a sweep of two activations under three seeds; the folder of all results."""
    store = Store(folder / "results" / "local")
    ids = [
        _cell(store, value, seed, log, packed, slope, env, beside or {}, args)
        for seed in SEEDS
        for value in (0.3, 0.5)
    ]
    store.write_cells(ids)
    store.write_sweep({"name": "local", "reference": REFERENCE, "activations": KEYS})
    return folder / "results"


def _cell(store, slope, seed, log, packed, replacement, env, beside, args):
    patch = {"find": "SLOPE = 0.5", "replace": replacement, "count": 1}
    script = {"patch": [patch], "env": env, "packed": packed, "arguments": args}
    spec = script_spec(SOURCE, seed=seed, slope=slope, ranks=8, **script)
    spec.recipe.sources.update(beside)
    ran, cell_id = render(spec), f"{seed:08x}{round(slope * 10):08x}"
    attempt = store.announce(cell_id, 1, {"driver": "d"})
    kept = {**ran.files, "script.diff": "…"} | ({"packing.txt": packed} if packed else {})
    for name, text in kept.items():
        store.write_file("scripts", f"{attempt.stem}/{name}", text.encode())
    script = pack(ran.files[ran.main], packed) if packed else ran.files[ran.main]
    day = datetime(2026, 4, seed, tzinfo=UTC)
    row = script_row(slope, seed, FOOTING, **ROW) | {
        **{"code_bytes": len(script), "artifact_bytes": ROW["model_bytes"] + len(script)},
        **{"cell_id": cell_id, "evidence": f"attempts/{attempt.stem}.parquet"},
        **{"script_sha256": ran.sha256, "started_at": day, "ended_at": day + timedelta(minutes=15)},
        "log": store.write_file("logs", f"{attempt.stem}.log", log.encode()),
        "config_json": canonical_json(spec_values(spec, "data_dir")),
    }
    store.commit(attempt, row | {"post_quant_loss": 1.69 * row["post_quant_bpb"]})
    return cell_id


def submit(results, out, *flags, key=KEY):
    place = ["--results", str(results), "--sweep", "local", "--out", str(out)]
    return main(["submission", *place, "--activation", key, *flags])


def told(folder, name):
    return (folder / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What one finished sweep left; a test changes none of it."""
    return write(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_the_folder_has_what_the_challenge_asks_for(results, out, capsys):
    flags = ("--author", "A. Person", "--github-id", "person", "--record-bpb", "9.0")
    assert submit(results, out, *flags) == 0
    assert capsys.readouterr().err == ""
    assert sorted(path.name for path in out.iterdir()) == [
        *("README.md", "requirements.txt", "submission.json", "train_gpt.py"),
        *(f"train_seed{seed}.log" for seed in SEEDS),
    ]
    assert told(out, "train_gpt.py") == SOURCE.replace("SLOPE = 0.5", "SLOPE = 0.3")
    assert told(out, "train_seed2.log") == LOG
    assert "torch==2.9.1  # 2.9.1+cu128\n" in told(out, "requirements.txt")
    assert "zstandard" in told(out, "requirements.txt")


def test_the_numbers_are_those_of_the_rows_and_of_the_comparison(results, out, capsys):
    submit(results, out, "--name", "Slope", "--track", "non_record_16mb", "--blurb", "A slope.")
    study = read_study(results / "local")
    mine = study.cells[study.cells["key"] == KEY].set_index("seed")
    given = json.loads(told(out, "submission.json"))
    assert given["val_bpb"] == pytest.approx(mine["post_quant_bpb"].mean())
    assert given["val_bpb_std"] == pytest.approx(mine["post_quant_bpb"].std())
    assert given["val_loss"] == pytest.approx(1.69 * given["val_bpb"])
    assert (given["bytes_total"], given["bytes_code"]) == (ROW["artifact_bytes"], len(SOURCE))
    assert given["seeds"] == [1, 2, 3]
    assert given["seed_results"]["2"]["val_bpb"] == mine.loc[2, "post_quant_bpb"]
    assert (given["name"], given["blurb"], given["date"]) == ("Slope", "A slope.", "2026-04-03")
    assert (given["track"], given["author"]) == ("non_record_16mb", "")
    assert given["hardware"] == "8x NVIDIA H100 80GB HBM3"
    (row,) = compare(study, "post_quant_bpb").to_dict("records")
    readme = told(out, "README.md")
    assert f"{row['difference']:+.4f}".replace("-", "−") in readme
    assert f"±{row['half_width']:.4f} (3 paired seeds; simultaneous 95 % interval" in readme
    assert "warning: author: author and github_id left empty" in capsys.readouterr().err
    assert "author and github_id left empty" in readme
    heading = next(line for line in readme.splitlines() if line.startswith("| seed"))
    assert heading == "| seed | pre-quant | post-quant | steps | step ms | bytes |"
    assert "DATA_PATH='{data_dir}' SEED=1 torchrun --standalone --nproc_per_node=8" in readme
    assert "`{data_dir}` is the folder of the data set." in readme


def seed_2(**values):
    """One run's row is changed."""

    def change(claim):
        first, second, third = claim.runs
        return replace(claim, runs=(first, replace(second, row=second.row | values), third))

    return change


def every_cell(**values):
    return lambda claim: replace(
        claim, study=claim.study.derive(lambda rows: rows.assign(**values))
    )


def seed_2_diverged(claim):
    def change(rows):
        return rows.assign(state=rows["state"].mask(rows["seed"] == 2, "diverged"))

    return replace(claim, study=claim.study.derive(change))


def says(**values):
    return lambda claim: replace(claim, about=replace(claim.about, **values))


def other_script(claim):
    first, *others = claim.runs
    other = replace(first.evidence, files={"train_gpt.py": "pass\n"})
    return replace(claim, runs=(replace(first, evidence=other), *others))


def variable(claim):
    first, *others = claim.runs
    given = replace(first.evidence, given=("SLOPE=0.3",))
    return replace(claim, runs=(replace(first, evidence=given), *others))


BROKEN = {  # by rule: what breaks it, and what is said of it
    "score": (
        lambda claim: replace(every_cell(tainted=True)(claim), runs=()),
        "only 3 tainted ones",
    ),
    "evidence": (lambda claim: replace(claim, faults=("seed 1: cut",)), "seed 1: cut"),
    "artifact": (
        lambda claim: replace(claim, stage="pre_quant_bpb"),
        "before they are compressed",
    ),
    "legality": (
        lambda claim: replace(every_cell(slot_bpb=2.0)(claim), stage="slot_bpb", runs=()),
        "SLOT was fitted",
    ),
    "size": (seed_2(model_bytes=16_000_000), f"seed 2: {16_000_000 + len(SOURCE):,} bytes"),
    "size known": (seed_2(model_bytes=None, artifact_bytes=None), "seed 2: not printed"),
    "code size": (seed_2(code_bytes=7), f"seed 2: 7 bytes counted, {len(SOURCE)} in the folder"),
    "training time": (seed_2(train_s=600.5), "seed 2: 600.5 s"),
    "evaluation time": (seed_2(eval_s=None), "seed 2: not printed"),
    "hardware": (seed_2(world_size=1), "seed 2: 1 × NVIDIA H100"),
    "seeds": (lambda claim: replace(claim, runs=claim.runs[:2]), "2 seeds"),
    "every seed": (seed_2_diverged, "seed 2: diverged"),
    "one script": (other_script, "each seed ran other files"),
    "defaults": (variable, "without SLOPE=0.3 it is another cell"),
    "author": (says(github_id=""), "github_id left empty"),
    "record": (says(record_bpb=2.3), "nats worse than 2.3000 BPB"),
}


@pytest.fixture(scope="module")
def claim(results):
    about = About(author="A", github_id="a", record_bpb=9.0)
    return read_claim(results / "local", KEY, about, setting=None, stage=None)


def test_every_rule_is_tried_and_a_good_claim_breaks_none(claim):
    assert set(BROKEN) == {rule.name for rule in RULES}
    assert [sentence for _, sentence in checked(claim)] == [None] * len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_broken_rule_is_told(claim, rule):
    spoil, sentence = BROKEN[rule.name]
    if rule.refuses:
        with pytest.raises(ConfigError, match=f"{rule.name}: ") as refused:
            checked(spoil(claim))
        assert sentence in str(refused.value)
        return
    found = {name: said for (name, *_), said in checked(spoil(claim)) if said is not None}
    assert sentence in found.pop(rule.name)
    assert set(found) <= {"code size"}  # another script has another size


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"record_bpb": None}, "--record-bpb gives"),
        ({"record_bpb": 2.33, "record_p": 0.6}, None),
        ({"record_bpb": 2.33, "record_p": 0.6, "record_nats": 0.05}, "nats better than 2.3300"),
    ],
)
def test_the_record_rule_is_a_setting(claim, values, said):
    (sentence,) = (s for rule, s in checked(says(**values)(claim)) if rule.name == "record")
    assert (sentence is None) if said is None else said in sentence


def test_one_seed_shows_no_record(claim):
    found = {rule.name: said for rule, said in checked(replace(claim, runs=claim.runs[:1]))}
    assert (found["record"], found["seeds"]) == ("one seed shows no p", "1 seed")


def test_what_is_refused_leaves_no_folder_and_all_reasons_are_given(tmp_path, out, capsys):
    """A log that was cut, and a score of weights that were not compressed."""
    cut = write(tmp_path, log=f"[the first 12 bytes are left out]\n{LOG}")
    assert submit(cut, out, "--stage", "pre_quant") == 2
    refused = capsys.readouterr().err
    reasons = ("seed 1: logs/", "seed 3: logs/", "was cut", "before they are compressed")
    assert all(reason in refused for reason in reasons)
    assert not out.exists()


def test_a_packed_script_is_packed_again_and_its_size_is_the_one_that_counts(tmp_path, out):
    submit(write(tmp_path, packed=PACKING, env=ENV | {"SLOPE": "{slope}"}), out)
    script = told(out, "train_gpt.py")
    assert unpack(script, "here")[0] == SOURCE.replace("0.5", "0.3")
    given = json.loads(told(out, "submission.json"))
    assert given["bytes_code"] == len(script.encode()) != len(SOURCE)
    assert given["bytes_total"] == ROW["model_bytes"] + given["bytes_code"]
    assert "zstandard" in told(out, "requirements.txt")
    assert "without SLOPE=0.3 it is another cell" in told(out, "README.md")


def test_seeds_that_ran_other_files_keep_each_its_own(tmp_path, out):
    submit(write(tmp_path, slope="SLOPE = {slope}  # {seed}"), out)
    for seed in SEEDS:
        assert f"SLOPE = 0.3  # {seed}" in told(out, f"seed{seed}/train_gpt.py")
    assert told(out, "train_gpt.py") == told(out, "seed1/train_gpt.py")


def test_of_several_ranks_the_first_one_speaks(tmp_path, out):
    for rank in range(2):
        rank_log(tmp_path, rank).write_text(f"I am {rank}\n--- step 3 ---\n")
    append_agent_log(tmp_path, "the agent's own")
    submit(write(tmp_path, log=read_logs(tmp_path)), out)
    assert told(out, "train_seed1.log").strip() == "I am 0\n--- step 3 ---"


def test_files_that_did_not_run_are_refused(tmp_path, out, capsys):
    changed = write(tmp_path)
    for path in (changed / "local/scripts").glob("00000002*/train.py"):
        path.write_text("print('another')\n")
    assert submit(changed, out) == 2
    refused = capsys.readouterr().err
    assert "seed 2: " in refused
    assert "not the files that ran" in refused


def test_a_folder_is_replaced_only_when_asked_and_only_if_it_is_a_submission(results, out, capsys):
    assert submit(results, out) == 0
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert submit(results, out) == 2
    assert "is there already" in capsys.readouterr().err
    (out / "notes.md").write_text("mine")
    assert submit(results, out, "--force") == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    (out / "submission.json").unlink()
    assert submit(results, out, "--force") == 2
    assert (out / "README.md").exists()


@pytest.mark.parametrize("key", ["", "leaky_relu2-s0.31"])
def test_an_activation_that_is_none_of_the_sweep_is_told_with_those_that_are(
    results, out, capsys, key
):
    assert submit(results, out, key=key) == 2
    assert f"Known: {KEY}, {REFERENCE}." in capsys.readouterr().err


def test_a_sweep_of_our_own_trainer_is_no_submission(store, out, capsys):
    assert submit(store.parent, out) == 2
    assert "ran our own trainer" in capsys.readouterr().err


def test_it_lies_under_records_by_default(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = ["--results", str(results), "--sweep", "local"]
    names = {"Slope 0.3 / mine": "2026-04-03_Slope_0.3_mine", None: f"2026-04-03_local_{KEY}"}
    for name, folder in names.items():
        given = [] if name is None else ["--name", name]
        assert main(["submission", *place, "--activation", KEY, *given]) == 0
        path = tmp_path / "records/track_10min_16mb" / folder
        assert (path / "submission.json").exists()


def test_what_only_the_command_says_is_a_warning(tmp_path, out):
    env = ENV | {"MUON": "1", "OMP_NUM_THREADS": "8"}
    submit(
        write(tmp_path, env=env, args=["--seed", "{seed}", "--slope", "{slope}", "x{slope}"]), out
    )
    assert "| without --slope 0.3, MUON=1, x0.3 it is another cell |" in told(out, "README.md")


def test_a_file_beside_the_script_keeps_its_name(tmp_path, out):
    submit(write(tmp_path, beside={"train_gpt.py": "print(1)\n"}), out)
    assert told(out, "train_gpt.py") == "print(1)\n"
    assert told(out, MAIN) == SOURCE.replace("SLOPE = 0.5", "SLOPE = 0.3")
    assert f"--nproc_per_node=8 {MAIN}\n" in told(out, "README.md")
