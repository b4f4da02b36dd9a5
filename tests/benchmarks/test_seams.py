"""In a bfloat16 step every part of the model gives and gets bfloat16, and the loss is float32.

By the rules of CUDA's autocast, which computes more in float32 than the CPU's: restated on the CPU,
forward and backward, and where torch is built for CUDA its own, on tensors that have shapes alone.
"""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode

from benchmarks.seams import FUNCTIONS, METHODS, Kept, astray, watched
from tests.support.tiny import busy_model, random_tokens, tiny_recipe
from trainer.config import load_recipe
from trainer.model import GPT, gpt

BF16 = torch.bfloat16


@pytest.fixture
def cuda_autocast():
    """Autocast to bfloat16 on CUDA, which torch.autocast switches off where there is no GPU."""
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", BF16)
    yield
    torch.set_autocast_enabled("cuda", False)


def without_weights(recipe, device):
    with torch.device(device):
        model = GPT(
            recipe.model,
            activation="asqu",
            activation_params={},
            num_positions=recipe.train.seq_len,
            dtype=BF16,
        )
    model.set_precision()
    return model


# Of what CUDA's autocast computes in float32 (torch's documentation), what a model might use; and
# rms_norm, which some versions add.
CUDA_IN_FLOAT32 = {"cosine_similarity", "cross_entropy", "cumsum", "exp", "layer_norm", "log"}
CUDA_IN_FLOAT32 |= {"log_softmax", "nll_loss", "norm", "normalize", "pow", "prod", "reciprocal"}
CUDA_IN_FLOAT32 |= {"rms_norm", "rsqrt", "softmax", "softplus", "sum"}


class AsOnCuda(TorchFunctionMode):
    def __torch_function__(self, function, types, arguments=(), named=None):
        if function.__name__ in CUDA_IN_FLOAT32:
            arguments = [
                a.float() if isinstance(a, torch.Tensor) and a.dtype is BF16 else a
                for a in arguments
            ]
        return function(*arguments, **(named or {}))


def bfloat16_model():
    model = busy_model(activation="asqu", dtype=BF16)
    model.set_precision()
    return model


def check(seams, recipe, tail=None):
    config, (batch, length) = recipe.model, (2, recipe.train.seq_len)
    assert astray(seams, BF16) == []
    assert {seam.part for seam in seams} == {*METHODS, *FUNCTIONS}
    num = tail or length
    shapes = {seam.part: seam.shape for seam in seams if seam.direction == "forward"}
    assert shapes["_attend"] == (batch, num, config.num_heads, config.head_dim)
    for part in ("_layer_norm", "_attention", "_mlp", "_block", "body"):
        assert shapes[part] == (batch, num, config.width)
    assert shapes["nll_of"] == (batch, num)


def test_by_cudas_rules_every_part_gives_bfloat16_and_gets_back_what_it_gave():
    model, tokens = bfloat16_model(), random_tokens(2, 33)
    with AsOnCuda(), watched(model) as seams:
        model.nll(tokens[:, :-1], tokens[:, 1:]).mean().backward()
    check(seams, tiny_recipe())
    given, back = (
        sorted((s.part, str(s.dtype), s.shape) for s in seams if s.direction == direction)
        for direction in ("forward", "backward")
    )
    assert given == back


def test_by_cudas_rules_scoring_the_last_positions_gives_bfloat16():
    model, tokens = bfloat16_model(), random_tokens(2, 32)
    with AsOnCuda(), torch.no_grad(), watched(model) as seams:
        model.nll(tokens, tokens, 8)
    check(seams, tiny_recipe(), tail=8)


@pytest.mark.skipif(torch.version.cuda is None, reason="torch is built for CPUs")
@pytest.mark.usefixtures("cuda_autocast")
def test_under_cudas_own_autocast_every_part_gives_and_gets_bfloat16():
    recipe = tiny_recipe()
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = without_weights(recipe, "cuda")
        tokens = torch.zeros(2, recipe.train.seq_len, dtype=torch.int64, device="cuda")
        with watched(model) as seams:
            model.nll(tokens, tokens).mean().backward()
    check(seams, recipe)


def test_a_part_that_falls_out_of_the_type_is_found(monkeypatch):
    """As XSA did, whose norms CUDA's autocast computes in float32."""
    exact = gpt.exclude_self
    monkeypatch.setattr(gpt, "exclude_self", lambda y, v: exact(y, v).float())
    model = bfloat16_model()
    with torch.no_grad(), watched(model) as seams:
        model.body(random_tokens(2, 32))
    assert {seam.part for seam in astray(seams, BF16)} == {"exclude_self"}


def test_the_full_size_keeps_for_its_backward_what_fits_on_a_gpu_of_80_gb():
    """A micro-batch of #549 as it is written, 41.1 GB; compiled it is less. An attention that kept
    all weights of all heads would add 3.2 GB or more a layer."""
    recipe = load_recipe("pr549")
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = without_weights(recipe, "cpu")
        kept, shape = Kept(model.parameters()), (48, recipe.train.seq_len)
        tokens = torch.zeros(shape, dtype=torch.int64)
        with AsOnCuda(), kept.watching():
            model.nll(tokens, tokens).mean()
        num_bytes = kept.num_bytes
    assert 40e9 < num_bytes < 42e9
