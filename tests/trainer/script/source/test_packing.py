"""A packed script is unpacked without being run, and packed again as it was."""

import base64
import gzip
import lzma
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trainer.config.config_errors import ConfigError
from trainer.script.source.packing import MAX_DEPTH, pack, unpack

PLAIN = "import os\nprint('seed', os.environ['SEED'], '≤ {x}')\n"

RAW = [{"id": lzma.FILTER_LZMA2}]
PACKED = lzma.compress(PLAIN.encode(), lzma.FORMAT_RAW, filters=RAW)
B85 = base64.b85encode(lzma.compress(PLAIN.encode())).decode()
B64 = base64.b64encode(zlib.compress(PLAIN.encode())).decode()
DEFLATED = zlib.compress(PLAIN.encode(), wbits=-15)
HALF = len(B85) // 2

FORMS = {
    "raw": f"""import lzma as L,base64 as B
exec(L.decompress(B.b85decode("{base64.b85encode(PACKED).decode()}"),format=L.FORMAT_RAW,filters=[{{"id":L.FILTER_LZMA2}}]))
""",
    "preset": "import lzma, base64\nexec(lzma.decompress(base64.b85decode("
    f"{base64.b85encode(PACKED)!r}), lzma.FORMAT_RAW, None,"
    "[{'id': lzma.FILTER_LZMA2, 'preset': 9 | lzma.PRESET_EXTREME}]).decode('utf-8'))",
    "one line": f"exec(__import__('zlib').decompress(__import__('base64').b64decode(b'{B64}')))",
    "variable": f"#!/usr/bin/env python3\n'''Train.'''\nimport base64, sys, zlib\np = '{B64}'\n"
    "exec(compile(zlib.decompress(base64.b64decode(p)).decode(), '<string>', 'exec'), globals())",
    "parts": f"import base64, lzma\nb = b'{B85[HALF:]}'\n"
    f"c = base64.b85decode(b'{B85[:HALF]}' + b)\n"
    "d = lzma.decompress(c)\nexec(d)\n",
    "lines": "from lzma import decompress as d\nfrom base64 import *\n"
    f"exec(d(b85decode(\n'{B85[:HALF]}'\n'{B85[HALF:]}')))",
    "modules in names": "L=__import__('lzma');B=__import__('base64')\n"
    f"exec(L.decompress(B.b85decode('{B85}'), format=L.FORMAT_AUTO))",
    "latin": f"import zlib\nexec(zlib.decompress({DEFLATED.decode('latin1')!r}.encode('latin1'), "
    "-zlib.MAX_WBITS).decode())",
    "raw bytes": f"import zlib\r\nexec(zlib.decompress({DEFLATED!r}, wbits=-15))\r\n",
    "gzip": "import gzip, base64\nexec(gzip.decompress(base64.a85decode("
    f"{base64.a85encode(gzip.compress(PLAIN.encode()))!r})))",
    "only text": f"exec({PLAIN!r})",
}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@pytest.mark.parametrize("form", FORMS)
def test_a_packed_script_is_unpacked(form: str) -> None:
    text, packing = unpack(FORMS[form], "train.py")
    assert text == PLAIN
    assert packing is not None
    assert "PAYLOAD" in packing


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=10)
@given(text=texts)
@example(text="")
@example(text="\r\n'\"\\ \x00 é ≤\n")
def test_what_is_packed_again_unpacks_to_the_same_text(form: str, text: str) -> None:
    packing = unpack(FORMS[form], "train.py")[1]
    assert packing is not None
    again = pack(text, packing)
    assert unpack(again, "again") == (text, packing)


def test_packing_again_is_as_strong_as_the_author_did() -> None:
    text = Path(__file__).read_text()
    packing = unpack(FORMS["raw"], "train.py")[1]
    strongest = [RAW[0] | {"preset": 9 | lzma.PRESET_EXTREME}]
    data = lzma.compress(text.encode(), lzma.FORMAT_RAW, filters=strongest)
    assert packing is not None
    assert len(pack(text, packing)) <= len(packing) - len("PAYLOAD") + len(base64.b85encode(data))


