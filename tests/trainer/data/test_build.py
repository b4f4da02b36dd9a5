"""A person's own text becomes a dataset: every document, in order, whole or not at all.

Not claimed: that what is learnt as a tokenizer is a good one.
"""

import itertools
import json
import os
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.texts import (
    DyingEncoder,
    some_texts,
    write_json_lines,
    write_parquet,
    write_plain,
)
from tests.support.tiny import run_cell, tiny_spec
from tests.support.tokenizers import tokenizer
from trainer.config.config_errors import ConfigError
from trainer.data.__main__ import main
from trainer.data.building.adopt import adopt
from trainer.data.building.build import TextBuild, build_from_text
from trainer.data.building.corpus import Corpus
from trainer.data.building.documents import find_sources, read_documents
from trainer.data.building.encode import Encoder, encode
from trainer.data.building.prepare import find_adopted
from trainer.data.building.scan import scan
from trainer.data.commands.build import Teller
from trainer.data.manifest import open_dataset, read_manifest
from trainer.data.shards import load_stream, write_shard
from trainer.data.tokenizer import BOS_ID, Document, train_tokenizer

NAME, VOCAB_SIZE, FRACTION = "words", 400, 0.3


@pytest.fixture(scope="module")
def texts():
    return some_texts(120)


@pytest.fixture(scope="module")
def model(texts, tmp_path_factory):
    """A tokenizer, so that most builds need not learn one."""
    path = tmp_path_factory.mktemp("model") / "some.model"
    path.write_bytes(train_tokenizer([Document("", text) for text in texts], VOCAB_SIZE))
    return path


@pytest.fixture
def source(texts, tmp_path):
    return write_json_lines(tmp_path / "texts.jsonl", texts)


def silent(_what, _documents, _bytes):
    pass


def build(out, *text, tell=silent, **options):
    values = {"name": NAME, "val_fraction": FRACTION, **options}
    if values.get("tokenizer") is None:
        values.setdefault("vocab_size", VOCAB_SIZE)
    return build_from_text(TextBuild(text=text, out=out, **values), tell)


def contents(folder):
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


@settings(deadline=None, max_examples=40)
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
    assert find_adopted(NAME, VOCAB_SIZE, tmp_path / "data").status == "up to date"
    assert [path.name for path in (tmp_path / "data").iterdir()] == [NAME]


def test_a_recipe_trains_on_it(source, tmp_path):
    build(tmp_path / "out", source, vocab_size=512)
    report = run_cell(tiny_spec(tmp_path / "out"), tmp_path / "cell")
    assert report.state == "succeeded"


def test_a_tokenizer_is_learnt_from_text_without_line_ends(tmp_path):
    """SentencePiece passes over lines of more than 4,192 bytes."""
    texts = [" ".join(some_texts(120, seed)).replace("\n", " ") for seed in range(9)]
    assert min(map(len, texts)) > 20_000
    dataset = build(tmp_path / "out", write_json_lines(tmp_path / "a.jsonl", texts)).dataset
    assert dataset.manifest.val_bytes > 1.2 * dataset.manifest.num_val_tokens


@pytest.mark.parametrize("learnt", [True, False])
def test_the_files_are_the_same_for_any_number_of_workers(
    source, model, tmp_path, monkeypatch, learnt
):
    monkeypatch.setattr("trainer.data.building.encode.CHUNK_CHARS", 3_000)
    chosen = {} if learnt else {"tokenizer": model}
    outs = [tmp_path / f"workers-{workers}" for workers in (1, 2, 3)]
    for workers, out in enumerate(outs, start=1):
        build(out, source, workers=workers, shard_tokens=5_000, **chosen)
    assert len(list(outs[0].iterdir())) > 4
    assert contents(outs[0]) == contents(outs[1]) == contents(outs[2])


