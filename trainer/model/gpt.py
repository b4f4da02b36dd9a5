"""The one forward path: ``body`` turns tokens into hidden states, ``head`` turns those into logits.

Matrices of one kind are kept in one bank (a stack over layers), so that the optimizer can treat
them together. Shapes: B sequences, T tokens, D width, V vocabulary, L layers, F hidden channels,
H query heads, G key-value heads, K dimensions of a head. Mathematics: parameter-golf PR #549, as
restated in docs/recipes.md.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.activations import Given, StepDependent, build_activation, check_num_layers
from trainer.activations.squared import Squared
from trainer.config import Model
from trainer.model.attention import (
    Attention,
    attend,
    exclude_self,
    normed_and_rotated,
    rms_norm,
    rope_table,
    stretched_base,
)
from trainer.model.attention_backend import AttentionBackend, attention_backend, attention_of
from trainer.model.compilation import compiled
from trainer.model.cross_entropy import capped_nll
from trainer.model.embeddings import HashedBigram, SharedValueEmbedding, smear
from trainer.model.layers import LayerWeights, Tap, last_positions, layer_weights, observer
from trainer.model.mlp import MLP, mlp
from trainer.model.mlp_backend import Backend, mlp_backend, mlp_of

NLL = Callable[..., Tensor]
"""``GPT.nll`` of one model."""


class GPT(nn.Module):
    """A decoder with U-Net skips; ``num_positions`` is the longest sequence that it will see."""

    cos_TR: Tensor
    sin_TR: Tensor

    def __init__(
        self,
        config: Model,
        *,
        activation: str,
        activation_params: Given,
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
        check_num_layers(activation, activation_params, layers)
        self.activations = nn.ModuleList(
            build_activation(activation, activation_params, hidden, layer)
            for layer in range(layers)
        )
        rounded_to = dtype if config.rope_frequencies == "rounded" else torch.float32
        cos, sin = rope_table(num_positions, config.rope_dims, config.rope_base, rounded_to)
        self.register_buffer("cos_TR", cos, persistent=False)
        self.register_buffer("sin_TR", sin, persistent=False)
        self._stretched: tuple[Tensor, Tensor] | None = None  # of the length last seen
        self.attention_backend: AttentionBackend = "torch_sdpa"
        self._attend: Attention = attend
        self.mlp_backend: Backend = "torch"
        self._mlp: MLP = mlp

    def body(self, tokens_BT: Tensor, tail: int | None = None, tap: Tap | None = None) -> Tensor:
        """Normalised hidden states (B, T, D), or of the last ``tail`` positions (B, tail, D).

        Of the last layer the other positions are needed for their keys and values alone, so nothing
        else is computed of them; every layer before it needs all of all positions.
        """
        with self.precision(tokens_BT):
            x = self._embed(tokens_BT, tap)
            values = self._values(tokens_BT, tap)
            x0 = x
            skips: list[Tensor] = []
            num_encoders = self.config.num_layers // 2
            for layer in layer_weights(self, tail):
                if layer.number >= num_encoders and skips:
                    gate = self.skip_weights[layer.number - num_encoders].to(x.dtype)
                    x = torch.addcmul(x, gate, skips.pop())
                x = self._block(layer, x, x0, values.get(layer.number), tap)
                if layer.number < num_encoders:
                    skips.append(x)
            return rms_norm(x)

    def head(self, hidden_BTD: Tensor) -> Tensor:
        """Logits (B, T, V) in float32, within ± the soft-cap; embeddings are tied."""
        cap = self.config.logit_softcap
        with self.precision(hidden_BTD):
            return cap * torch.tanh(F.linear(hidden_BTD, self.embed).float() / cap)

    def nll(self, tokens_BT: Tensor, targets_BT: Tensor, tail: int | None = None) -> Tensor:
        """Nats that each of the last ``tail`` targets costs, float32 (B, tail)."""
        return self.nll_of(self.body(tokens_BT, tail), last_positions(targets_BT, tail))

    def nll_of(self, hidden_BTD: Tensor, targets_BT: Tensor) -> Tensor:
        """Nats that each target costs, given the hidden states before the head; float32 (B, T)."""
        hidden_ND, targets_N = hidden_BTD.flatten(0, 1), targets_BT.flatten()
        with self.precision(hidden_ND):
            nll_N = capped_nll(hidden_ND, self.embed, targets_N, self.config.logit_softcap)
        return nll_N.view(targets_BT.shape)

    def set_precision(self) -> None:
        """Store the weights as the compute dtype wants them; in float32 that is as they are.

        In bfloat16, as published: every weight begins at a bfloat16 value, embeddings stay in
        bfloat16 (their gradients and moments too), all else is float32.
        """
        for name, parameter in self.named_parameters():
            rounded = parameter.data.to(self.compute_dtype)
            stays = name == "embed" or name.endswith(".embed")
            parameter.data = rounded if stays else rounded.float()

    def on_device(self, device: torch.device, *, fused: bool = True, flash: bool = True) -> "GPT":
        """This model, moved to ``device``, with the attention and the MLP that are best there.

        Without ``fused`` the MLP is torch's expression, which a benchmark compares with; without
        ``flash`` the attention is torch's.
        """
        config = self.config
        heads = config.num_heads, config.num_kv_heads, config.head_dim
        self.attention_backend = (
            attention_backend(device, self.compute_dtype, heads) if flash else "torch_sdpa"
        )
        self._attend = attention_of(self.attention_backend)
        shape = config.width, config.mlp_hidden
        found = mlp_backend(device, self.compute_dtype, self.activations[0], shape)
        self.mlp_backend = found if fused or found != "triton_fused" else "torch_compiled"
        self._mlp = mlp_of(self.mlp_backend)
        return self.to(device)

    def compiled_nll(self, length: int) -> NLL:
        """``nll`` for sequences of ``length``, compiled where the model is on CUDA.

        It is one graph for every shape, tail, and whether there is a gradient; weights are its
        inputs. Ask the model that is to be used: of a copy, it is the original's. torch's own
        TORCH_COMPILE_DISABLE=1 leaves it uncompiled.
        """
        self._rope(length)  # made here, it is an input of the graph
        return compiled(self.nll, self.precision) if self.embed.device.type == "cuda" else self.nll

    def cost_as_learned(self) -> None:
        """Let every fixed β take the time of a learned one; what is computed stays the same."""
        for activation in self.activations:
            if isinstance(activation, Squared):
                activation.cost_as_learned(self.config.mlp_hidden)

    def begin_step(self, seed: int, step: int | None) -> None:
        """Tell activations that draw something in training which step it is; None: they do not."""
        for layer, activation in enumerate(self.activations):
            if isinstance(activation, StepDependent):
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

    def precision(self, like: Tensor) -> AbstractContextManager[object]:
        """In which products have the compute dtype, where ``like`` is; nothing where it holds."""
        device = like.device.type
        if self.compute_dtype is torch.float32 or torch.is_autocast_enabled(device):
            return nullcontext()
        return torch.autocast(device, dtype=self.compute_dtype)

    def _embed(self, tokens_BT: Tensor, tap: Tap | None) -> Tensor:
        x = F.embedding(tokens_BT, self.embed)
        if self.bigram is not None:
            x = x + self.bigram(tokens_BT, observer(tap, "bigram_in", 0))
        x = rms_norm(x.to(self.compute_dtype))
        return x if self.smear_gate is None else smear(x, self.smear_gate)

    def _values(self, tokens_BT: Tensor, tap: Tap | None) -> dict[int, Tensor]:
        if self.value_embedding is None:
            return {}
        values: dict[int, Tensor] = self.value_embedding(tokens_BT, observer(tap, "value_in", 0))
        return values

    def _block(
        self,
        layer: LayerWeights,
        x: Tensor,
        x0: Tensor,
        extra_value: Tensor | None,
        tap: Tap | None,
    ) -> Tensor:
        mix = layer.resid_mix_2D.to(x.dtype)
        x = torch.addcmul(mix[0] * x, mix[1], x0)
        attended = self._attention(layer, self._layer_norm(layer, x), extra_value, tap)
        x = layer.tail_of(x)
        x = torch.addcmul(x, layer.attn_scale_D.to(x.dtype), attended.to(x.dtype))
        normed = self._layer_norm(layer, x)
        if tap is not None:
            tap("mlp_in", layer.number, normed)
        out = self._mlp(
            normed,
            layer.up_FD,
            self.activations[layer.number],
            layer.down_DF,
            observer(tap, "mlp_hidden", layer.number),
        )
        return torch.addcmul(x, layer.mlp_scale_D.to(x.dtype), out.to(x.dtype))

    def _layer_norm(self, layer: LayerWeights, x: Tensor) -> Tensor:
        if self.config.layer_scale == "none":
            return rms_norm(x)
        return rms_norm(x, (layer.number + 1) ** -0.5)

    def _attention(
        self, layer: LayerWeights, x: Tensor, extra_value: Tensor | None, tap: Tap | None
    ) -> Tensor:
        config = self.config
        if tap is not None:
            tap("attention_in", layer.number, x)
        q, k, v = self._project(layer, x)
        if extra_value is not None:
            v = v + extra_value
        v = v.unflatten(-1, (config.num_kv_heads, -1))
        y = self._attend(q, k, v)
        if layer.number >= config.num_layers - config.xsa_last_layers:
            y = exclude_self(y, layer.tail_of(v))
        y = y.flatten(2)
        if tap is not None:
            tap("attention_out", layer.number, y)
        return F.linear(y, layer.out_DD)

    def _project(self, layer: LayerWeights, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the last positions, keys and values of all."""
        config, (cos, sin) = self.config, self._rope(x.size(1))
        width, kv, heads, groups = x.size(2), config.kv_dim, config.num_heads, config.num_kv_heads
        if layer.tail is None:
            qk, v = F.linear(x, layer.qkv_XD).split([width + kv, kv], dim=-1)
            qk = qk.unflatten(-1, (heads + groups, -1))
            q, k = normed_and_rotated(qk, layer.qk_gain_H, cos, sin).split([heads, groups], dim=2)
            return q, k, v
        query_DD, kv_XD = layer.qkv_XD.split([width, 2 * kv])
        q = F.linear(layer.tail_of(x), query_DD).unflatten(-1, (heads, -1))
        k, v = F.linear(x, kv_XD).split(kv, dim=-1)
        of_queries_H, of_keys_G = layer.qk_gain_H.split([heads, groups])
        q = normed_and_rotated(q, of_queries_H, cos[-layer.tail :], sin[-layer.tail :])
        return q, normed_and_rotated(k.unflatten(-1, (groups, -1)), of_keys_G, cos, sin), v

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