def test_a_script_that_is_packed_again_runs(tmp_path: Path) -> None:
    packing = unpack(FORMS["variable"], "train.py")[1]
    assert packing is not None
    script = tmp_path / "packed.py"
    script.write_text(pack("import sys\nprint(sys.argv[1], __name__)", packing))
    command = [sys.executable, str(script), "seven"]
    assert subprocess.check_output(command, text=True) == "seven __main__\n"


def test_what_is_packed_twice_is_packed_once() -> None:
    outer = unpack(FORMS["one line"], "train.py")[1]
    assert outer is not None
    twice = pack(FORMS["raw"], outer)
    assert unpack(twice, "train.py") == (PLAIN, outer)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "exec is a word = \n",
        "def run(code):\n    exec(code)\n",
        "import sys\na = len(sys.argv)\nb = a\nc = b\nd = c\nwhile False: pass\ndel a\n"
        "exec(open('configurator.py').read())\n",
    ],
    ids=["no exec", "no Python", "in a function", "among much code"],
)
def test_other_scripts_are_plain(text: str) -> None:
    assert unpack(text, "train.py") == (text, None)


ONE = FORMS["one line"]


@pytest.mark.parametrize(
    ("text", "line", "shown"),
    [
        ("import os\n\nexec(open('x').read())", 3, "open('x').read()"),
        ("import brotli\nexec(brotli.decompress(b''))", 1, "import brotli"),
        ("import marshal\nexec(marshal.loads(b''))", 2, "marshal.loads(b'')"),
        (f"import os\nos.environ['A'] = '1'\n{ONE}", 2, "os.environ['A'] = '1'"),
        (f"SEED = 1\n{ONE}", 1, "SEED = 1"),
        (f"try:\n  {ONE}\nexcept Exception: pass", 1, "try:"),
        (f"{ONE}\n{ONE}", 1, "exec(__import__('zlib')"),
        ("p = 'x'\np = 'y'\nexec(p)", 2, "p = 'y'"),
        ("p = 'x'\nexec(p + p)", 2, "p"),
        ("exec('x', {'a': 1})", 1, "{'a': 1}"),
        ("exec(compile('x', '', 'single'))", 1, "compile('x', '', 'single')"),
        ("import zlib\nexec(zlib.decompress(b'', wbits='a' | 1))", 2, "zlib.decompress(b''"),
        ("import zlib\nexec(zlib.decompress(b'', size=1))", 2, "size=1"),
        ("exec('x' * 10)", 1, "'x' * 10"),
        ("from __future__ import annotations\nexec('x')", 1, "from __future__"),
        ("exec(" + " + ".join(["'x'"] * 1500) + ")", 1, "'x' + 'x'"),
    ],
)
def test_what_is_not_understood_is_named_with_its_line(text: str, line: int, shown: str) -> None:
    with pytest.raises(ConfigError) as refused:
        unpack(text, "train.py")
    message = str(refused.value)
    assert message.startswith(f"train.py, line {line}: packing unknown: ")
    assert shown in message
    assert "lzma.decompress" in message
    assert "by hand" in message


@pytest.mark.parametrize(
    "argument",
    [
        "zlib.decompress(b'no')",
        f"zlib.decompress({zlib.compress(b'x')[:-1]!r})",
        "lzma.decompress(base64.b64decode('!'))",
        "lzma.decompress(b'', format=3, filters=[{'id': 'x'}])",
        "'x'.decode()",
        "b'\\xff'",
        "b'x'.decode('no such codec')",
        "'x' + b'x'",
    ],
)
def test_a_damaged_payload_is_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match="line 2: what is packed here cannot be unpacked"):
        unpack(f"import base64, lzma, zlib\nexec({argument})", "train.py")


@pytest.mark.parametrize("packer", ["zlib", "lzma"])
def test_a_small_file_that_holds_gigabytes_is_refused(packer: str) -> None:
    data = {"zlib": zlib, "lzma": lzma}[packer].compress(bytes(17 << 20))
    with pytest.raises(ConfigError, match="more than 16,777,216 bytes"):
        unpack(f"import {packer}\nexec({packer}.decompress({data!r}))", "train.py")


def test_a_script_that_is_packed_too_often_is_refused() -> None:
    text, packing = unpack(ONE, "train.py")
    assert packing is not None
    for _ in range(MAX_DEPTH):
        text = pack(text, packing)
    with pytest.raises(ConfigError, match=f"more than {MAX_DEPTH} times"):
        unpack(text, "train.py")
