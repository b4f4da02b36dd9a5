"""A draft says what it found, asks what it does not know, and refuses what it cannot read."""

import textwrap

import pytest

from sweep.__main__ import main
from sweep.draft.draft import Draft, write_draft
from tests.support.scripts import VARIANTS, variant
from trainer.config.config_errors import ConfigError
from trainer.script.load import load_any_recipe

HEAD = """
import os
seed = int(os.environ.get("SEED", 1))
data_path = os.environ.get("DATA_PATH", "./data/some-text")
vocab_size = int(os.environ.get("VOCAB_SIZE", 512))
iterations = int(os.environ.get("ITERATIONS", 20000))
cap = float(os.environ.get("MAX_WALLCLOCK_SECONDS", 600))
"""
ACTIVATION = "h = F.leaky_relu(x, 0.5).square()\n"
SCORE = "print(f'final_int6_roundtrip val_loss:{a:.4f} val_bpb:{b:.4f}')\n"


def drafted(folder, text: str, **options) -> Draft:
    path = folder / "train.py"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return write_draft(str(path), folder=folder / "recipes", **options)


def asked(draft: Draft) -> str:
    return draft.report.partition("must check")[2]


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_of_the_example_is_drafted(name, tmp_path):
    path = tmp_path / "train_golf.py"
    path.write_text(variant(name), encoding="utf-8")
    draft = write_draft(str(path), folder=tmp_path / "recipes")
    recipe = load_any_recipe(str(draft.path))
    script = recipe.script
    assert recipe.data.dataset == "stdlib-512"
    assert (script.env["SEED"], script.steps_env["ITERATIONS"]) == ("{seed}", "{steps}")
    assert script.steps_env["MAX_WALLCLOCK_SECONDS"] == "0"
    assert (script.launch, script.artifact_file) == ("torchrun", "final_model.int6.ptz")
    footing = {n: (rule.window, rule.stride) for n, rule in script.read.stages.items()}
    assert footing == {"pre_quant": (32, 32), "post_quant": (32, 32), "sliding": (32, 16)}
    assert len(script.patch) == {"environment": 0, "wrong_backward": 0}.get(name, 3)
    assert ("{slope}" in script.env.values()) == (name == "environment")
    assert "three sites found" in draft.report.casefold()
    assert ("does not fit" in asked(draft)) == (name == "wrong_backward")


def test_a_kernel_that_is_not_understood_is_named_and_stops_the_patches(tmp_path):
    kernel = 'SRC = """\nfloat y = fmaxf(v, 0.5f * v); // leaky\nreturn y * y;\n"""\n'
    draft = drafted(tmp_path, HEAD + ACTIVATION + kernel + SCORE)
    sentence = "Two sites found, one set by this draft, line 10 is in a kernel string"
    assert sentence in draft.report
    assert load_any_recipe(str(draft.path)).script.patch == ()
    assert '# find = "F.leaky_relu(x, 0.5)"' in draft.text


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("x = os.environ[input()]\n", "line 8: os.environ[input()] reads a variable whose name"),
        (
            "s = float(os.environ.get('MLP_LEAKY_SLOPE', 0.5))\n",
            "line 8: MLP_LEAKY_SLOPE (default '0.5') sounds",
        ),
        ("a = os.environ.get('MLP_ACT', 'relu2')\n", "line 8: MLP_ACT (default 'relu2') chooses"),
        ("s = int(os.environ.get('DATA_SEED', 0))\n", "line 8: DATA_SEED"),
        ("s = int(os.environ.get('MAX_STEPS', 0))\n", "line 8: MAX_STEPS"),
        ("y = torch.relu(x).square()\n", "line 8: torch.relu(x) is ReLU²"),
        ("os.environ['SEED'] = '3'\n", "line 8: SEED is set by the script itself"),
        ("torch.manual_seed(7)\n", "line 8: torch.manual_seed(7) has a seed of its own"),
        ("z = torch.where(x > 0, x * x, -0.25 * x * x)\n", "line 8: β = -0.25 is no square"),
        ("if flag():\n    z = F.leaky_relu(x, 0.5) ** 2\n", "line 9: it runs only if flag()"),
        ("if 0:\n    z = F.leaky_relu(x, 0.5) ** 2\n", "line 9 does not run by default"),
        ("import fused_mlp\n", "line 8: fused_mlp is not beside the script"),
        ("print(f'{name} val_loss:{a} val_bpb:{b}')\n", "line 8 prints a score in a form"),
        ("print(f'final val_loss:{a} val_bpb:{b}')\n", "line 8 prints 'final'"),
    ],
)
def test_what_is_not_certain_is_asked_by_line(text, question, tmp_path):
    draft = drafted(tmp_path, HEAD + text + ACTIVATION + SCORE)
    assert question in asked(draft)
    assert f"ASK: {question[:20]}" in draft.text


