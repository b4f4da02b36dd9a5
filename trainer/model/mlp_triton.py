"""Two matrix products of the MLP with the activation in their epilogue, in Triton.

f(z) = z² where z > 0 and β·z² elsewhere. In registers, from a float32 accumulator:

- ``up``: z = x·Uᵀ and h = f(z), each rounded once, when it is stored;
- ``gate``: ∂h = ∂y·D, then ∂z = ∂h·f′(z), and h = f(z) once more for the gradient of D; where β is
  learned also Σ ∂h·z² over the z ≤ 0 of each block of tokens, summed in a fixed order and without
  atomics: one configuration gives the same bits in every run.

β is an input of one element or one per channel, and never a constant of the code: every slope runs
the same machine code. Shapes: N tokens, D width, F hidden channels, R blocks of tokens; within a
product, K is what is summed over and C are columns. Matrices are contiguous and of one type, β and
the sums are float32. On CPU tensors this runs in Triton's interpreter alone
(``TRITON_INTERPRET=1`` before Triton is imported), which is how the tests prove it.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_N: Final = 128  # the same in every configuration: the sums of β are by block of tokens
GROUP: Final = 8
DEPTHS_DIVIDE: Final = 64  # a product over a multiple of this needs no mask, in any configuration
CONFIGS: Final = [
    triton.Config(
        {"BLOCK_N": BLOCK_N, "BLOCK_C": columns, "BLOCK_K": depth, "GROUP": GROUP},
        num_warps=warps,
        num_stages=stages,
    )
    for columns, depth, warps, stages in (
        (128, 64, 8, 3),
        (128, 64, 8, 4),
        (128, 32, 8, 4),
        (64, 64, 4, 3),
        (64, 64, 4, 4),
        (64, 64, 8, 3),
    )
]
INTERPRETED: Final = {"BLOCK_N": 16, "BLOCK_C": 32, "BLOCK_K": 16, "GROUP": 2}


def up(x_ND: Tensor, up_FD: Tensor, beta: Tensor, *, keep: bool) -> tuple[Tensor | None, Tensor]:
    """z and f(z), both (N, F); without ``keep`` z is not written, and None."""
    hidden = len(up_FD)
    h_NF = x_ND.new_empty(len(x_ND), hidden)
    z_NF = torch.empty_like(h_NF) if keep else None
    _launch(_up, (x_ND, up_FD, beta, z_NF, h_NF), beta, hidden, KEEP=keep)
    return z_NF, h_NF


def gate(
    to_y_ND: Tensor, down_DF: Tensor, z_NF: Tensor, beta: Tensor, *, learned: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """∂z and f(z), both (N, F), and where β is ``learned`` ∂β by block of tokens (R, F)."""
    hidden = z_NF.size(1)
    to_z_NF, h_NF = torch.empty_like(z_NF), torch.empty_like(z_NF)
    sums_RF = beta.new_empty(num_blocks(z_NF), hidden) if learned else None
    tensors = (to_y_ND, down_DF, z_NF, beta, to_z_NF, h_NF, sums_RF)
    _launch(_gate, tensors, beta, hidden, LEARNED=learned)
    return to_z_NF, h_NF, sums_RF


def num_blocks(z_NF: Tensor) -> int:
    """R: of how many blocks of tokens the gradient of β is summed."""
    return -(-len(z_NF) // (BLOCK_N if z_NF.is_cuda else INTERPRETED["BLOCK_N"]))


def _launch(kernel: Any, tensors: Sequence[Any], beta: Tensor, hidden: int, **flags: bool) -> None:
    left_NK: Tensor = tensors[0]
    tokens, width = left_NK.shape

    def grid(meta: dict[str, int]) -> tuple[int]:
        return (triton.cdiv(tokens, meta["BLOCK_N"]) * triton.cdiv(hidden, meta["BLOCK_C"]),)

    shape = (tokens, width, hidden, int(beta.numel() > 1))
    even = width % DEPTHS_DIVIDE == 0
    if left_NK.is_cuda:
        _TUNED[kernel][grid](*tensors, *shape, EVEN=even, **flags)
    else:
        kernel[grid](*tensors, *shape, EVEN=even, **flags, **INTERPRETED)


@triton.jit
def _tile(tokens, hidden, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, GROUP: tl.constexpr):
    """Which tile a program computes: GROUP blocks of tokens share their columns while in cache."""
    blocks_n, blocks_c = tl.cdiv(tokens, BLOCK_N), tl.cdiv(hidden, BLOCK_C)
    program = tl.program_id(0)
    first = program // (GROUP * blocks_c) * GROUP
    size = tl.minimum(blocks_n - first, GROUP)
    within = program % (GROUP * blocks_c)
    return first + within % size, within // size


@triton.jit
def _product(
    left,
    right,
    block_n,
    block_c,
    tokens,
    depth,
    columns,
    stride_k,
    stride_c,
    EVEN: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A tile of left (N, K) · right (K, C) in float32, as its two halves of columns.

    In halves, because an epilogue on the whole tile spills registers. Rows and columns beyond the
    last repeat others: they are not stored.
    """
    first = block_n * BLOCK_N
    n = tl.minimum(tl.arange(0, BLOCK_N), tokens - 1 - first)
    c = (block_c * BLOCK_C + tl.arange(0, BLOCK_C)) % columns
    k = tl.arange(0, BLOCK_K)
    left_NK = left + first.to(tl.int64) * depth + (n[:, None] * depth + k[None, :])
    right_KC = right + k[:, None] * stride_k + c[None, :] * stride_c
    sum_NC = tl.zeros((BLOCK_N, BLOCK_C), dtype=tl.float32)
    for start in range(0, depth, BLOCK_K):
        if EVEN:
            a_NK, b_KC = tl.load(left_NK), tl.load(right_KC)
        else:
            inside = k < depth - start
            a_NK = tl.load(left_NK, mask=inside[None, :], other=0.0)
            b_KC = tl.load(right_KC, mask=inside[:, None], other=0.0)
        sum_NC = tl.dot(a_NK, b_KC, sum_NC, input_precision="ieee")
        left_NK += BLOCK_K
        right_KC += BLOCK_K * stride_k
    return tl.split(tl.permute(tl.reshape(sum_NC, (BLOCK_N, 2, BLOCK_C // 2)), (0, 2, 1)))


@triton.jit
def _place(block_n, block_c, tokens, columns, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr):
    """A tile of an (N, C) matrix: its channels, where it starts, its offsets, what of it exists.

    Only the start may be beyond 2³¹: offsets of 64 bits would take the registers of two tiles.
    """
    first, n = block_n * BLOCK_N, tl.arange(0, BLOCK_N)
    c = block_c * BLOCK_C + tl.arange(0, BLOCK_C)
    exists_NC = (n < tokens - first)[:, None] & (c < columns)[None, :]
    return c, first.to(tl.int64) * columns, n[:, None] * columns + c[None, :], exists_NC


@triton.jit
def _half_slope(z_NC, beta, c, stride, columns):
    """f′(z) / 2 = f(z) / z. As a product with z, β = 0 gives 0 and not 0·∞ where z² overflows."""
    beta_C = tl.load(beta + c * stride, mask=c < columns, other=0.0)
    return tl.where(z_NC > 0, z_NC, beta_C[None, :] * z_NC)


@triton.jit
def _up(
    x,
    up,
    beta,
    z,
    h,
    tokens,
    width,
    hidden,
    beta_stride,
    KEEP: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    n, c = _tile(tokens, hidden, BLOCK_N, BLOCK_C, GROUP)
    halves_NC = _product(
        x, up, n, c, tokens, width, hidden, 1, width, EVEN, BLOCK_N, BLOCK_C, BLOCK_K
    )
    for half in tl.static_range(2):
        z_NC = halves_NC[half]
        channels, start, offsets_NC, exists_NC = _place(
            n, 2 * c + half, tokens, hidden, BLOCK_N, BLOCK_C // 2
        )
        if KEEP:
            tl.store(z + start + offsets_NC, z_NC.to(z.dtype.element_ty), mask=exists_NC)
        h_NC = z_NC * _half_slope(z_NC, beta, channels, beta_stride, hidden)
        tl.store(h + start + offsets_NC, h_NC.to(h.dtype.element_ty), mask=exists_NC)


@triton.jit
def _gate(
    to_y,
    down,
    z,
    beta,
    to_z,
    h,
    sums,
    tokens,
    width,
    hidden,
    beta_stride,
    LEARNED: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    n, c = _tile(tokens, hidden, BLOCK_N, BLOCK_C, GROUP)
    halves_NC = _product(
        to_y, down, n, c, tokens, width, hidden, hidden, 1, EVEN, BLOCK_N, BLOCK_C, BLOCK_K
    )
    for half in tl.static_range(2):
        to_h_NC = halves_NC[half]
        channels, start, offsets_NC, exists_NC = _place(
            n, 2 * c + half, tokens, hidden, BLOCK_N, BLOCK_C // 2
        )
        z_NC = tl.load(z + start + offsets_NC, mask=exists_NC, other=0.0).to(tl.float32)
        g_NC = _half_slope(z_NC, beta, channels, beta_stride, hidden)
        to_z_NC = 2.0 * to_h_NC * g_NC
        tl.store(to_z + start + offsets_NC, to_z_NC.to(to_z.dtype.element_ty), mask=exists_NC)
        tl.store(h + start + offsets_NC, (z_NC * g_NC).to(h.dtype.element_ty), mask=exists_NC)
        if LEARNED:  # a token that does not exist has z = 0
            to_beta_C = tl.sum(to_h_NC * z_NC * tl.minimum(z_NC, 0.0), axis=0)
            tl.store(sums + n * hidden + channels, to_beta_C, mask=channels < hidden)


_TUNED: Final = {
    kernel: triton.autotune(CONFIGS, key=["width", "hidden", flag], cache_results=True)(kernel)
    for kernel, flag in ((_up, "KEEP"), (_gate, "LEARNED"))
}
"""Tuned on the first batch that a node sees, and kept in Triton's cache for every cell after it.

The number of tokens is not part of the key: the last, smaller batch of a score tunes nothing anew.
"""
