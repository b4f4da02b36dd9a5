"""Every variable that a script reads is found, however it is written; what is computed is said."""

import ast

import pytest

from trainer.script.source.variables import variables_read, variables_written

DIRECT = {
    "os.environ.get('A', 1)": [("A", "1")],
    "int(os.environ.get('A', '1'))": [("A", "1")],
    "bool(int(os.environ['A']))": [("A", None)],
    "os.getenv('A', default=-2)": [("A", "-2")],
    "os.getenv(key='A')": [("A", None)],
    "os.environ.setdefault('A', 'x')": [("A", "x")],
    "'A' in os.environ": [("A", None)],
    "os.environ.get('A', os.environ.get('B', '3'))": [("A", "3"), ("B", "3")],
    "os.environ.get('A' + '_B', f'x{1}')": [("A_B", "x1")],
    "os.environ.get(f'{\"a\".upper()}', str(5))": [("A", "5")],
    "[os.environ.get(n, '0') for n in ('A', 'B')]": [("A", "0"), ("B", "0")],
    "{n: os.environ.get(n, d) for n, d in [('A', 1), ('B', 2)]}": [("A", "1"), ("B", "2")],
    "__import__('os').environ.get('A')": [("A", None)],
    "f'{os.environ[\"A\"]}'": [("A", None)],
    "os.environ.get('A', f'{time.time()}')": [("A", None)],
}
PROGRAMS = {
    "import os as o\no.getenv('A')": [("A", None)],
    "from os import environ, getenv as g\nenviron['A']; g('B', 2)": [("A", None), ("B", "2")],
    "from os import environ as e\ne.get('A')": [("A", None)],
    "import os\nE = os.environ\nget = os.environ.get\nE['A']; get('B', '')": [
        ("A", None),
        ("B", ""),
    ],
    "import os\nNAME = 'A'\nos.environ[NAME]": [("A", None)],
    "import os\nclass H:\n    a = float(os.environ.get('A', 0.5))": [("A", "0.5")],
    "import os\ndef env(name, default=1):\n    return int(os.environ.get(name, default))\n"
    "env('A'); env('B', 2); env(default=3, name='C')": [("A", "1"), ("B", "2"), ("C", "3")],
    "import os\ndef env(n):\n    return os.getenv('PRE_' + n)\n"
    "def flag(n):\n    return env(n.upper()) == '1'\nflag('a')": [("PRE_A", None)],
    "import os\nclass H:\n    @staticmethod\n    def env(n): return os.environ[n]\n"
    "    def read(self): self.env('A'); H.env('B')": [("A", None), ("B", None)],
    "import os\nfor n, d in (('A', '1'), ('B', '2')):\n    print(os.environ.get(n, d))": [
        ("A", "1"),
        ("B", "2"),
    ],
    "import os\nos.environ['A'] = '1'\nos.environ.update(B='2')\ndel os.environ['C']": [],
    "text = 'os.environ.get(\"A\")'  # os.environ['B']": [],
}
COMPUTED = [
    "os.environ.get(input())",
    "os.environ.copy()",
    "dict(os.environ)",
    "{**os.environ}",
    "[k for k in os.environ]",
    "list(map(os.environ.get, names))",
    "(lambda n: os.environ[n])('A')",
    "env(*names)",
    "list(map(env, ['A']))",
]
HELPER = "def env(name):\n    return os.environ[name]\n"


@pytest.mark.parametrize("text", DIRECT)
def test_a_read_is_found_with_its_default(text):
    reads = variables_read(ast.parse(f"import os, time\nvalue = {text}"))
    assert sorted((read.name, read.default) for read in reads) == DIRECT[text]
    assert {read.line for read in reads} == {2}


@pytest.mark.parametrize("program", PROGRAMS)
def test_other_names_helpers_and_loops_are_followed(program):
    found = [(read.name, read.default) for read in variables_read(ast.parse(program))]
    assert sorted(found) == PROGRAMS[program]


@pytest.mark.parametrize("text", COMPUTED)
def test_a_name_that_cannot_be_known_is_reported(text):
    helper = HELPER if "env(" in text or "map(env" in text else ""
    reads = variables_read(ast.parse(f"import os\n{helper}names = input().split()\n{text}"))
    assert [read.name for read in reads] == [None]


def test_a_helper_that_nobody_calls_is_reported():
    reads = variables_read(ast.parse(f"import os\n{HELPER}"))
    assert [(read.line, read.name) for read in reads] == [(3, None)]


def test_what_a_script_writes_is_no_read_and_is_known():
    tree = ast.parse(
        "from os import environ as e\ne['A'] = '1'\ne.update({'B': '2'}, C='3')\ndel e['D']"
    )
    assert variables_written(tree) == {"A": 2, "B": 3, "C": 3, "D": 4}
    assert variables_read(tree) == []
