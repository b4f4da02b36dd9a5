"""A person's own text becomes a dataset: every document, in order, whole or not at all.

Not claimed: that what is learnt as a tokenizer is a good one.
"""

import itertools
import re
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.commands import ROOT
from tests.support.texts import Dying, some_texts, write_json_lines, write_parquet, write_plain
from tests.support.tokenizers import learn, tokenizer
from trainer.config.config_errors import ConfigError
from trainer.data.__main__ import ProgressLines, main
from trainer.data.building.adopt import adopt
from trainer.data.building.build import TextBuild, build_from_text
from trainer.data.building.corpus import Corpus
from trainer.data.building.documents import Document, SplitDocument
from trainer.data.building.encode import encode
from trainer.data.building.prepare import find_prepared
from trainer.data.building.scan import scan, silent
from trainer.data.byte_audit import open_audited
from trainer.data.manifest import open_dataset, read_manifest, write_manifest
from trainer.data.shards import load_stream, write_shard
from trainer.data.tokenizer import BOS_ID, train_tokenizer

NAME, VOCAB_SIZE, FRACTION = "words", 400, 0.3


@pytest.fixture(scope="module")
def texts():
    return some_texts(120)


@pytest.fixture(scope="module")
def model(texts, tmp_path_factory):
    """A tokenizer, so that most builds need not learn one."""
    path = tmp_path_factory.mktemp("model") / "some.model"
    path.write_bytes(train_tokenizer(texts, VOCAB_SIZE))
    return path


@pytest.fixture
def source(texts, tmp_path):
    return write_json_lines(tmp_path / "texts.jsonl", texts)


def build(out, *text, **options):
    values = {"name": NAME, "val_fraction": FRACTION, **options}
    if values.get("tokenizer") is None:
        values.setdefault("vocab_size", VOCAB_SIZE)
    return build_from_text(TextBuild(text=text, out=out, **values), silent)


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def split(texts, fraction=FRACTION):
    """The texts for training and those for validation, as the hash of each alone decides."""
    is_val = [Document("", text).is_validation(fraction) for text in texts]
    return (
        list(itertools.compress(texts, [not each for each in is_val])),
        list(itertools.compress(texts, is_val)),
    )


def decoded(dataset, paths):
    """The documents of a split, from the BOS of one to that of the next."""
    stream = load_stream(paths)
    starts = np.flatnonzero(stream == BOS_ID)
    assert starts[0] == 0
    parts = np.split(stream, starts[1:])
    return [dataset.processor.decode(part[1:].tolist()) for part in parts]


# -- what is written


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"))),
    st.integers(1, 60),
)
def test_every_document_is_written_once_in_the_order_of_the_text(
    model, tmp_path_factory, drawn, shard_tokens
):
    folder = tmp_path_factory.mktemp("drawn")
    given_texts = [*drawn, "for training", "for validation 2", *drawn[:2]]
    train, validation = split([text for text in given_texts if text])
    assert train
    assert validation
    source = write_json_lines(folder / "a.jsonl", given_texts)
    dataset = build(folder / "out", source, tokenizer=model, shard_tokens=shard_tokens).dataset
    manifest = dataset.manifest
    assert decoded(dataset, dataset.train_paths) == train
    assert decoded(dataset, dataset.val_paths) == validation
    assert (manifest.num_train_documents, manifest.num_val_documents) == (
        len(train),
        len(validation),
    )
    assert manifest.train_bytes == sum(len(text.encode()) for text in train)
    assert manifest.val_bytes == sum(len(text.encode()) for text in validation)
    assert manifest.val_raw_bytes == manifest.val_bytes
    for shards in (manifest.train, manifest.validation):
        assert {shard.num_tokens for shard in shards[:-1]} <= {shard_tokens}
        assert 1 <= shards[-1].num_tokens <= shard_tokens
    documents = [[Document("", text) for text in part] for part in (train, validation)]
    assert manifest.corpus_sha256 == Corpus(*map(tuple, documents), source="").sha256


def test_what_is_written_is_a_dataset_that_recipes_find(source, tmp_path):
    prepared = build(tmp_path / "data" / NAME, source)
    assert prepared.status == "built"
    assert open_dataset(tmp_path / "data" / NAME, VOCAB_SIZE, hash_train=True)
    assert find_prepared(NAME, VOCAB_SIZE, tmp_path / "data").status == "up to date"
    assert [path.name for path in (tmp_path / "data").iterdir()] == [NAME]