@pytest.mark.parametrize("chunk", [1, 500, 1 << 20])
def test_the_size_of_chunks_does_not_matter(source, model, tmp_path, monkeypatch, chunk):
    build(tmp_path / "a", source, tokenizer=model)
    monkeypatch.setattr("trainer.data.building.encode.CHUNK_CHARS", chunk)
    build(tmp_path / "b", source, tokenizer=model)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_every_kind_of_file_gives_the_same_dataset(texts, model, tmp_path):
    sources = [
        write_plain(tmp_path / "plain", texts),
        write_json_lines(tmp_path / "lines.jsonl", texts),
        write_parquet(tmp_path / "rows.parquet", texts),
    ]
    outs = [tmp_path / f"out-{index}" for index in range(len(sources))]
    for source, out in zip(sources, outs, strict=True):
        build(out, source, tokenizer=model)
    assert contents(outs[0]) == contents(outs[1]) == contents(outs[2])


@settings(deadline=None)
@given(
    st.lists(st.text("ab🙂", max_size=9)),
    st.lists(st.text("ab🙂", max_size=9)),
    st.floats(0.01, 0.99),
)
def test_a_growing_text_moves_no_document_and_a_repeated_one_stays_on_its_side(
    texts, more, fraction
):
    before, after = split(texts, fraction), split([*more, *texts, *texts], fraction)
    for side, grown, other in ((0, after[0], after[1]), (1, after[1], after[0])):
        assert set(before[side]) <= set(grown)
        assert not set(grown) & set(other)


def test_a_tokenizer_that_normalises_loses_what_it_says_it_does(texts, tmp_path):
    published = tokenizer("as published")
    path = tmp_path / "published.model"
    path.write_bytes(published.serialized_model_proto())
    source = write_json_lines(tmp_path / "a.jsonl", texts)
    prepared = build(tmp_path / "out", source, tokenizer=path)
    _, validation = split(texts)
    manifest = prepared.dataset.manifest
    assert manifest.val_raw_bytes == sum(len(text.encode()) for text in validation)
    assert manifest.val_bytes == sum(
        len(published.decode(published.encode(text)).encode()) for text in validation
    )
    assert f"of {manifest.val_raw_bytes:,} bytes" in prepared.note
    assert f"{manifest.val_bytes:,} are left" in prepared.note


# -- memory


def test_no_more_than_a_few_chunks_are_under_way(model, texts, monkeypatch):
    """Of an endless text, whatever the speed of the workers."""
    monkeypatch.setattr("trainer.data.building.encode.CHUNK_CHARS", 1)  # a document each
    taken = 0

    def endless():
        nonlocal taken
        for text in itertools.cycle(texts):
            taken += 1
            yield Document("", text)

    for workers in (1, 2):
        chunks, taken = encode(endless(), Encoder(model.read_bytes(), FRACTION), workers), 0
        for given_back in range(1, 40):
            next(chunks)
            assert taken - given_back <= 2 * workers
        chunks.close()


def test_memory_does_not_grow_with_the_text(model, texts, tmp_path, monkeypatch):
    """But for what is allocated outside of Python: the tokenizer's, for one document."""
    monkeypatch.setattr("trainer.data.building.encode.CHUNK_CHARS", 20_000)
    monkeypatch.setattr("trainer.data.building.build.SAMPLE_BYTES", 20_000)
    monkeypatch.setattr("trainer.files._CHUNK_BYTES", 10_000)  # of a shard that is hashed
    build(tmp_path / "imports", write_json_lines(tmp_path / "0.jsonl", texts), tokenizer=model)
    peaks = []
    for times in (3, 16):
        source = write_json_lines(tmp_path / f"{times}.jsonl", some_texts(120 * times))
        tracemalloc.start()
        build(tmp_path / f"out-{times}", source, tokenizer=model)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    num_bytes = (tmp_path / "16.jsonl").stat().st_size
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[1] < num_bytes


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
        documents = [Document("", text) for text in order]
        samples.append([each.text for each in scan(documents, 0.0, limit, silent).sample])
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


