"""Train a very small language model as the scripts of parameter-golf do: one file, environment
variables, torchrun, their printed lines. The example of docs/scripts.md.

B sequences, T tokens, D width, H hidden, V vocabulary.
"""

import glob
import io
import lzma
import math
import os
import random
import time
import uuid
from pathlib import Path

import numpy as np
import sentencepiece as spm
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class Hyperparameters:
    data_path = os.environ.get("DATA_PATH", "./data/datasets/stdlib-512")
    train_files = os.path.join(data_path, "*_train_*.bin")
    val_files = os.path.join(data_path, "*_val_*.bin")
    tokenizer_path = os.environ.get("TOKENIZER_PATH", "./data/tokenizers/tokenizer.model")
    run_id = os.environ.get("RUN_ID", str(uuid.uuid4()))
    seed = int(os.environ.get("SEED", 1337))

    val_tokens = int(os.environ.get("VAL_TOKENS", 2048))
    val_batch_seqs = int(os.environ.get("VAL_BATCH_SEQS", 16))
    val_loss_every = int(os.environ.get("VAL_LOSS_EVERY", 0))
    train_log_every = int(os.environ.get("TRAIN_LOG_EVERY", 500))

    iterations = int(os.environ.get("ITERATIONS", 200))
    warmdown_iters = int(os.environ.get("WARMDOWN_ITERS", 50))
    warmup_steps = int(os.environ.get("WARMUP_STEPS", 1))
    train_batch_tokens = int(os.environ.get("TRAIN_BATCH_TOKENS", 512))
    train_seq_len = int(os.environ.get("TRAIN_SEQ_LEN", 32))
    eval_stride = int(os.environ.get("EVAL_STRIDE", 16))
    max_wallclock_seconds = float(os.environ.get("MAX_WALLCLOCK_SECONDS", 600.0))

    vocab_size = int(os.environ.get("VOCAB_SIZE", 512))
    model_dim = int(os.environ.get("MODEL_DIM", 16))
    mlp_mult = int(os.environ.get("MLP_MULT", 3))

    matrix_lr = float(os.environ.get("MATRIX_LR", 0.01))
    embed_lr = float(os.environ.get("EMBED_LR", 0.02))
    scalar_lr = float(os.environ.get("SCALAR_LR", 0.01))
    beta1, beta2, adam_eps = 0.9, 0.95, 1e-8
    ema_decay = float(os.environ.get("EMA_DECAY", 0.5))


args = Hyperparameters()


# --- data ---------------------------------------------------------------------------------------


def load_data_shard(file: str) -> Tensor:
    header = np.fromfile(file, dtype="<i4", count=256)
    if header.size != 256 or header[0] != 20240520 or header[1] != 1:
        raise ValueError(f"{file} is no token shard")
    tokens = np.fromfile(file, dtype="<u2", count=int(header[2]), offset=256 * 4)
    if tokens.size != header[2]:
        raise ValueError(f"{file} is cut off")
    return torch.from_numpy(tokens.astype(np.int64))


class TokenStream:
    """The tokens of all shards in turn, each rank with its own part of every step."""

    def __init__(self, pattern: str, rank: int, world_size: int):
        self.files = sorted(glob.glob(pattern))
        self.rank, self.world_size = rank, world_size
        self.file, self.pos = 0, 0
        self.tokens = load_data_shard(self.files[0])

    def next_batch(self, num_tokens: int, seq_len: int) -> tuple[Tensor, Tensor]:
        local = num_tokens // self.world_size
        if self.pos + num_tokens + 1 > self.tokens.numel():
            self.file, self.pos = (self.file + 1) % len(self.files), 0
            self.tokens = load_data_shard(self.files[self.file])
        begin = self.pos + self.rank * local
        self.pos += num_tokens
        part = self.tokens[begin : begin + local + 1]
        return part[:-1].view(-1, seq_len), part[1:].view(-1, seq_len)


def build_byte_luts(sp: spm.SentencePieceProcessor, vocab_size: int) -> tuple[Tensor, ...]:
    """Bytes of a piece; whether a space leads it; whether a space after it is not counted."""
    num_bytes = torch.zeros(vocab_size, dtype=torch.int64)
    leading_space = torch.zeros(vocab_size, dtype=torch.bool)
    boundary = torch.ones(vocab_size, dtype=torch.bool)
    for token in range(sp.vocab_size()):
        if sp.is_control(token) or sp.is_unknown(token) or sp.is_unused(token):
            continue
        boundary[token] = False
        piece = sp.id_to_piece(token)
        leading_space[token] = piece.startswith("▁")
        num_bytes[token] = 1 if sp.is_byte(token) else len(piece.removeprefix("▁").encode())
    return num_bytes, leading_space, boundary