def test_a_tokenizer_is_learnt_from_text_without_line_ends(tmp_path):
    """SentencePiece passes over lines of more than 4,192 bytes."""
    texts = [" ".join(some_texts(120, seed)).replace("\n", " ") for seed in range(9)]
    assert min(map(len, texts)) > 20_000
    dataset = build(tmp_path / "out", write_json_lines(tmp_path / "a.jsonl", texts)).dataset
    assert dataset.manifest.val_bytes > 1.2 * dataset.manifest.num_val_tokens


def test_the_files_are_the_same_for_any_number_of_workers_and_size_of_chunks(
    source, tmp_path, monkeypatch
):
    outs = []
    for workers, chunk_chars in ((1, 1 << 20), (1, 1), (3, 3_000)):
        monkeypatch.setattr("trainer.data.building.encode.CHUNK_CHARS", chunk_chars)
        outs.append(tmp_path / f"{workers}-{chunk_chars}")
        build(outs[-1], source, workers=workers, shard_tokens=5_000)
    assert len(list(outs[0].iterdir())) > 4
    assert all(files_of(out) == files_of(outs[0]) for out in outs)


def test_every_kind_of_file_gives_the_same_dataset(texts, model, tmp_path):
    sources = [
        write_plain(tmp_path / "plain", texts),
        write_json_lines(tmp_path / "lines.jsonl", texts),
        write_parquet(tmp_path / "rows.parquet", texts),
    ]
    outs = [tmp_path / f"out-{index}" for index in range(len(sources))]
    for source, out in zip(sources, outs, strict=True):
        build(out, source, tokenizer=model)
    assert files_of(outs[0]) == files_of(outs[1]) == files_of(outs[2])


