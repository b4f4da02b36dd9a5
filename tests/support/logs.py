"""Training logs as the published scripts write them, made up, and ways to damage one."""

from dataclasses import dataclass
from pathlib import Path

# The published logs and numbers themselves, which lie beside the checkout or not at all.
_BESIDE = [folder / "shared" / "reference" for folder in Path(__file__).parents[2:]]
REFERENCE = next((folder for folder in _BESIDE if folder.is_dir()), _BESIDE[1])

RULER = "=" * 100
NATS_PER_BIT_OF_BYTE = 1.688458  # val_loss / val_bpb of the sp1024 validation text

# What stands before the run in a script's own log: words of the grammar that are no lines of it.
PREAMBLE = f"""\
import torch

def main():
    log0(f"seed:{{args.seed}}")
    log0(f"final_int8_zlib_roundtrip_exact val_loss:{{q_loss:.8f}} val_bpb:{{q_bpb:.8f}}")
    log0("Total submission size int8+zlib: 1 bytes")
seed:7

{RULER}
Running Python 3.11.14 (main, Oct 21 2025, 18:31:21) [GCC 11.2.0]
Running PyTorch 2.7.1+cu128
+-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
|=========================================+========================+======================|
|   0  NVIDIA Made-up 5000            Off |   00000000:09:00.0 Off |                  N/A |
|100%   27C    P5             26W /  500W |      25MiB /  32607MiB |      0%      Default |
|   1  NVIDIA Made-up 5000            Off |   00000000:0A:00.0  On |                  N/A |
+-----------------------------------------+------------------------+----------------------+
|    0   N/A  N/A            1257      G   /usr/lib/xorg/Xorg                       10MiB |
{RULER}
"""

BANNER = """\
W0323 16:05:58.476000 139742 torch/distributed/run.py:803] *****************************************
W0323 16:05:58.476000 139742 torch/distributed/run.py:803] Setting OMP_NUM_THREADS to be 1
logs/af2d01c8.txt
mtp_num_heads:0 mtp_loss_weight:0.2 mtp_params:0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    pre: float = 1.1369
    post: float = 1.14518023
    sliding: float = 1.12165091
    ttt: float | None = 1.11922988
    slot: float | None = None


def baseline_log(*, seed: int = 1337, params: int = 17_059_912, preamble: bool = True) -> str:
    """A run of the script of PR #1035: 10,000 steps, all taken."""
    lines = [
        *_header(seed, params, world=1, seq=1024, batch=524288, rates=(0.05, 0.04, 0.04)),
        "train_batch_tokens:524288 train_seq_len:1024 iterations:10000 warmup_steps:20"
        " max_wallclock_seconds:0.000",
        f"seed:{seed}",
        "warmup_step:20/20",
        *_steps(iterations=10_000, marks=(0, 1, 2, 200, 5000, 9000, 10_000), bpb=1.2236, ms=640),
        "peak memory allocated: 10828 MiB reserved: 10892 MiB",
        "Serialized model: 67265057 bytes",
        "Code size: 48313 bytes",
        "Total submission size: 67313370 bytes",
        "Serialized model int8+zlib: 15846700 bytes"
        " (payload:17215776 raw_torch:17263559 payload_ratio:3.91x)",
        "Total submission size int8+zlib: 15895013 bytes",
        f"final_int8_zlib_roundtrip {scored(1.22963083)} eval_time:21618ms",
        f"final_int8_zlib_roundtrip_exact {scored(1.22963083, 8)}",
    ]
    return (PREAMBLE if preamble else "") + "\n".join(lines) + "\n"