OTHERWISE = {
    "name": ({"name": "other"}, "its name would change"),
    "split": ({"val_fraction": 0.6}, "its text or split, tokenizer would change"),
    "vocabulary": ({"vocab_size": 380}, "its tokenizer would change"),
    "shards": ({"shard_tokens": 1_000}, "its length of shards would change"),
}


@pytest.mark.parametrize(("options", "message"), OTHERWISE.values(), ids=OTHERWISE.keys())
def test_another_dataset_is_replaced_only_if_that_is_asked_for(source, tmp_path, options, message):
    out = tmp_path / "out"
    build(out, source)
    before = contents(out)
    with pytest.raises(ConfigError, match=rf"{message}.*--rebuild"):
        build(out, source, **options)
    assert contents(out) == before
    assert build(out, source, **options, rebuild=True).status == "built"
    assert contents(out) != before
    assert build(out, source, rebuild=True).status == "built"
    assert contents(out) == before


def test_a_damaged_dataset_is_built_anew(source, tmp_path):
    out = tmp_path / "out"
    build(out, source)
    before = contents(out)
    path = out / f"{NAME}_train_000000.bin"
    path.write_bytes(path.read_bytes()[:-2])
    assert build(out, source).status == "built"
    assert contents(out) == before


def test_an_empty_folder_is_filled(source, model, tmp_path):
    (tmp_path / "out").mkdir()
    assert build(tmp_path / "out", source, tokenizer=model).status == "built"


# -- all or nothing


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize(
    "moment",
    ["build.write_atomically", "writer.ShardWriter.append", "build.write_manifest"],
)
def test_an_interrupted_build_leaves_what_was_there(
    source, model, tmp_path, monkeypatch, moment, interruption
):
    def stop(*_args):
        raise interruption

    build(tmp_path / "old", source, tokenizer=model)
    before = contents(tmp_path / "old")
    monkeypatch.setattr(f"trainer.data.{moment}", stop)
    for out, options in (("new", {}), ("old", {"rebuild": True})):
        with pytest.raises(interruption):
            build(tmp_path / out, source, tokenizer=model, **options)
    assert contents(tmp_path / "old") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", source.name]


def test_a_text_that_changes_between_its_two_readings_is_refused(
    source, model, tmp_path, monkeypatch
):
    readings = iter([["for training", "for validation 2"], ["changed", "for validation 2"]])
    monkeypatch.setattr(
        "trainer.data.building.build.read_documents",
        lambda _sources: [Document("", text) for text in next(readings)],
    )
    with pytest.raises(ConfigError, match="the text changed while it was read"):
        build(tmp_path / "out", source, tokenizer=model)
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_a_worker_that_dies_is_an_error_and_nobody_waits(model, texts):
    documents = [Document("", text) for text in texts]
    with pytest.raises(ConfigError, match=r"2 workers.*memory.*--workers 1"):
        list(encode(documents, DyingEncoder(model.read_bytes(), FRACTION), 2))


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
        before = contents(folder)
        for rebuild in (False, True):
            with pytest.raises(ConfigError, match=message):
                build(folder, source, tokenizer=model, rebuild=rebuild)
        assert contents(folder) == before


# -- what is no text, and what no option


def good_line(text="text"):
    return json.dumps({"text": text})


