"""The corpus is the same text in the same split, wherever and however often it is read.

Not claimed: that two Python versions ship the same text.
"""

import hashlib
import sys
import sysconfig

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config.config_errors import ConfigError
from trainer.data.building.corpus import (
    Corpus,
    passages,
    split_documents,
    stdlib_corpus,
    stdlib_documents,
)
from trainer.data.building.documents import Document
from trainer.data.tokenizer import SPACE_MARK

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=30)


def as_corpus(texts, fraction=0.3):
    documents = [Document(f"doc-{index}", text) for index, text in enumerate(texts)]
    return split_documents(documents, fraction, source="given texts")


def texts_of(documents):
    return {document.text for document in documents}


@pytest.fixture(scope="module")
def stdlib() -> Corpus:
    return stdlib_corpus()


@settings(deadline=None)
@given(TEXTS)
def test_no_document_is_in_both_splits_and_none_is_lost_in_whatever_order_they_are_found(texts):
    corpus = as_corpus(texts)
    assert as_corpus(list(reversed(texts))).sha256 == corpus.sha256
    usable = {text for text in texts if text and SPACE_MARK not in text}
    assert texts_of(corpus.train) | texts_of(corpus.validation) == usable
    assert not texts_of(corpus.train) & texts_of(corpus.validation)
    assert len(corpus.train) + len(corpus.validation) == len(usable)


def test_empty_texts_repeated_texts_and_texts_with_the_space_mark_are_dropped():
    corpus = as_corpus(["", "kept", "a▁b", "kept", "▁"], fraction=0.0)
    assert [(each.name, each.text) for each in corpus.train] == [("doc-1", "kept")]


def test_the_hash_names_the_content_and_the_split():
    corpus = as_corpus(["one", "two", "three"])
    lines = [f"validation {each.sha256}\n" for each in corpus.validation]
    lines += [f"train {each.sha256}\n" for each in corpus.train]
    assert corpus.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert corpus.sha256 != as_corpus(["one", "two"]).sha256
    assert corpus.sha256 != as_corpus(["one", "two", "three"], fraction=1.0).sha256


def test_a_document_is_validation_by_the_first_eight_bytes_of_its_own_hash():
    document = Document("name", "text")
    number = int.from_bytes(hashlib.sha256(b"text").digest()[:8], "big") / 2**64
    assert document.is_validation(number * 1.001)
    assert not document.is_validation(number * 0.999)


def test_the_standard_library_gives_megabytes_of_prose_and_code(stdlib):
    files = {file_of(passage) for passage in (*stdlib.train, *stdlib.validation)}
    assert {"json/decoder.py", "topics/assert"} <= files
    num_bytes = [sum(p.num_bytes for p in split) for split in (stdlib.train, stdlib.validation)]
    assert num_bytes[0] > 3_000_000
    assert 0.01 < num_bytes[1] / sum(num_bytes) < 0.10


def test_no_file_and_no_passage_stands_in_both_splits(stdlib):
    for what in (file_of, lambda passage: passage.text):
        assert not set(map(what, stdlib.train)) & set(map(what, stdlib.validation))


def file_of(passage):
    return passage.name.rpartition("#")[0]


PARAGRAPHS = st.lists(st.text("ab \n", min_size=1, max_size=40), min_size=1, max_size=12)


@settings(deadline=None)
@given(PARAGRAPHS, st.integers(1, 60))
def test_passages_are_the_whole_text_cut_at_blank_lines(paragraphs, num_chars):
    document = Document("name", "\n\n".join(paragraphs))
    pieces = list(passages(document, num_chars))
    joined = "\n\n".join(piece.text for piece in pieces)
    assert [line for line in joined.split("\n") if line.strip()] == [
        line.replace("    ", "\t", (len(line) - len(line.lstrip(" "))) // 4)
        for line in document.text.split("\n")
        if line.strip()
    ]
    assert all(piece.text == piece.text.strip("\n") for piece in pieces)


def test_indentation_is_written_with_a_tab_for_four_spaces_and_nothing_else_changes():
    document = Document("code", "def f():\n    if x:\n          return '    '\n  # two")
    (piece,) = passages(document)
    assert piece.text == "def f():\n\tif x:\n\t\t  return '    '\n  # two"


def test_nothing_of_this_machine_and_no_table_is_in_the_corpus(stdlib):
    for document in (*stdlib.train, *stdlib.validation):
        parts = document.name.split("/")
        assert not {"site-packages", "dist-packages", "test", "tests", "encodings"} & set(parts)
        assert not document.name.startswith(("config-", "_sysconfigdata_", "sitecustomize"))
        assert document.name != "pydoc_data/topics.py"
        assert "\r" not in document.text
        assert SPACE_MARK not in document.text


def test_sources_in_other_encodings_and_dangling_links_are_passed_over(monkeypatch, tmp_path):
    (tmp_path / "good.py").write_bytes(b"a = 1\r\nb = 2\r")
    (tmp_path / "latin.py").write_bytes("name = 'é'".encode("latin-1"))
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere.py")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "other.py").write_text("c = 3\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path))
    sources = [each for each in stdlib_documents() if not each.name.startswith("topics/")]
    assert [(each.name, each.text) for each in sources] == [("good.py", "a = 1\nb = 2\n")]


def test_a_python_without_sources_is_told_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path))
    with pytest.raises(ConfigError, match=r"no Python sources.*Use a full Python"):
        stdlib_documents()


def test_a_python_without_help_topics_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ConfigError, match=r"pydoc_data\.topics.*apt install"):
        stdlib_documents()
