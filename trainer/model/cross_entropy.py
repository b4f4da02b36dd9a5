"""Cross-entropy of soft-capped logits: in nats per target, in training and in scoring alike.

Shapes: N positions, D width, V vocabulary, R positions of a chunk.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Logits of a chunk. On the CPU they fit in a core's cache: each of the passes over them then reads
# and writes no memory. On a GPU they fill it, at 256 MiB.
LOGITS_AT_ONCE = {"cpu": 2**17, "cuda": 2**26}


def capped_nll(hidden_ND: Tensor, embed_VD: Tensor, targets_N: Tensor, cap: float) -> Tensor:
    """−log softmax(cap · tanh(z / cap)) at the target, z = hidden · embedᵀ; float32 (N,).

    Without a gradient the logits are in memory for one chunk of positions at a time.
    """
    if torch.is_grad_enabled():
        logits_NV = _shifted_logits(hidden_ND, embed_VD, cap)
        return F.cross_entropy(logits_NV, targets_N, reduction="none")
    rows = max(1, LOGITS_AT_ONCE.get(hidden_ND.device.type, 2**26) // len(embed_VD))
    return torch.cat(
        [
            F.cross_entropy(_shifted_logits(h_RD, embed_VD, cap), t_R, reduction="none")
            for h_RD, t_R in zip(hidden_ND.split(rows), targets_N.split(rows), strict=True)
        ]
    )


def _shifted_logits(hidden_ND: Tensor, embed_VD: Tensor, cap: float) -> Tensor:
    """Logits plus ``cap``, float32 (N, V).

    cap·tanh(z / cap) = 2·cap·sigmoid(2·z / cap) − cap, and a softmax forgets what all of its terms
    have in common: on a CPU torch's sigmoid takes a sixth of the time of its tanh. Its error is
    7·10⁻⁸, which moves a logit by 2·cap times as much at most, to either side alike. Divided, not
    multiplied by a rounded 2 / cap: that would stretch all logits alike, a bias.
    """
    return F.linear(hidden_ND, embed_VD).float().div_(cap / 2).sigmoid_() * (2 * cap)
