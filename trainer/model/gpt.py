"""The one forward path: ``body`` turns tokens into hidden states, ``head`` turns those into logits.

Matrices of one kind are kept in one bank (a stack over layers), so that the optimizer can treat
them together. Shapes: B sequences, T tokens, D width, V vocabulary, L layers, F hidden channels,
H query heads, G key-value heads, K dimensions of a head. Mathematics: parameter-golf PR #549, as
restated in docs/recipes.md.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.activations import BeginsSteps, Params, build_activation
from trainer.kernels.mlp import mlp
from trainer.model.attention import (
    Attention,
    attend,
    attention_for,
    exclude_self,
    rope_table,
    stretched_base,
)
from trainer.model.embeddings import HashedBigram, SharedValueEmbedding, smear
from trainer.model.loss import LARGEST_CAP, mean_capped_nll
from trainer.model.normed import normed_and_rotated, rms_norm
from trainer.recipe import Model

Tap = Callable[[str, int, Tensor], None]
"""Shown (what, layer, tensor): what goes into a matrix.

``what`` is attention_in, attention_out, mlp_in or mlp_hidden, or bigram_in or value_in (layer 0).
"""


class GPT(nn.Module):
    """A decoder with U-Net skips; ``num_positions`` is the longest sequence that it will see."""

    cos_TR: Tensor
    sin_TR: Tensor

    def __init__(
        self,
        config: Model,
        *,
        activation: str,
        activation_params: Params,
        num_positions: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.config, self.compute_dtype = config, dtype
        layers, width, hidden = config.num_layers, config.width, config.mlp_hidden
        self.embed = nn.Parameter(torch.zeros(config.vocab_size, width))
        self.qo_bank = nn.Parameter(torch.zeros(2 * layers, width, width))
        self.kv_bank = nn.Parameter(torch.zeros(2 * layers, config.kv_dim, width))
        self.up_bank = nn.Parameter(torch.zeros(layers, hidden, width))
        self.down_bank = nn.Parameter(torch.zeros(layers, width, hidden))
        self.q_gain_LH = nn.Parameter(torch.full((layers, config.num_heads), config.qk_gain))
        self.attn_scale_LD = nn.Parameter(torch.ones(layers, width))
        self.mlp_scale_LD = nn.Parameter(torch.ones(layers, width))
        self.resid_mix_L2D = nn.Parameter(
            torch.stack([torch.ones(layers, width), torch.zeros(layers, width)], dim=1)
        )
        self.skip_weights = nn.Parameter(torch.ones(layers // 2, width))
        self.smear_gate = nn.Parameter(torch.zeros(width)) if config.smear_gate else None
        self.bigram = HashedBigram(config.bigram, width) if config.bigram else None
        self.value_embedding = (
            SharedValueEmbedding(config.value_embedding, config.vocab_size, config.kv_dim)
            if config.value_embedding
            else None
        )
        self.activations = nn.ModuleList(
            build_activation(activation, activation_params, hidden) for _ in range(layers)
        )
        rounded_to = dtype if config.rope_frequencies == "rounded" else torch.float32
        cos, sin = rope_table(num_positions, config.rope_dims, config.rope_base, rounded_to)
        self.register_buffer("cos_TR", cos, persistent=False)
        self.register_buffer("sin_TR", sin, persistent=False)
        self._stretched: tuple[Tensor, Tensor] | None = None  # of the length last seen
        self._attend: Attention = attend

    def body(self, tokens_BT: Tensor, tail: int | None = None, tap: Tap | None = None) -> Tensor:
        """Normalised hidden states (B, T, D), or of the last ``tail`` positions (B, tail, D)."""
        with self._precision(tokens_BT):
            x = self._embed(tokens_BT, tap)
            values = self._values(tokens_BT, tap)
            x0 = x
            skips: list[Tensor] = []
            num_encoders = self.config.num_layers // 2
            for layer in self._layers():
                if layer.number >= num_encoders and skips:
                    gate = self.skip_weights[layer.number - num_encoders].to(x.dtype)
                    x = torch.addcmul(x, gate, skips.pop())
                x = self._block(layer, x, x0, values.get(layer.number), tap)
                if layer.number < num_encoders:
                    skips.append(x)
            return rms_norm(x if tail is None else x[:, -tail:])

    def head(self, hidden_BTD: Tensor) -> Tensor:
        """Logits (B, T, V) in float32, within ± the soft-cap; embeddings are tied."""
        cap = self.config.logit_softcap
        if self.compute_dtype is torch.float32:  # cap divided out of the hidden states: fewer
            return cap * torch.tanh(F.linear(hidden_BTD / cap, self.embed))
        with self._precision(hidden_BTD):
            return cap * torch.tanh(F.linear(hidden_BTD, self.embed).float() / cap)

    def nll(self, tokens_BT: Tensor, targets_BT: Tensor, tail: int | None = None) -> Tensor:
        """Nats that each of the last ``tail`` targets costs, float32 (B, tail)."""
        logits = self.head(self.body(tokens_BT, tail))
        wanted = targets_BT if tail is None else targets_BT[:, -tail:]
        flat = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
        return flat.view(wanted.shape)

    def mean_nll(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """The mean of :meth:`nll`, to train on: on a CPU value and gradient at once."""
        cap = self.config.logit_softcap
        if not self.is_exact_on_cpu or cap > LARGEST_CAP:
            return self.nll(tokens_BT, targets_BT).mean()
        hidden_ND = self.body(tokens_BT).flatten(0, 1)
        return mean_capped_nll(hidden_ND, self.embed, targets_BT.flatten(), cap)

    @property
    def is_exact_on_cpu(self) -> bool:
        """Whether it computes in float32 on a CPU, where few large operations pay."""
        return self.embed.device.type == "cpu" and self.compute_dtype is torch.float32

    def set_precision(self) -> None:
        """Store the weights as the compute dtype wants them; in float32 that is as they are.

        In bfloat16, as published: every weight begins at a bfloat16 value, embeddings stay in
        bfloat16 (their gradients and moments too), all else is float32.
        """
        for name, parameter in self.named_parameters():
            rounded = parameter.data.to(self.compute_dtype)
            stays = name == "embed" or name.endswith(".embed")
            parameter.data = rounded if stays else rounded.float()

    def on_device(self, device: torch.device) -> "GPT":
        """This model, moved to ``device``, with the attention that is best there."""
        self._attend = attention_for(device, self.compute_dtype)
        return self.to(device)

    def compiled_nll(self, length: int) -> Callable[[Tensor, Tensor], Tensor]:
        """``nll`` for training on sequences of ``length``, compiled where the model is on CUDA.

        torch's own TORCH_COMPILE_DISABLE=1 leaves it uncompiled.
        """
        self._rope(length)  # made here, it is an input of the graph
        if self.embed.device.type != "cuda":
            return self.nll
        compiled: Callable[[Tensor, Tensor], Tensor] = torch.compile(self.nll, dynamic=False)
        return compiled

    def begin_step(self, seed: int, step: int | None) -> None:
        """Tell activations that draw something in training which step it is; None: they do not."""
        for layer, activation in enumerate(self.activations):
            if isinstance(activation, BeginsSteps):
                activation.begin_step(seed, step, layer)

    @contextmanager
    def late_qat(self, enabled: bool = True) -> Iterator[None]:
        """Inside, the projections of bigram and value embedding compute as if in six bits."""
        modules = [m for m in (self.bigram, self.value_embedding) if m is not None]
        for module in modules:
            module.six_bits = enabled
        try:
            yield
        finally:
            for module in modules:
                module.six_bits = False

    def _precision(self, like: Tensor) -> AbstractContextManager[object]:
        if self.compute_dtype is torch.float32:
            return nullcontext()
        return torch.autocast(like.device.type, dtype=self.compute_dtype)

    def _embed(self, tokens_BT: Tensor, tap: Tap | None) -> Tensor:
        x = F.embedding(tokens_BT, self.embed)
        if self.bigram is not None:
            x = x + self.bigram(tokens_BT, _observer(tap, "bigram_in", 0))
        x = rms_norm(x.to(self.compute_dtype))
        return x if self.smear_gate is None else smear(x, self.smear_gate)

    def _values(self, tokens_BT: Tensor, tap: Tap | None) -> dict[int, Tensor]:
        if self.value_embedding is None:
            return {}
        values: dict[int, Tensor] = self.value_embedding(tokens_BT, _observer(tap, "value_in", 0))
        return values

    def _layers(self) -> Iterator["_Layer"]:
        """Each layer's part of the banks: divided once, and so is their gradient put together."""
        num = self.config.num_layers
        query_LDD, out_LDD = self.qo_bank.split(num)
        qkv_LXD = torch.cat([query_LDD, *self.kv_bank.split(num)], dim=1)
        of_keys_LG = self.q_gain_LH.new_ones(num, self.config.num_kv_heads)
        parts = (
            qkv_LXD,
            torch.cat([self.q_gain_LH, of_keys_LG], dim=1),
            out_LDD,
            self.up_bank,
            self.down_bank,
            self.attn_scale_LD,
            self.mlp_scale_LD,
            self.resid_mix_L2D,
        )
        unbound = zip(*(part.unbind() for part in parts), strict=True)
        return (_Layer._make((number, *weights)) for number, weights in enumerate(unbound))

    def _block(
        self, layer: "_Layer", x: Tensor, x0: Tensor, extra_value: Tensor | None, tap: Tap | None
    ) -> Tensor:
        mix = layer.resid_mix_2D.to(x.dtype)
        x = torch.addcmul(mix[0] * x, mix[1], x0)
        attended = self._attention(layer, self._layer_norm(layer, x), extra_value, tap)
        x = torch.addcmul(x, layer.attn_scale_D.to(x.dtype), attended.to(x.dtype))
        normed = self._layer_norm(layer, x)
        if tap is not None:
            tap("mlp_in", layer.number, normed)
        out = mlp(
            normed,
            layer.up_FD,
            self.activations[layer.number],
            layer.down_DF,
            _observer(tap, "mlp_hidden", layer.number),
        )
        return torch.addcmul(x, layer.mlp_scale_D.to(x.dtype), out.to(x.dtype))

    def _layer_norm(self, layer: "_Layer", x: Tensor) -> Tensor:
        if self.config.layer_scale == "none":
            return rms_norm(x)
        return rms_norm(x, (layer.number + 1) ** -0.5)

    def _attention(
        self, layer: "_Layer", x: Tensor, extra_value: Tensor | None, tap: Tap | None
    ) -> Tensor:
        config, (batch, length, width) = self.config, x.shape
        heads, groups = config.num_heads, config.num_kv_heads
        if tap is not None:
            tap("attention_in", layer.number, x)
        qk, v = F.linear(x, layer.qkv_XD).split([width + config.kv_dim, config.kv_dim], dim=-1)
        if extra_value is not None:
            v = v + extra_value
        v = v.unflatten(-1, (groups, -1))
        qk = qk.unflatten(-1, (heads + groups, -1))
        qk = normed_and_rotated(qk, layer.qk_gain_H, *self._rope(length))
        q, k = qk.split([heads, groups], dim=2)
        y = self._attend(q, k, v)
        if layer.number >= config.num_layers - config.xsa_last_layers:
            y = exclude_self(y, v)
        y = y.reshape(batch, length, -1)
        if tap is not None:
            tap("attention_out", layer.number, y)
        return F.linear(y, layer.out_DD)

    def _rope(self, length: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine for sequences of ``length``, whose base may depend on it."""
        ntk_len = self.config.rope_ntk_len
        if ntk_len is None or length <= ntk_len:
            return self.cos_TR[:length], self.sin_TR[:length]
        if self._stretched is None or self._stretched[0].size(0) != length:
            dims = self.config.rope_dims
            base = stretched_base(self.config.rope_base, dims, length, ntk_len)
            with torch.inference_mode(False):  # a table made under it is of no use to a backward
                cos, sin = rope_table(length, dims, base)
                self._stretched = cos.to(self.cos_TR.device), sin.to(self.cos_TR.device)
        return self._stretched


class _Layer(NamedTuple):
    """The weights of layer ``number``; X = D + 2·G·K rows give queries, keys and values at once."""

    number: int
    qkv_XD: Tensor
    qk_gain_H: Tensor
    out_DD: Tensor
    up_FD: Tensor
    down_DF: Tensor
    attn_scale_D: Tensor
    mlp_scale_D: Tensor
    resid_mix_2D: Tensor


def _observer(tap: Tap | None, what: str, layer: int) -> Callable[[Tensor], None] | None:
    return None if tap is None else lambda x: tap(what, layer, x)