def test_relu_squared_alone_is_a_patch_that_is_asked(tmp_path):
    draft = drafted(tmp_path, HEAD + "y = torch.relu(x).square()\n" + SCORE)
    assert "should it become LeakyReLU²" in asked(draft)
    assert "One site found, none set by this draft" in draft.report
    assert '# replace = "torch.nn.functional.leaky_relu(x, {slope})"' in draft.text
    assert load_any_recipe(str(draft.path)).script.patch == ()


def test_a_label_that_is_given_to_a_function_is_followed(tmp_path):
    helper = (
        "def timed(label, f):\n    a, b = f()\n"
        "    print(f'{label} val_loss:{a:.8f} val_bpb:{b:.8f}')\n"
        "timed('pre-quantization post-ema', f)\n"
        "if bool(int(os.environ.get('SLIDING', '1'))):\n    timed('quantized_sliding', f)\n"
        "if bool(int(os.environ.get('TTT_ENABLED', '0'))):\n    timed('quantized_ttt', f)\n"
    )
    draft = drafted(tmp_path, HEAD + ACTIVATION + helper)
    assert set(load_any_recipe(str(draft.path)).script.read.stages) == {"pre_quant", "sliding"}
    assert "'quantized_ttt' (ttt) is not printed by default" in asked(draft)


def test_what_it_imports_from_beside_it_is_a_file_and_is_looked_at(tmp_path):
    (tmp_path / "kernels.py").write_text("def act(x):\n    return F.leaky_relu(x, 0.5) ** 2\n")
    draft = drafted(tmp_path, HEAD + "import kernels\n" + ACTIVATION + SCORE)
    recipe = load_any_recipe(str(draft.path))
    assert list(recipe.sources) == ["train.py", "kernels.py"]
    assert "line 2 of kernels.py" in asked(draft)
    assert recipe.script.patch == ()


def test_a_data_set_under_a_root_of_its_own_is_patched(tmp_path):
    text = HEAD.replace('"DATA_PATH", "./data/some-text"', '"DATA_DIR", "./data/"') + (
        "folder = os.path.join(data_path, 'datasets', f'fineweb10B_sp{vocab_size}')\n"
    )
    recipe = load_any_recipe(str(drafted(tmp_path, text + ACTIVATION + SCORE).path))
    assert recipe.data.dataset == "fineweb10B_sp512"
    assert recipe.script.env["SWEEP_DATA_SET"] == "{data_dir}"
    assert any("SWEEP_DATA_SET" in patch.replace for patch in recipe.script.patch)


def test_nothing_is_run_and_nothing_is_written_over(tmp_path):
    draft = drafted(tmp_path, HEAD + "raise SystemExit(9)\n" + ACTIVATION + SCORE)
    draft.path.write_text("kept", encoding="utf-8")
    with pytest.raises(ConfigError, match="exists"):
        drafted(tmp_path, HEAD)
    assert draft.path.read_text(encoding="utf-8") == "kept"
    drafted(tmp_path, HEAD + ACTIVATION, force=True)
    assert draft.path.read_text(encoding="utf-8") != "kept"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "cannot be read"),
        ("def broken(:\n", "line 1: this is not Python"),
        ("import zlib\nexec(zlib.decompress(open('x').read()))\n", "packing unknown"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(text, sentence, tmp_path, capsys):
    path = tmp_path / "train.py"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert main(["draft", "--script", str(path)]) == 2
    assert sentence in capsys.readouterr().err
    assert main(["draft"]) == 2
    assert "SCRIPT=" in capsys.readouterr().err
