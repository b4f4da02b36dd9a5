"""The documents of text files, JSON lines and Parquet files are read as they are, or named."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.texts import write_json_lines, write_parquet
from trainer.config.config_errors import ConfigError
from trainer.data.building.documents import find_sources, read_documents


def good_line(text="text"):
    return json.dumps({"text": text})


def read(path):
    return [each.text for each in read_documents([path])]


NO_TEXT = (
    ("a.txt", b"caf\xe9", r"a\.txt: this is not UTF-8 text: byte 3 is 0xE9"),
    (
        "a.jsonl",
        good_line().encode() + b'\n{"text": "\xff"}',
        r"a\.jsonl, line 2: this is not UTF-8 text: byte 10 is 0xFF",
    ),
    ("a.jsonl", f"{good_line()}\n\nno".encode(), r"a\.jsonl, line 3: .*not JSON"),
    ("a.jsonl", b"[" * 200_000, "line 1: this is not JSON"),
    ("a.jsonl", b'{"body": "x", "id": 1}', r"line 1: .*the keys body, id, expected"),
    ("a.jsonl", b'["text"]', r'line 1: there is no text: found \["text"\]'),
    ("a.jsonl", b'{"text": null}', r"line 1: found text = null, expected a string"),
    ("a.jsonl", b'{"text": "a\\ud800"}', r"line 1: character 1 is '\\ud800', half"),
    ("a.parquet", b"PAR1 no", r"a\.parquet: this is no Parquet file"),
)


def test_what_is_no_text_is_named_with_its_place(tmp_path):
    for name, content, message in NO_TEXT:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            read(tmp_path / name)


def test_a_parquet_file_without_a_column_of_texts_is_refused_with_what_it_has(tmp_path):
    for table, found in (
        (pa.table({"body": ["x"], "id": [1]}), r"body \(string\), id \(int64\)"),
        (pa.table({"text": [1]}), r"text \(int64\)"),
        (pa.table({}), "none"),
    ):
        pq.write_table(table, tmp_path / "a.parquet")
        with pytest.raises(ConfigError, match=f"found the columns {found}, expected one of str"):
            read(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["x", None]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet, row 2: found text = null"):
        read(tmp_path / "a.parquet")
    bad = pa.array([b"good", b"\xff"]).view(pa.string())
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet, row 2: this is not UTF-8 text: byte 0"):
        read(tmp_path / "a.parquet")


def test_every_column_of_strings_is_read(tmp_path):
    strings = pa.array(["one", "two", "one"])
    kinds = [strings.cast(kind) for kind in ("string", "large_string", "string_view")]
    for column in (*kinds, strings.dictionary_encode()):
        pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
        assert read(tmp_path / "a.parquet") == ["one", "two", "one"]


def test_a_document_that_is_too_long_to_be_cut_at_once_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.data.building.documents.MAX_DOCUMENT_BYTES", 10)
    monkeypatch.setattr("trainer.data.building.documents._MAX_LINE_BYTES", 30)
    (tmp_path / "fits.txt").write_text("é" * 5)
    (tmp_path / "long.txt").write_text("é" * 5 + "x")
    (tmp_path / "long.jsonl").write_text(good_line("é" * 5 + "x"))
    (tmp_path / "line.jsonl").write_text(good_line("x" * 99))
    write_parquet(tmp_path / "long.parquet", ["x" * 11])
    assert len(read(tmp_path / "fits.txt")) == 1
    for name in ("long.txt", "long.jsonl", "line.jsonl", "long.parquet"):
        with pytest.raises(ConfigError, match=rf"{name.split('.')[1]}.* at most 10 are cut"):
            read(tmp_path / name)


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