def record_log(
    scores: Scores | None = None,
    *,
    seed: int = 1337,
    params: int = 26_928_220,
    xsa: int = 4,
    gptq: bool = False,
) -> str:
    """A run of the scripts of PR #549 and #1176, as torchrun's output is captured."""
    given = scores or Scores()
    cap_ms, steps = (590_100, 7000) if gptq else (600_100, 7100)
    lines = [
        *_header(seed, params, world=8, seq=2048, batch=786432, rates=(0.035, 0.025, 0.025)),
        f"XSA:last_{xsa} active_layers:{list(range(11 - xsa, 11))}",
        "train_batch_tokens:786432 train_seq_len:2048 iterations:9000 warmup_steps:20"
        " max_wallclock_seconds:600.000",
        f"seed:{seed}",
        *(["gptq:reserving 10000ms from training budget, effective=590000ms"] if gptq else []),
        *_steps(9000, (0, 1, 4000, 6500), bpb=given.pre + 0.08, ms=cap_ms / steps),
        "swa:start step:6500",
        "late_qat:enabled step:6662 scale:0.1498",
        f"step:{steps}/9000 {scored(given.pre + 0.001)} train_time:{cap_ms}ms"
        f" step_avg:{cap_ms / steps:.2f}ms",
        f"stopping_early: wallclock_cap train_time:{cap_ms}ms step:{steps}/9000",
        "peak memory allocated: 21471 MiB reserved: 22002 MiB",
        "ema:applying EMA weights",
        f"DIAGNOSTIC post_ema {scored(given.pre)} eval_time:1971ms",
        "Serialized model: 106027446 bytes",
        "Code size: 89458 bytes",
        *(["gptq:calibrated 66 layers in 6.8s"] if gptq else []),
        *(["gptq_quantize: 66 GPTQ layers, 0 naive layers"] * 8 if gptq else []),
        "Serialized model int6+lzma: 15887928 bytes",
        "Total submission size int6+lzma: 15977386 bytes",
        f"final_int6_roundtrip {scored(given.post)} eval_time:6562ms",
        f"final_int6_roundtrip_exact {scored(given.post, 8)}",
        f"final_int6_sliding_window {scored(given.sliding)} stride:64 eval_time:74066ms",
        f"final_int6_sliding_window_exact {scored(given.sliding, 8)}",
        f"final_int8_zlib_roundtrip_exact {scored(given.sliding, 8)}",
        *(_adapted(given.ttt) if given.ttt is not None else []),
        *(_shifted(given.slot) if given.slot is not None else []),
    ]
    return BANNER + "\n".join(lines) + "\n"


def changed(log: str, old: str, new: str) -> str:
    """``log`` with one text replaced, which must be there once."""
    assert log.count(old) == 1, f"{log.count(old)} times: {old}"
    return log.replace(old, new)


def without(log: str, begin: str) -> str:
    """``log`` without the lines that begin with ``begin``, of which there must be one."""
    kept = [line for line in log.split("\n") if not line.startswith(begin)]
    assert len(kept) < len(log.split("\n")), begin
    return "\n".join(kept)


def _header(seed, params, *, world, seq, batch, rates):
    return [
        "val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path=./fineweb_1024_bpe.model",
        "train_loader:dataset:fineweb10B_sp1024 train_shards:80",
        "val_loader:shards pattern=./fineweb_val_*.bin tokens:62021632",
        f"model_params:{params}",
        f"world_size:{world} grad_accum_steps:{8 // world}",
        "sdp_backends:cudnn=False flash=True mem_efficient=False math=False",
        "attention_mode:gqa num_heads:8 num_kv_heads:4",
        "tie_embeddings:True embed_lr:{} head_lr:0.0 matrix_lr:{} scalar_lr:{}".format(*rates),
    ]


def _steps(iterations, marks, *, bpb, ms):
    """A training line at every mark, and a validation that ends at ``bpb``."""
    lines = []
    for mark in marks:
        times = f"train_time:{mark * ms:.0f}ms step_avg:{mark * ms / max(mark, 1):.2f}ms"
        if mark:
            lines.append(f"step:{mark}/{iterations} train_loss:{2.5 - mark / 20_000:.4f} {times}")
        if mark == 0 or mark >= 1000:
            score = bpb if mark == marks[-1] else bpb + 0.5 * (1 - mark / iterations)
            lines.append(f"step:{mark}/{iterations} {scored(score)} {times}")
    return lines


def _adapted(ttt):
    loss = NATS_PER_BIT_OF_BYTE * ttt
    return [
        "ttt_sliding:start chunks=1893 chunk_tokens=32768 total_windows=969088 stride=64",
        "ttt_sliding:params unfrozen=26928220 frozen=0",
        "  ttt_chunk [1/1893] bpb=1.159980 time=0.5s",
        "  ttt_chunk [1893/1893] bpb=1.121512 time=409.7s",
        f"ttt_sliding:done val_loss={loss:.6f} val_bpb={ttt:.6f} elapsed=409.8s",
        f"legal_ttt {scored(ttt)} eval_time:410268ms",
        f"legal_ttt_exact {scored(ttt, 8)}",
    ]


def _shifted(slot):
    return [
        "slot:starting lr=0.003 steps=5",
        f"final_slot {scored(slot)} time:248214ms",
        f"final_slot_exact {scored(slot, 8)}",
    ]


def scored(bpb: float, decimals: int = 4) -> str:
    """How a score is written, its loss with it."""
    return f"val_loss:{NATS_PER_BIT_OF_BYTE * bpb:.{decimals}f} val_bpb:{bpb:.{decimals}f}"
