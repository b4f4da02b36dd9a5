"""FlashAttention-3 is proven before it is used, and no rank uses it unless every rank may."""

import sys
import types

import pytest
import torch

from tests.support import flash
from tests.support.drawn_tensors import normal
from tests.support.tiny import busy_model
from trainer.cell import placed
from trainer.distributed.world import World
from trainer.model import attention_backend as seam
from trainer.model.attention import attend
from trainer.model.attention_backend import attention_backend, attention_of, is_correct
from trainer.model.compilation import Compilation

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HEADS = (4, 2, 8)
LENGTH = 99


@pytest.fixture
def hopper(monkeypatch):
    """A GPU that FlashAttention-3 is written for; the proof runs on the CPU."""
    monkeypatch.setattr(seam, "_is_hopper", lambda device: True)
    monkeypatch.setattr(
        seam, "is_correct", lambda function, _, shape: is_correct(function, CPU, shape, LENGTH)
    )
    yield
    forget()


def forget():
    torch._dynamo.reset()
    for cached in (seam._flash_attention_3, seam._is_proven):
        cached.cache_clear()


def install(monkeypatch, function):
    package = None if function is None else types.SimpleNamespace(flash_attn_func=function)
    monkeypatch.setitem(sys.modules, "flash_attn_interface", package)
    forget()


@pytest.mark.usefixtures("hopper")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_package_of_todays_form_is_compiled_found_right_and_used_in_bfloat16_on_its_gpus(
    monkeypatch, capsys
):
    install(monkeypatch, flash.flash_attn_func)
    compilation = Compilation(CPU)
    assert attention_backend(CUDA, torch.bfloat16, HEADS) == "flash_attn_3"
    assert not compilation.misses()
    q, k, v = normal(2, 9, 4, 8), normal(2, 32, 2, 8, seed=1), normal(2, 32, 2, 8, seed=2)
    assert torch.equal(attention_of("flash_attn_3")(q, k, v), attend(q, k, v))
    assert capsys.readouterr().err == ""
    assert attention_backend(CUDA, torch.float32, HEADS) == "torch_sdpa"
    assert attention_backend(CPU, torch.bfloat16, HEADS) == "torch_sdpa"
    monkeypatch.setattr(seam, "_is_hopper", lambda device: False)
    assert attention_backend(CUDA, torch.bfloat16, HEADS) == "torch_sdpa"
    assert attention_of("torch_sdpa") is attend


@pytest.mark.usefixtures("hopper")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    ("function", "said"),
    [
        (None, "no package flash_attn_interface"),
        (flash.untraceable, "it does not run here"),
        (flash.mask_of_the_first_key, "it is off by"),
        (flash.other_heads, "it is off by"),
    ],
)
def test_what_is_absent_untraceable_or_wrong_is_told_and_not_used(
    monkeypatch, capsys, function, said
):
    install(monkeypatch, function)
    for _ in range(2):  # told once
        assert attention_backend(CUDA, torch.bfloat16, HEADS) == "torch_sdpa"
    warning = capsys.readouterr().err
    assert warning.count("warning: FlashAttention-3 is not used") == 1
    assert said in warning


class Another(World):
    """A rank of several, one of which is not this one and has neither kernel nor package."""

    def largest(self, tensor):
        return torch.ones_like(tensor)


def test_where_one_rank_lacks_it_no_rank_uses_it(monkeypatch):
    monkeypatch.setattr("trainer.model.gpt.attention_backend", lambda *_: "flash_attn_3")
    model = busy_model()
    assert placed(model, World(rank=0, size=1, device=CPU)).attention_backend == "flash_attn_3"
    without = placed(model, Another(rank=0, size=1, device=CPU))
    assert without.attention_backend == "torch_sdpa"
    assert without._attend is attend
