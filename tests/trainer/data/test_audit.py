"""Bytes are counted as the text has them, for every tokenizer and document, or the data is refused.

Not claimed: that the text is the one that the tokens were made from; a tokenizer may normalise.
"""

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiny import VOCAB_SIZE, run_cell, tiny_spec, word_corpus
from tests.support.tokenizers import KINDS, LINES, MISCOUNTED, learn, tokenizer
from trainer.config.config_errors import ConfigError
from trainer.data.building.adopt import adopt
from trainer.data.building.prepare import find_prepared, prepare_stdlib
from trainer.data.byte_audit import (
    Auditor,
    audit_shards,
    audited,
    open_audited,
    require_sound,
)
from trainer.data.manifest import open_dataset, read_manifest, write_manifest
from trainer.data.shards import open_shard, write_shard
from trainer.data.token_bytes import RULE_VERSION, ByteTable
from trainer.data.tokenizer import BOS_ID, SPACE_MARK
from trainer.files import file_sha256

EOS_ID, PAD_ID, UNK_ID = 2, 0, 3
EXACT = tuple(kind for kind in KINDS if kind not in (*MISCOUNTED, "no byte fallback"))
LOSSLESS = ("as built here", "no dummy prefix", "unigram", "symbols")

TEXTS = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters=SPACE_MARK)),
        st.text("  \n\tthecat:<>sep()é中🙂\x00\ufffd"),
        st.sampled_from(LINES),
    ),
    min_size=1,
    max_size=4,
)


@cache
def opened(kind):
    processor = tokenizer(kind)
    return processor, ByteTable.from_tokenizer(processor, processor.vocab_size())


def stream_of(processor, texts):
    rows = [[BOS_ID, *processor.encode(text)] for text in texts]
    return np.array([token for row in rows for token in row], np.uint16)


def audit(kind, tokens):
    """Of a stream that comes in one piece."""
    auditor = Auditor(*opened(kind))
    auditor.feed(np.asarray(tokens, np.uint16))
    return auditor.finish()


def pieces_of(processor, tokens):
    return [processor.id_to_piece(int(token)) for token in tokens]


# -- what passes


@pytest.mark.parametrize("kind", EXACT)
def test_any_text_passes_and_the_bytes_are_those_that_it_decodes_to(kind):
    processor, table = opened(kind)

    @settings(deadline=None)
    @given(TEXTS)
    def check(texts):
        stream = stream_of(processor, texts)
        found = audit(kind, stream)
        decoded = [processor.decode(processor.encode(text)) for text in texts]
        assert found.passed
        assert found.num_documents == len(texts)
        assert found.num_tokens == stream.size
        assert found.text_bytes == sum(len(text.encode()) for text in decoded)
        if kind in LOSSLESS:
            assert decoded == texts
        assert found.counted_bytes == table.count(stream[:-1], stream[1:]).sum()
        assert found.counted_bytes == found.text_bytes - found.uncounted_spaces
        assert found.cut_bytes == 0

    check()


@pytest.mark.parametrize(("kind", "left_out"), [("as built here", 0), ("no dummy prefix", 1)])
def test_the_rule_leaves_out_a_documents_first_space_unless_the_tokenizer_put_it_there(
    kind, left_out
):
    processor, _ = opened(kind)
    found = audit(kind, stream_of(processor, [" the cat", "the cat"]))
    assert found.passed
    assert found.text_bytes == len(" the cat") + len("the cat")
    assert found.uncounted_spaces == left_out


@pytest.mark.parametrize("kind", [kind for kind in EXACT if kind != "unigram"])
def test_control_pieces_count_nothing_and_the_space_behind_one_is_left_out(kind):
    processor, _ = opened(kind)
    the, cat = map(processor.piece_to_id, ("▁the", "▁cat"))
    texts = [[the, EOS_ID], [the, EOS_ID, cat, PAD_ID], [EOS_ID], [EOS_ID, cat]]
    found = audit(kind, [token for row in texts for token in (BOS_ID, *row)])
    assert UNK_ID not in (the, cat)
    assert found.passed
    assert found.counted_bytes == 4 * 3
    kept = 0 if processor.decode([the]) == "the" else 3  # of three first pieces
    assert found.uncounted_spaces == 1 + kept


def test_a_document_may_end_within_a_character_and_its_bytes_count_one_each():
    processor, _ = opened("as built here")
    text = "the 🙂 cat \ufffd on 中"
    tokens = processor.encode(text)
    num_cut = set()
    for end in range(len(tokens) + 1):
        found = audit("as built here", [BOS_ID, *tokens[:end], EOS_ID])
        stands_for = b"".join(map(piece_bytes, pieces_of(processor, tokens[:end])))
        assert found.passed
        assert found.counted_bytes == len(stands_for.removeprefix(b" "))
        assert text.encode().startswith(stands_for.removeprefix(b" "))
        num_cut.add(found.cut_bytes)
    assert num_cut == {0, 1, 2, 3}


def piece_bytes(piece):
    if piece.startswith("<0x"):
        return bytes.fromhex(piece[3:-1])
    return piece.replace(SPACE_MARK, " ").encode()