def test_a_tokenizer_that_normalises_is_taken_for_text_that_it_leaves_as_it_is(texts, tmp_path):
    published = tokenizer("as published")
    path = tmp_path / "published.model"
    path.write_bytes(published.serialized_model_proto())
    kept = [" ".join(re.findall("[a-z]+", text)) for text in texts]
    source = write_json_lines(tmp_path / "a.jsonl", kept)
    prepared = build(tmp_path / "out", source, tokenizer=path)
    _, validation = split(kept)
    manifest = prepared.dataset.manifest
    assert manifest.val_raw_bytes == sum(len(text.encode()) for text in validation)
    assert manifest.val_bytes == manifest.val_raw_bytes
    assert open_audited(rewritten(tmp_path / "out", audited=1)).manifest == manifest
    tiny_loss = manifest.val_raw_bytes + manifest.val_raw_bytes // 20_000
    lossy = open_audited(rewritten(tmp_path / "out", audited=1, val_raw_bytes=tiny_loss))
    assert lossy.manifest.val_raw_bytes == tiny_loss
    with pytest.raises(ConfigError, match="does not keep text as it is"):
        open_audited(
            rewritten(tmp_path / "out", audited=1, val_raw_bytes=tiny_loss + tiny_loss // 9)
        )

    source = write_json_lines(tmp_path / "b.jsonl", [f"{text}  \ufb01" for text in texts])
    with pytest.raises(ConfigError, match=r"of [\d,]+ bytes .* normalisation leaves [\d,]+, so"):
        build(tmp_path / "lossy", source, tokenizer=path)
    path.write_bytes(learn(normalization_rule_name="nmt_nfkc_cf"))
    with pytest.raises(ConfigError, match=r"upper case: 'The CAT"):
        build(tmp_path / "folded", source, tokenizer=path)


def rewritten(folder, **changes):
    write_manifest(folder, read_manifest(folder).model_copy(update=changes))
    return folder


# -- memory


def test_no_more_than_a_few_chunks_are_under_way(model, texts, monkeypatch):
    """Of an endless text, whatever the speed of the workers."""
    monkeypatch.setattr("trainer.data.building.encode.CHUNK_CHARS", 1)  # a document each
    taken = 0

    def endless():
        nonlocal taken
        for text in itertools.cycle(texts):
            taken += 1
            yield SplitDocument(Document("", text), False)

    for workers in (1, 2):
        chunks, taken = encode(endless(), model.read_bytes(), workers), 0
        for given_back in range(1, 40):
            next(chunks)
            assert taken - given_back <= 2 * workers
        chunks.close()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_text(model, texts, tmp_path, monkeypatch):
    """But for what is allocated outside of Python: the tokenizer's, for one document."""
    monkeypatch.setattr("trainer.data.building.encode.CHUNK_CHARS", 20_000)
    monkeypatch.setattr("trainer.data.building.build.SAMPLE_BYTES", 20_000)
    monkeypatch.setattr("trainer.data.shard_counts.CHUNK_TOKENS", 5_000)
    monkeypatch.setattr("trainer.files._CHUNK_BYTES", 10_000)  # of the tokenizer, which is hashed
    build(tmp_path / "imports", write_json_lines(tmp_path / "0.jsonl", texts), tokenizer=model)
    peaks = []
    for times in (3, 12):
        source = write_json_lines(tmp_path / f"{times}.jsonl", some_texts(120 * times))
        tracemalloc.start()
        build(tmp_path / f"out-{times}", source, tokenizer=model)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    sizes = [(tmp_path / f"{times}.jsonl").stat().st_size for times in (3, 12)]
    assert peaks[1] - peaks[0] < (sizes[1] - sizes[0]) / 4  # buffers that fill up


@settings(deadline=None)
@given(
    st.lists(st.text("ab \n🙂", max_size=40), min_size=1, max_size=12),
    st.integers(1, 60),
    st.randoms(),
)
def test_the_sample_is_bounded_and_does_not_depend_on_the_order(texts, limit, random):
    shuffled = random.sample(texts, len(texts))
    samples = []
    for order in (texts, shuffled):
        documents = [SplitDocument(Document("", text), False) for text in order]
        samples.append(scan(documents, limit, silent)[1])
    assert samples[0] == samples[1]
    sizes = [len(text.encode()) for text in samples[0]]
    assert sum(sizes) >= min(limit, sum(len(text.encode()) for text in texts))
    assert sum(sizes[:-1]) < limit


# -- doing it again


def test_the_same_again_changes_nothing(source, tmp_path):
    out = tmp_path / "out"
    build(out, source, shard_tokens=5_000)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    assert build(out, source, shard_tokens=5_000).status == "up to date"
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    assert after == before


OTHERWISE = (
    ({"name": "other"}, "its name would change"),
    ({"val_fraction": 0.6}, "its text or split, tokenizer would change"),
    ({"vocab_size": 380}, "its tokenizer would change"),
    ({"shard_tokens": 1_000}, "its length of shards would change"),
)


def test_another_dataset_is_replaced_only_if_that_is_asked_for(source, tmp_path):
    out = tmp_path / "out"
    build(out, source)
    before = files_of(out)
    for options, message in OTHERWISE:
        with pytest.raises(ConfigError, match=rf"{message}.*--rebuild"):
            build(out, source, **options)
        assert files_of(out) == before
    assert build(out, source, **options, rebuild=True).status == "built"
    assert files_of(out) != before


def test_a_damaged_dataset_is_built_anew(source, tmp_path):
    out = tmp_path / "out"
    build(out, source)
    before = files_of(out)
    path = out / f"{NAME}_train_000000.bin"
    path.write_bytes(path.read_bytes()[:-2])
    assert build(out, source).status == "built"
    assert files_of(out) == before


# -- all or nothing


def test_a_build_that_was_killed_leaves_no_dataset_and_the_next_is_whole(source, tmp_path):
    """Killed in the midst of writing, in a process of its own."""
    build(tmp_path / "whole", source)
    command = ["build", "--text", str(source), "--vocab-size", "400", "--out", str(tmp_path / "w")]
    command += ["--name", NAME, "--val-fraction", str(FRACTION), "--workers", "1"]
    code = (
        "import os, sys; from trainer.data.__main__ import main; "
        "from trainer.data.building import writer; "
        "writer.write_manifest = lambda *_: os.kill(os.getpid(), 9); main(sys.argv[1:])"
    )
    killed = subprocess.run([sys.executable, "-c", code, *command], cwd=ROOT, check=False)
    assert killed.returncode == -9
    assert not (tmp_path / "w").exists()
    assert main(command) == 0
    assert files_of(tmp_path / "w") == files_of(tmp_path / "whole")


def test_a_text_that_changes_between_its_two_readings_is_refused(
    source, model, tmp_path, monkeypatch
):
    readings = iter([["for training", "for validation 2"], ["changed", "for validation 2"]])
    monkeypatch.setattr(
        "trainer.data.building.build.read_documents",
        lambda _sources: (Document("", text) for text in next(readings)),
    )
    with pytest.raises(ConfigError, match="the text changed while it was read"):
        build(tmp_path / "out", source, tokenizer=model)
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_a_worker_that_dies_is_an_error_and_nobody_waits(texts):
    documents = [SplitDocument(Document("", text), False) for text in texts]
    with pytest.raises(ConfigError, match=r"2 workers.*memory.*--workers 1"):
        list(encode(documents, Dying(), 2))


def test_a_folder_with_anything_else_is_not_touched(source, model, tmp_path):
    thesis, bare, shards = (tmp_path / name for name in ("thesis", "bare", "shards"))
    for folder in (thesis, bare, shards):
        folder.mkdir()
    (thesis / "thesis.txt").write_text("years of work")
    write_shard(bare / "x_train_000000.bin", [BOS_ID, 300])
    write_shard(shards / "x_train_000000.bin", [BOS_ID, 300])
    write_shard(shards / "x_val_000000.bin", [BOS_ID, 300])
    adopt(shards, model)
    for folder, message in (
        (thesis, "cannot be replaced: found thesis"),
        (bare, "is no dataset and not empty"),
        (shards, "holds shards, made from shards that were made elsewhere, which is not replaced"),
    ):
        before = files_of(folder)
        for rebuild in (False, True):
            with pytest.raises(ConfigError, match=message):
                build(folder, source, tokenizer=model, rebuild=rebuild)
        assert files_of(folder) == before


# -- what cannot be used


def test_a_text_that_makes_no_dataset_is_refused_and_nothing_is_written(tmp_path, model):
    for content, message in (
        (b"caf\xe9", r"a\.txt: this is not UTF-8 text"),
        (b"", r"there is no document: found 1 empty ones"),
        (b"one", r"none of the 1 documents is for validation.*--val-fraction"),
    ):
        (tmp_path / "a.txt").write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            build(tmp_path / "out", tmp_path / "a.txt", tokenizer=model)
        assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


OPTIONS = (
    ({"vocab_size": 65_537}, r"--vocab-size 65537 is too large: .*16 bits.*65536"),
    ({"vocab_size": 200}, r"vocabulary of 200 is too small.*--vocab-size"),
    ({"vocab_size": 60_000}, r"60000 is too large for this text"),
    ({"vocab_size": None}, r"which tokenizer\? --vocab-size N .*--tokenizer"),
    ({"val_fraction": 1.0}, r"--val-fraction 1\.0: .*0 to 1"),
    ({"val_fraction": float("nan")}, r"--val-fraction nan"),
    ({"workers": 0}, r"--workers 0: .*1 or more"),
    ({"shard_tokens": 2**31}, r"--shard-tokens 2147483648: .*2,147,483,647"),
    ({"name": "my words"}, r"'my words' cannot be the name.*--name"),
    ({"name": "stdlib-words"}, r"'stdlib-words' cannot be the name"),
)


def test_an_option_that_cannot_be_used_says_what_can(source, tmp_path):
    for options, message in OPTIONS:
        with pytest.raises(ConfigError, match=message):
            build(tmp_path / "out", source, **{"vocab_size": VOCAB_SIZE, **options})
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_a_tokenizer_that_is_none_or_has_another_size_is_refused(source, model, tmp_path):
    with pytest.raises(ConfigError, match=r"some\.model has 400 pieces, and --vocab-size is 500"):
        build(tmp_path / "out", source, tokenizer=model, vocab_size=500)
    with pytest.raises(ConfigError, match="no SentencePiece model"):
        build(tmp_path / "out", source, tokenizer=source)
    assert build(tmp_path / "out", source, tokenizer=model, vocab_size=400).status == "built"


def test_data_that_fails_the_audit_is_not_written(texts, tmp_path):
    source = write_json_lines(tmp_path / "a.jsonl", [f"{text}    0" for text in texts])
    path = tmp_path / "bad.model"
    for kind in ("no byte fallback", "several spaces"):
        path.write_bytes(tokenizer(kind).serialized_model_proto())
        with pytest.raises(ConfigError, match="bits per byte would be wrong"):
            build(tmp_path / "out", source, tokenizer=path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.jsonl", "bad.model"]


# -- the command


def test_the_command_builds_says_what_is_there_and_finds_it_up_to_date(source, tmp_path, capsys):
    out = tmp_path / "words"
    command = ["build", "--text", str(source), "--vocab-size", "400", "--out", str(out)]
    command += ["--val-fraction", "0.3", "--workers", "1"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    manifest = read_manifest(out)
    assert manifest.dataset == "words"
    assert f"{out} was built" in printed
    assert "WARNING: only" in printed
    assert f"{manifest.val_bytes:,} bytes" in printed
    assert main(command) == 0
    assert f"{out} is up to date" in capsys.readouterr().out
    assert main([*command, "--vocab-size", "70000"]) == 2
    streams = capsys.readouterr()
    assert "--vocab-size 70000" in streams.err
    assert not streams.out


def test_progress_is_told_at_most_once_a_second(monkeypatch, capsys):
    now_s = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    progress = ProgressLines()
    for tenth in range(1, 36):
        now_s = tenth / 10
        progress("read", tenth, tenth * 100_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"read: {n}0 documents, {n}.0 MB" for n in (1, 2, 3)]
