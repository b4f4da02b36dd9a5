"""A recipe of a script carries the text of its files, and what cannot be carried is refused."""

import platform

import pytest

from tests.support.scripts import FILE, recipe, variant, write_recipe
from trainer.config import Recipe, ScriptRecipe
from trainer.config.config_errors import ConfigError
from trainer.contract import recipe_hash
from trainer.script.load import MAX_FILE_BYTES, load_any_recipe

HERE = ".".join(platform.python_version_tuple()[:2])


def load(folder, text=None, overrides=None, **files):
    """A recipe in ``folder`` beside the script, or what ``files`` put in its place."""
    (folder / FILE).write_text("print('x')\n")
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / f"{name}.py").write_bytes(data)
    (folder / "mine.toml").write_text(recipe("environment") if text is None else text)
    loaded = load_any_recipe(str(folder / "mine.toml"), overrides)
    assert isinstance(loaded, ScriptRecipe)
    return loaded


def refusal(*arguments, **files):
    with pytest.raises(ConfigError) as caught:
        load(*arguments, **files)
    return str(caught.value)


def with_key(line):
    return recipe("environment").replace("[script]\n", f"[script]\n{line}\n", 1)


def test_a_recipe_of_our_own_model_still_loads():
    assert isinstance(load_any_recipe("tiny"), Recipe)


def test_the_texts_of_all_files_are_carried_by_name(tmp_path):
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "model.py").write_text("x = 1\n")
    found = load(tmp_path, with_key('files = ["beside/model.py"]'))
    assert found.sources == {FILE: "print('x')\n", "model.py": "x = 1\n"}
    assert found.main == FILE


def test_bytes_make_the_identity_and_paths_do_not(tmp_path):
    hashes = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        hashes.add(recipe_hash(load(tmp_path / name)))
    (tmp_path / FILE).write_text("print('x')\n")
    (tmp_path / "a" / "up.toml").write_text(recipe("environment", path=f"../{FILE}"))
    hashes.add(recipe_hash(load_any_recipe(str(tmp_path / "a" / "up.toml"))))
    assert len(hashes) == 1
    (tmp_path / FILE).write_text("print('y')\n")
    hashes.add(recipe_hash(load_any_recipe(str(tmp_path / "a" / "up.toml"))))
    assert len(hashes) == 2


def test_a_packed_script_is_the_same_question_as_what_is_packed_in_it(tmp_path):
    plain = load_any_recipe(str(write_recipe(tmp_path, "constants")))
    (tmp_path / FILE).write_text(variant("packed"))
    packed = load_any_recipe(str(tmp_path / "constants.toml"))
    assert recipe_hash(plain) == recipe_hash(packed)
    assert (plain.packed, packed.packed is not None) == (None, True)


def test_values_can_be_overridden_and_axes_leave_the_recipe_alone(tmp_path):
    changed = load(tmp_path, None, {"data.vocab_size": 600, "lr": 0.1})
    assert changed.data.vocab_size == 600
    assert changed.sources == load(tmp_path).sources


def test_a_script_with_sections_of_our_own_model_is_refused(tmp_path):
    message = refusal(tmp_path, recipe("environment") + "\n[model]\nwidth = 8\n[train]\n")
    assert "recipe mine: it has [script] and model, train." in message
    assert "not both" in message
    assert "not both" in refusal(tmp_path, None, {"optim.matrix_lr": 0.1})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('files = ["none.py"]', "none.py cannot be read (No such file or directory)"),
        (f'files = ["{FILE}"]', f"two of its files are called '{FILE}'"),
        ('files = ["."]', "cannot be read (Is a directory)"),
        ('files = ["~nobody-of-that-name/x.py"]', "x.py': there is no such home folder"),
        ('files = ["a\\u0000.py"]', "cannot be read (embedded null byte)"),
        ('launch = "slurm"', "script.launch = 'slurm'"),
        ('lunch = "python"', "script.lunch: unknown key. Did you mean 'launch'?"),
        ('arguments = "--x"', "script.arguments"),
        (
            'patch = [{ find = "a", replace = "b", count = 1, only = ["leaky_relu3"] }]',
            "patch 1: only: 'leaky_relu3' is no activation. Did you mean 'leaky_relu'?",
        ),
        ('activation_names = { "leaky_relu2_s0.5" = "x" }', "activation_names: 'leaky_relu2_s0.5'"),
    ],
)
def test_a_key_that_cannot_be_meant_is_refused(tmp_path, line, said):
    assert said in refusal(
        tmp_path, with_key(line).replace('launch = "python"\n', "", "launch" in line)
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"x = '\xff'", f"{FILE} is not UTF-8 text (byte 5)"),
        ("def f(:\n", f"{FILE}, line 1: this is not Python (here {HERE}): "),
        ("x = 1\n y = 2\n", f"{FILE}, line 2: this is not Python (here {HERE}): unexpected indent"),
        (
            "x = '\0'",
            f"{FILE}: this is not Python (here {HERE}): source code string cannot contain",
        ),
        ("x = " + "-" * 10_000 + "1", "it is nested too deeply"),
        ("#" * (MAX_FILE_BYTES + 1), f"{FILE} has 4,194,305 bytes"),
        ("exec(open('x').read())", f"{FILE}, line 1: packing unknown"),
    ],
    ids=["latin", "syntax", "indent", "null", "deep", "large", "packing"],
)
def test_a_file_that_is_no_script_is_refused(tmp_path, content, said):
    assert said in refusal(tmp_path, train_golf=content)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_a_byte_order_mark_are_read_as_python_reads_them(tmp_path, end):
    text = 'x = 1\nif x:\n\ty = """a\nb"""\n'
    (tmp_path / "beside.txt").write_bytes(b"1\r\n")
    found = load(
        tmp_path,
        with_key('files = ["model.py", "beside.txt"]'),
        train_golf=b"\xef\xbb\xbf" + text.replace("\n", end).encode(),
        model=text.replace("\n", end),
    )
    assert found.sources == {FILE: text, "model.py": text, "beside.txt": "1\r\n"}


@pytest.mark.parametrize("label", ["final_int6_roundtrip", "final_int6_roundtrip_exact"])
def test_one_line_is_not_two_stages(tmp_path, label):
    text = recipe("environment") + f"\n[script.read.ttt]\nlabel = '{label}'\n"
    assert f"post_quant and ttt are read from one line, '{label}'" in refusal(tmp_path, text)


def test_a_script_that_warns_is_read_in_silence(tmp_path):
    assert load(tmp_path, train_golf=r"x = '\d'").main == FILE