# --- model --------------------------------------------------------------------------------------


class LeakySquared(torch.autograd.Function):
    """max(x, s·x)² as one node of the graph, its gradient written by hand."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x > 0, x, 0.5 * x).square()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * torch.where(x > 0, 2.0 * x, 0.5 * x)


class MLP(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc = nn.Linear(dim, hidden, bias=False)
        self.proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTH = self.fc(x_BTD)
        if self.training:
            return self.proj(LeakySquared.apply(x_BTH))
        return self.proj(F.leaky_relu(x_BTH, negative_slope=0.5).square())


class GPT(nn.Module):
    """One block: a head of causal attention, and an MLP; the embedding is the output's as well."""

    def __init__(self, vocab_size: int, dim: int, hidden: int):
        super().__init__()
        self.tok_emb = nn.Embedding(vocab_size, dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.mlp = MLP(dim, hidden)
        self.mlp_scale = nn.Parameter(torch.ones(dim))
        for weight in self.parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=1.0 / math.sqrt(dim))

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.tok_emb(tokens_BT)
        q, k, v = self.qkv(F.rms_norm(x_BTD, x_BTD.shape[-1:])).unsqueeze(1).chunk(3, dim=-1)
        x_BTD = x_BTD + F.scaled_dot_product_attention(q, k, v, is_causal=True).squeeze(1)
        x_BTD = x_BTD + self.mlp_scale * self.mlp(F.rms_norm(x_BTD, x_BTD.shape[-1:]))
        return F.linear(F.rms_norm(x_BTD, x_BTD.shape[-1:]), self.tok_emb.weight)


class Adam:
    def __init__(self, groups: list[tuple[float, list[Tensor]]]):
        self.groups, self.t = groups, 0
        self.state = {p: (torch.zeros_like(p), torch.zeros_like(p)) for _, ps in groups for p in ps}

    @torch.no_grad()
    def step(self, lr_scale: float) -> None:
        self.t += 1
        for lr, params in self.groups:
            for p in params:
                mean, square = self.state[p]
                mean.lerp_(p.grad, 1 - args.beta1)
                square.lerp_(p.grad.square(), 1 - args.beta2)
                size = (square / (1 - args.beta2**self.t)).sqrt() + args.adam_eps
                p -= lr * lr_scale * mean / (1 - args.beta1**self.t) / size


# --- evaluation ---------------------------------------------------------------------------------


@torch.no_grad()
def eval_val(model, val: Tensor, luts, stride: int, rank: int, world_size: int, device):
    """Loss in nats per token and bits per byte of windows that begin every ``stride`` tokens, each
    scored where none before it was."""
    model.eval()
    seq_len, num_targets = args.train_seq_len, val.numel() - 1
    starts = list(range(0, num_targets - seq_len + 1, stride))[rank::world_size]
    total = torch.zeros(3, dtype=torch.float64, device=device)
    for i in range(0, len(starts), args.val_batch_seqs):
        begins = starts[i : i + args.val_batch_seqs]
        windows = torch.stack([val[b : b + seq_len + 1] for b in begins]).to(device)
        x, y = windows[:, :-1], windows[:, 1:]
        nll = F.cross_entropy(model(x).float().transpose(1, 2), y, reduction="none").double()
        num_bytes = luts[0][y] + (luts[1][y] & ~luts[2][x])
        scored = torch.ones_like(y, dtype=torch.bool)
        for row, b in enumerate(begins):
            scored[row, : 0 if b == 0 else seq_len - stride] = False
        total += torch.stack([nll[scored].sum(), scored.sum(), num_bytes[scored].sum()])
    if dist.is_initialized():
        dist.all_reduce(total)
    model.train()
    loss = (total[0] / total[1]).item()
    return loss, loss / math.log(2.0) * (total[1] / total[2]).item()


# --- int6 ---------------------------------------------------------------------------------------