def test_the_pieces_that_a_stream_comes_in_do_not_matter(tmp_path):
    kind = "no dummy prefix"
    processor, table = opened(kind)
    stream = stream_of(processor, [" the cat", "", "sat 🙂", " on the mat ", "x"] * 3)
    whole = audit(kind, stream)

    @settings(deadline=None)
    @given(st.lists(st.integers(0, stream.size)))
    def check(cuts):
        auditor = Auditor(processor, table)
        for part in np.split(stream, sorted(cuts)):
            auditor.feed(part)
        assert auditor.finish() == whole

    check()
    paths = [tmp_path / "a.bin", tmp_path / "b.bin"]
    write_shard(paths[0], stream[:13])
    write_shard(paths[1], stream[13:])
    assert audit_shards(paths, processor, table) == whole


# -- what is refused


def excess(piece):
    """Bytes that the rule counts too many: a space but at the front is three."""
    return 2 * piece[1:].count(SPACE_MARK)


@pytest.mark.parametrize("kind", MISCOUNTED)
def test_data_fails_exactly_where_a_piece_holds_a_space_elsewhere_than_at_its_front(kind):
    processor, _ = opened(kind)
    seen = set()

    @settings(deadline=None)
    @given(TEXTS)
    def check(texts):
        stream = stream_of(processor, texts)
        found = audit(kind, stream)
        documents = np.split(stream, np.flatnonzero(stream == BOS_ID))[1:]
        too_many = [sum(map(excess, pieces_of(processor, each))) for each in documents]
        assert [(each.document, each.difference) for each in found.mismatches] == [
            (index, many) for index, many in enumerate(too_many) if many
        ]
        assert found.passed == (not any(too_many))
        seen.add(found.passed)

    check()
    assert seen == {True, False}


def test_the_piece_at_fault_is_named_with_how_much_and_how_often():
    processor, _ = opened("several spaces")
    found = audit("several spaces", stream_of(processor, ["the  cat", "cat", "the  cat  sat"]))
    with pytest.raises(ConfigError) as caught:
        require_sound(found, "folder")
    assert "folder: in 2 of 3 validation documents" in str(caught.value)
    assert "document 0: 10 bytes counted, 8 expected (+2): '▁▁' (2 too many each; 1 times)" in str(
        caught.value
    )
    assert "document 2: 17 bytes counted, 13 expected (+4): '▁▁' (2 too many each; 2 times)" in str(
        caught.value
    )


def test_only_the_first_mismatches_are_described_and_all_are_counted():
    processor, _ = opened("several spaces")
    found = audit("several spaces", stream_of(processor, ["the  cat"] * 25))
    assert found.num_mismatches == 25
    assert [each.document for each in found.mismatches] == list(range(10))


def test_data_of_a_tokenizer_without_bytes_fails_exactly_where_a_piece_is_unknown():
    kind = "no byte fallback"
    processor, _ = opened(kind)
    seen = set()

    @settings(deadline=None)
    @given(TEXTS)
    def check(texts):
        found = audit(kind, stream_of(processor, texts))
        unknown = [index for index, text in enumerate(texts) if UNK_ID in processor.encode(text)]
        assert [each.document for each in found.mismatches] == unknown
        for each in found.mismatches:
            assert "'<unk>' (text that no piece stands for" in str(each)
        seen.add(found.passed)

    check()
    assert seen == {True, False}


def test_errors_that_cancel_each_other_are_found():
    """Two unknown pieces, shown by 5 bytes each and counted 0, and 2 bytes too many five times."""
    model = learn(byte_fallback=False, vocab_size=150, allow_whitespace_only_pieces=True)
    processor = type(opened("as built here")[0])(model_proto=model)
    auditor = Auditor(processor, ByteTable.from_tokenizer(processor, processor.vocab_size()))
    the, spaces = map(processor.piece_to_id, ("▁the", "▁▁"))
    assert UNK_ID not in (the, spaces)
    auditor.feed(np.array([BOS_ID, the, UNK_ID, UNK_ID, *[spaces] * 5], np.uint16))
    (mismatch,) = auditor.finish().mismatches
    assert mismatch.difference == 0
    assert len(mismatch.pieces) == 2


def test_bytes_that_are_no_text_fail_unless_a_document_is_cut():
    byte = 4  # the first of 256
    for tokens, passes in (
        ([byte + 0xE4, byte + 0xB8], True),
        ([byte + 0xE4, byte + 0xB8, byte + 0x41], False),
        ([byte + 0xFF], False),
        ([byte + 0xB8], False),
    ):
        assert audit("as built here", [BOS_ID, *tokens]).passed == passes