NO_TEXT = {
    "not UTF-8": ("a.txt", b"caf\xe9", r"a\.txt: this is not UTF-8 text: byte 3 is 0xE9"),
    "not UTF-8 in a line": (
        "a.jsonl",
        good_line().encode() + b'\n{"text": "\xff"}',
        r"a\.jsonl, line 2: this is not UTF-8 text: byte 10 is 0xFF",
    ),
    "not JSON": ("a.jsonl", f"{good_line()}\n\nno".encode(), r"a\.jsonl, line 3: .*not JSON"),
    "nested": ("a.jsonl", b"[" * 200_000, "line 1: this is not JSON"),
    "no field": ("a.jsonl", b'{"body": "x", "id": 1}', r"line 1: .*the keys body, id, expected"),
    "no object": ("a.jsonl", b'["text"]', r'line 1: there is no text: found \["text"\]'),
    "no string": ("a.jsonl", b'{"text": null}', r"line 1: found text = null, expected a string"),
    "half a pair": ("a.jsonl", b'{"text": "a\\ud800"}', r"line 1: character 1 is '\\ud800', half"),
    "not Parquet": ("a.parquet", b"PAR1 no", r"a\.parquet: this is no Parquet file"),
    "nothing": ("a.jsonl", b"\n", r"there is no document: found 0 empty ones"),
    "empty": ("a.txt", b"", r"there is no document: found 1 empty ones"),
    "a single one": ("a.txt", b"one", r"none of the 1 documents is for validation.*--val-fraction"),
}