def quantize_int6(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each matrix as whole numbers up to 31 and a scale for each row; the rest in float16."""
    result = {}
    for name, tensor in state.items():
        if tensor.ndim != 2:
            result[name] = tensor.half()
            continue
        scale = (tensor.abs().amax(dim=1) / 31.0).clamp_min(1e-7).half()
        codes = torch.round(tensor / scale.float()[:, None]).clamp(-31, 31)
        result[f"{name}.q"], result[f"{name}.scale"] = codes.to(torch.int8), scale
    return result


def dequantize_int6(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    result = {}
    for name, tensor in packed.items():
        if name.endswith(".q"):
            scale = packed[f"{name[:-2]}.scale"].float()
            result[name[:-2]] = tensor.float() * scale[:, None]
        elif not name.endswith(".scale"):
            result[name] = tensor.float()
    return result


# --- run ----------------------------------------------------------------------------------------


def main() -> None:
    code = Path(__file__).read_text(encoding="utf-8")
    distributed = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    rank = int(os.environ.get("RANK", "0"))
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if 2 % world_size:
        raise ValueError(f"WORLD_SIZE={world_size} is neither 1 nor 2")
    grad_accum_steps = 2 // world_size
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    if distributed:
        dist.init_process_group("nccl" if on_gpu else "gloo")
    master = rank == 0
    if master:
        os.makedirs("logs", exist_ok=True)
    logfile = f"logs/{args.run_id}.txt"

    def log0(message: str) -> None:
        if master:
            print(message, flush=True)
            with open(logfile, "a", encoding="utf-8") as f:
                print(message, file=f)

    def clock() -> float:
        if on_gpu:
            torch.cuda.synchronize()
        return 1000.0 * time.perf_counter()

    log0(logfile)
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)

    sp = spm.SentencePieceProcessor(model_file=args.tokenizer_path)
    if sp.vocab_size() != args.vocab_size:
        raise ValueError(f"VOCAB_SIZE={args.vocab_size}, the tokenizer has {sp.vocab_size()}")
    luts = [lut.to(device) for lut in build_byte_luts(sp, args.vocab_size)]
    val = torch.cat([load_data_shard(file) for file in sorted(glob.glob(args.val_files))])
    seq_len = args.train_seq_len
    val = val[: min(args.val_tokens, val.numel() - 1) // seq_len * seq_len + 1]
    num_train_shards = len(glob.glob(args.train_files))
    log0(f"val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path={args.tokenizer_path}")
    log0(f"train_loader:dataset:{Path(args.data_path).name} train_shards:{num_train_shards}")
    log0(f"val_loader:shards pattern={args.val_files} tokens:{val.numel() - 1}")

    model = GPT(args.vocab_size, args.model_dim, args.mlp_mult * args.model_dim).to(device)
    params = list(model.parameters())
    optimizer = Adam(
        [
            (args.embed_lr, [model.tok_emb.weight]),
            (args.matrix_lr, [p for p in params if p.ndim == 2 and p is not model.tok_emb.weight]),
            (args.scalar_lr, [p for p in params if p.ndim < 2]),
        ]
    )
    log0(f"model_params:{sum(p.numel() for p in params)}")
    log0(f"world_size:{world_size} grad_accum_steps:{grad_accum_steps}")
    log0("attention_mode:gqa num_heads:1 num_kv_heads:1")
    log0(
        f"tie_embeddings:True embed_lr:{args.embed_lr} head_lr:0.0 "
        f"matrix_lr:{args.matrix_lr} scalar_lr:{args.scalar_lr}"
    )
    log0(
        f"train_batch_tokens:{args.train_batch_tokens} train_seq_len:{seq_len} "
        f"iterations:{args.iterations} warmup_steps:{args.warmup_steps} "
        f"max_wallclock_seconds:{args.max_wallclock_seconds:.3f}"
    )
    log0(f"seed:{args.seed}")

    def forward_backward(stream: TokenStream) -> Tensor:
        """The gradients of one step, the same on every rank, and its mean loss."""
        train_loss = torch.zeros((), device=device)
        for p in params:
            p.grad = None
        for _ in range(grad_accum_steps):
            x, y = stream.next_batch(args.train_batch_tokens // grad_accum_steps, seq_len)
            logits = model(x.to(device)).float()
            loss = F.cross_entropy(logits.flatten(0, 1), y.to(device).flatten())
            (loss / grad_accum_steps).backward()
            train_loss += loss.detach() / grad_accum_steps
        if distributed:
            for tensor in (train_loss, *(p.grad for p in params)):
                dist.all_reduce(tensor)
                tensor /= world_size
        return train_loss

    warmup_stream = TokenStream(args.train_files, rank, world_size)
    for step in range(args.warmup_steps):
        forward_backward(warmup_stream)
        log0(f"warmup_step:{step + 1}/{args.warmup_steps}")

    stream = TokenStream(args.train_files, rank, world_size)
    ema = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    cap_ms = 1000.0 * args.max_wallclock_seconds if args.max_wallclock_seconds > 0 else None
    training_ms, stopped, step, t0 = 0.0, False, 0, clock()
    while True:
        last = step == args.iterations or stopped
        if last or (args.val_loss_every > 0 and step % args.val_loss_every == 0):
            training_ms += clock() - t0
            loss, bpb = eval_val(model, val, luts, seq_len, rank, world_size, device)
            log0(
                f"step:{step}/{args.iterations} val_loss:{loss:.4f} val_bpb:{bpb:.4f} "
                f"train_time:{training_ms:.0f}ms step_avg:{training_ms / max(step, 1):.2f}ms"
            )
            t0 = clock()
        if last:
            break
        train_loss = forward_backward(stream)
        optimizer.step(min(1.0, (args.iterations - step) / max(args.warmdown_iters, 1)))
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                ema[name].lerp_(tensor, 1 - args.ema_decay)
        step += 1
        elapsed_ms = training_ms + clock() - t0
        if step <= 10 or step % args.train_log_every == 0:
            log0(
                f"step:{step}/{args.iterations} train_loss:{train_loss.item():.4f} "
                f"train_time:{elapsed_ms:.0f}ms step_avg:{elapsed_ms / step:.2f}ms"
            )
        if cap_ms is not None:
            over = torch.tensor(int(elapsed_ms >= cap_ms), device=device)
            if distributed:
                dist.all_reduce(over, op=dist.ReduceOp.MAX)
            stopped = bool(over)
    if stopped and step < args.iterations:
        log0(
            f"stopping_early: wallclock_cap train_time:{training_ms:.0f}ms "
            f"step:{step}/{args.iterations}"
        )
    if on_gpu:
        allocated = torch.cuda.max_memory_allocated() // 2**20
        reserved = torch.cuda.max_memory_reserved() // 2**20
        log0(f"peak memory allocated: {allocated} MiB reserved: {reserved} MiB")

    log0("ema:applying EMA weights")
    model.load_state_dict(ema)
    t0 = clock()
    loss, bpb = eval_val(model, val, luts, seq_len, rank, world_size, device)
    log0(
        f"DIAGNOSTIC post_ema val_loss:{loss:.4f} val_bpb:{bpb:.4f} eval_time:{clock() - t0:.0f}ms"
    )

    if master:
        raw = io.BytesIO()
        torch.save(model.state_dict(), raw)
        packed = io.BytesIO()
        torch.save(quantize_int6({k: v.cpu() for k, v in model.state_dict().items()}), packed)
        Path("final_model.int6.ptz").write_bytes(lzma.compress(packed.getvalue(), preset=6))
        model_bytes = Path("final_model.int6.ptz").stat().st_size
        code_bytes = len(code.encode("utf-8"))
        log0(f"Serialized model: {len(raw.getvalue())} bytes")
        log0(f"Code size: {code_bytes} bytes")
        log0(f"Serialized model int6+lzma: {model_bytes} bytes")
        log0(f"Total submission size int6+lzma: {model_bytes + code_bytes} bytes")
    if distributed:
        dist.barrier()
    blob = lzma.decompress(Path("final_model.int6.ptz").read_bytes())
    model.load_state_dict(dequantize_int6(torch.load(io.BytesIO(blob), map_location=device)))

    t0 = clock()
    loss, bpb = eval_val(model, val, luts, seq_len, rank, world_size, device)
    took = f"eval_time:{clock() - t0:.0f}ms"
    log0(f"final_int6_roundtrip val_loss:{loss:.4f} val_bpb:{bpb:.4f} {took}")
    log0(f"final_int6_roundtrip_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}")

    t0, stride = clock(), args.eval_stride
    loss, bpb = eval_val(model, val, luts, stride, rank, world_size, device)
    took = f"stride:{stride} eval_time:{clock() - t0:.0f}ms"
    log0(f"final_int6_sliding_window val_loss:{loss:.4f} val_bpb:{bpb:.4f} {took}")
    log0(f"final_int6_sliding_window_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}")
    if distributed:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