def test_unused_pieces_fail_since_the_rule_counts_nothing_for_their_text():
    model_pb2 = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    processor, _ = opened("as built here")
    model = model_pb2.ModelProto.FromString(processor.serialized_model_proto())
    the = processor.piece_to_id("▁the")
    model.pieces[the].type = model_pb2.ModelProto.SentencePiece.UNUSED
    unused = type(processor)(model_proto=model.SerializeToString())
    auditor = Auditor(unused, ByteTable.from_tokenizer(unused, unused.vocab_size()))
    auditor.feed(np.array([BOS_ID, *processor.encode("a the")], np.uint16))
    (mismatch,) = auditor.finish().mismatches
    assert mismatch.difference < 0
    assert "'▁the' (4 too few each; 1 times)" in str(mismatch)


def test_a_stream_that_begins_within_a_document_is_refused():
    with pytest.raises(ConfigError, match="begins with token 7, expected 1"):
        audit("as built here", [7, BOS_ID, 8])


# -- what is recorded


@pytest.fixture
def data(data_dir, tmp_path):
    """A copy of a dataset that nobody has audited."""
    copy = Path(shutil.copytree(data_dir, tmp_path / data_dir.name))
    write_manifest(copy, read_manifest(copy).model_copy(update={"audited": None}))
    return copy


def test_an_unaudited_dataset_is_not_opened_and_not_trained_on(data, tmp_path):
    with pytest.raises(ConfigError, match=r"audited = None, expected 2.*make data.*prepare"):
        open_dataset(data, VOCAB_SIZE)
    with pytest.raises(ConfigError, match="audited = None"):
        run_cell(tiny_spec(data), tmp_path / "out")
    other = read_manifest(data).model_copy(update={"audited": RULE_VERSION + 1})
    write_manifest(data, other)
    with pytest.raises(ConfigError, match=f"audited = {RULE_VERSION + 1}"):
        open_dataset(data, VOCAB_SIZE)
    assert open_dataset(data, VOCAB_SIZE, unaudited=True).vocab_size == VOCAB_SIZE


def test_an_audit_is_made_once_and_changes_nothing_else(data, data_dir):
    assert open_audited(data).manifest == read_manifest(data) == read_manifest(data_dir)
    before = (data / "manifest.json").stat().st_mtime_ns
    assert open_audited(data)
    assert (data / "manifest.json").stat().st_mtime_ns == before


def test_preparing_an_unaudited_dataset_audits_it(data, data_dir):
    prepared = prepare_stdlib(data.name, VOCAB_SIZE, data.parent, word_corpus())
    assert prepared.status == "up to date"
    assert read_manifest(data) == read_manifest(data_dir)


@pytest.fixture
def adopted(data_dir, tmp_path):
    folder = tmp_path / "words"
    folder.mkdir()
    for path in data_dir.glob("*.bin"):
        shutil.copy(path, folder)
    adopt(folder, data_dir / "tokenizer.model")
    return folder


def test_adopting_or_preparing_an_adopted_dataset_that_is_unaudited_audits_it(adopted):
    manifest = read_manifest(adopted)
    assert manifest.audited == RULE_VERSION
    for again in (
        lambda: adopt(adopted, adopted / "tokenizer.model"),
        lambda: find_prepared(adopted.name, VOCAB_SIZE, adopted.parent),
    ):
        write_manifest(adopted, manifest.model_copy(update={"audited": None}))
        assert again().status == "up to date"
        assert read_manifest(adopted) == manifest


def test_shards_whose_bytes_are_miscounted_are_not_adopted(tmp_path):
    processor, _ = opened("several spaces")
    folder = tmp_path / "spaced"
    folder.mkdir()
    (tmp_path / "spaced.model").write_bytes(processor.serialized_model_proto())
    write_shard(folder / "x_train_000000.bin", stream_of(processor, ["the cat sat"]))
    write_shard(folder / "x_val_000000.bin", stream_of(processor, ["the  cat"]))
    with pytest.raises(ConfigError, match=r"bits per byte would be wrong.*\n.*'▁▁'"):
        adopt(folder, tmp_path / "spaced.model")
    assert sorted(path.suffix for path in folder.iterdir()) == [".bin", ".bin"]


def test_a_manifest_with_other_counts_than_the_audit_finds_is_refused(data):
    manifest = read_manifest(data)
    for key in ("val_bytes", "num_val_documents"):
        write_manifest(data, manifest.model_copy(update={key: getattr(manifest, key) + 1}))
        with pytest.raises(ConfigError, match=r"its validation shards hold .* as its manifest"):
            open_audited(data)
        assert read_manifest(data).audited is None


def test_the_audit_is_of_the_shards_that_the_manifest_names(data):
    """A changed shard is found by its hash, so what was audited is what is read."""
    manifest = open_audited(data).manifest
    path = data / manifest.validation[0].name
    tokens = np.array(open_shard(path))
    tokens[5] = BOS_ID
    write_shard(path, tokens)
    with pytest.raises(ConfigError, match="found content"):
        open_dataset(data, VOCAB_SIZE)
    shard = manifest.validation[0].model_copy(update={"sha256": file_sha256(path)})
    changed = manifest.model_copy(update={"validation": (shard,)})
    with pytest.raises(ConfigError, match="its manifest says"):
        audited(changed, [path], open_dataset_processor(data))


def open_dataset_processor(folder):
    return type(opened("as built here")[0])(model_file=str(folder / "tokenizer.model"))