@pytest.mark.parametrize(("name", "content", "message"), NO_TEXT.values(), ids=NO_TEXT.keys())
def test_what_is_no_text_is_named_with_its_place_and_nothing_is_written(
    tmp_path, model, name, content, message
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        build(tmp_path / "out", tmp_path / name, tokenizer=model)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_parquet_file_without_a_column_of_texts_is_refused_with_what_it_has(tmp_path, model):
    for table, found in (
        (pa.table({"body": ["x"], "id": [1]}), r"body \(string\), id \(int64\)"),
        (pa.table({"text": [1]}), r"text \(int64\)"),
        (pa.table({}), "none"),
    ):
        pq.write_table(table, tmp_path / "a.parquet")
        with pytest.raises(ConfigError, match=f"found the columns {found}, expected one of str"):
            build(tmp_path / "out", tmp_path / "a.parquet", tokenizer=model)
    pq.write_table(pa.table({"text": ["x", None]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet, row 2: found text = null"):
        build(tmp_path / "out", tmp_path / "a.parquet", tokenizer=model)
    bad = pa.array([b"good", b"\xff"]).view(pa.string())
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet, row 2: this is not UTF-8 text: byte 0"):
        build(tmp_path / "out", tmp_path / "a.parquet", tokenizer=model)


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary"])
def test_every_column_of_strings_is_read(tmp_path, kind):
    strings = pa.array(["one", "two", "one"])
    column = strings.dictionary_encode() if kind == "dictionary" else strings.cast(kind)
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    assert [each.text for each in read_documents([tmp_path / "a.parquet"])] == ["one", "two", "one"]


def test_a_document_that_is_too_long_to_be_cut_at_once_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.data.building.documents.MAX_DOCUMENT_BYTES", 10)
    monkeypatch.setattr("trainer.data.building.documents._MAX_LINE_BYTES", 30)
    (tmp_path / "fits.txt").write_text("é" * 5)
    (tmp_path / "long.txt").write_text("é" * 5 + "x")
    (tmp_path / "long.jsonl").write_text(good_line("é" * 5 + "x"))
    (tmp_path / "line.jsonl").write_text(good_line("x" * 99))
    write_parquet(tmp_path / "long.parquet", ["x" * 11])
    assert len(list(read_documents([tmp_path / "fits.txt"]))) == 1
    for name in ("long.txt", "long.jsonl", "line.jsonl", "long.parquet"):
        with pytest.raises(ConfigError, match=rf"{name.split('.')[1]}.* at most 10 are cut"):
            list(read_documents([tmp_path / name]))


def test_a_folder_is_read_in_the_order_of_its_paths_and_hidden_files_are_not(tmp_path):
    folder = tmp_path / "folder"
    for name in ("b.txt", "a/z.md", "a/b.TXT", ".git/x.txt", ".x.txt", "c.py", "a.b/c.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    write_json_lines(folder / "a" / "c.jsonl", ["first", "second"])
    sources = find_sources([folder / "c.py", folder])
    texts = [each.text for each in read_documents(sources)]
    assert texts == ["c.py", "a.b/c.txt", "a/b.TXT", "first", "second", "a/z.md", "b.txt"]


def test_sources_that_are_absent_repeated_or_no_text_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    for given_paths, message in (
        (["gone.txt"], r"gone\.txt: there is no such file or folder"),
        (["a.txt", "."], r"a\.txt is given twice"),
        (["empty"], r"empty: there is no text in it: found 0 files.*\.jsonl"),
    ):
        with pytest.raises(ConfigError, match=message):
            find_sources([tmp_path / each for each in given_paths])


def test_a_byte_order_mark_is_no_text_and_line_ends_are(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r")
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + good_line("three").encode())
    documents = read_documents(find_sources([tmp_path]))
    assert [each.text for each in documents] == ["one\r\ntwo\r", "three"]


OPTIONS = {
    "wide": ({"vocab_size": 65_537}, r"--vocab-size 65537 is too large: .*16 bits.*65536"),
    "narrow": ({"vocab_size": 200}, r"vocabulary of 200 is too small.*--vocab-size"),
    "too wide for the text": ({"vocab_size": 60_000}, r"60000 is too large for this text"),
    "no tokenizer": ({"vocab_size": None}, r"which tokenizer\? --vocab-size N .*--tokenizer"),
    "fraction": ({"val_fraction": 1.0}, r"--val-fraction 1\.0: .*0 to 1"),
    "no number": ({"val_fraction": float("nan")}, r"--val-fraction nan"),
    "workers": ({"workers": 0}, r"--workers 0: .*1 or more"),
    "shards": ({"shard_tokens": 2**31}, r"--shard-tokens 2147483648: .*2,147,483,647"),
    "name": ({"name": "my words"}, r"'my words' cannot be the name.*--name"),
    "taken": ({"name": "stdlib-words"}, r"'stdlib-words' cannot be the name"),
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS.keys())
def test_an_option_that_cannot_be_used_says_what_can(source, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        build(tmp_path / "out", source, **{"vocab_size": VOCAB_SIZE, **options})
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_a_tokenizer_that_is_none_or_has_another_size_is_refused(source, model, tmp_path):
    with pytest.raises(ConfigError, match=r"some\.model has 400 pieces, and --vocab-size is 500"):
        build(tmp_path / "out", source, tokenizer=model, vocab_size=500)
    with pytest.raises(ConfigError, match="no SentencePiece model"):
        build(tmp_path / "out", source, tokenizer=source)
    assert build(tmp_path / "out", source, tokenizer=model, vocab_size=400).status == "built"


@pytest.mark.parametrize("kind", ["no byte fallback", "several spaces"])
def test_data_that_fails_the_audit_is_not_written(texts, tmp_path, kind):
    source = write_json_lines(tmp_path / "a.jsonl", [f"{text}    0" for text in texts])
    path = tmp_path / "bad.model"
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


def test_the_command_takes_all_cores_unless_told(source, tmp_path, monkeypatch):
    asked = []

    def note(wanted, _tell):
        asked.append(wanted)
        raise ConfigError("enough")

    monkeypatch.setattr("trainer.data.commands.build.build_from_text", note)
    assert main(["build", "--text", str(source), "--out", "a/b", "--vocab-size", "400"]) == 2
    assert asked[0].workers == os.cpu_count()
    assert (asked[0].name, asked[0].out) == ("b", Path("a/b"))


def test_progress_is_told_at_most_once_a_second(monkeypatch, capsys):
    now_s = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    tell = Teller(sys.stderr)
    for tenth in range(1, 36):
        now_s = tenth / 10
        tell("read", tenth, tenth * 100_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"read: {n}0 documents, {n}.0 MB" for n in (1, 2, 3)]
