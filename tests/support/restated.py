"""A published run's configuration in the words of a recipe: what docs/recipes.md tabulates."""

from typing import Any

from tests.support.published import Published

NO_PATH = "fineweb10B_sp1024"  # the dataset of all three


def overrides_of(p: Published) -> dict[str, Any]:
    """What ``--set`` makes of any recipe so that it asks for the run ``p``.

    The budget, the seed and the activation are no part of a recipe.
    """
    model = {
        "vocab_size": p.vocab_size,
        "num_layers": p.num_layers,
        "width": p.model_dim,
        "num_heads": p.num_heads,
        "num_kv_heads": p.num_kv_heads,
        "mlp_hidden": p.mlp_hidden,
        "rope_dims": p.rope_dims or p.model_dim // p.num_heads,
        "rope_base": p.rope_base,
        "rope_ntk_len": p.rope_ntk_len,
        "rope_frequencies": "rounded",
        "qk_gain": p.qk_gain_init,
        "xsa_last_layers": p.xsa_last_n,
        "smear_gate": p.smear,
        "layer_scale": "inverse_sqrt_depth" if p.ln_scale else "none",
        "logit_softcap": p.logit_softcap,
        "init": p.init,
        "orthogonal_min_dim": 64,
        "bigram": None,
        "value_embedding": None,
    }
    if p.bigram_vocab_size:
        model["bigram"] = {"vocab_size": p.bigram_vocab_size, "dim": p.bigram_dim}
    if p.ve_layers:
        model["value_embedding"] = {"layers": list(p.ve_layers), "dim": p.ve_dim}
    sections = {
        "data": _data(p),
        "model": {key: value for key, value in model.items() if value is not None},
        "train": {
            "seq_len": p.train_seq_len,
            "batch_tokens": p.train_batch_tokens,
            "micro_steps": p.grad_accum_steps,
            "warmup_steps": p.warmup_steps,
            "warmdown_steps": p.warmdown_iters,
        },
        "optim": _optim(p),
        "averaging": {"kind": "none"}
        if p.ema_decay is None
        else {"kind": "ema", "decay": p.ema_decay},
        "quantization": _quantization(p),
        "scoring": {
            "seq_len": p.train_seq_len,
            "stride": p.eval_stride,
            "batch_seqs": p.eval_batch_seqs,
            "tail": p.sliding_tail,
        },
        "ttt": _ttt(p),
        "slot": _slot(p) if p.slot else None,
    }
    return sections


def _data(p: Published) -> dict[str, Any]:
    if p.loader == "sequential":
        return {"dataset": NO_PATH}
    return {
        "dataset": NO_PATH,
        "loader": "coprime",
        "virtual_world": p.loader_world,
        "seed_names": list(p.loader_seed_strings),
    }


def _optim(p: Published) -> dict[str, Any]:
    clipped = {
        "grad_clip": p.grad_clip_norm,
        "clip": "per_shard" if p.clip_per_shard else "global",
    }
    return {
        "matrix_lr": p.matrix_lr,
        "embed_lr": p.embed_lr,
        "scalar_lr": p.scalar_lr,
        "activation_lr": p.asqu_lr,
        "weight_decay": p.muon_wd,
        **({"adam_weight_decay": p.adam_wd} if p.adam_wd else {}),
        "adam_beta1": p.beta1,
        "adam_beta2": p.beta2,
        "adam_eps": p.adam_eps,
        "muon_momentum": p.muon_momentum,
        "muon_momentum_start": p.muon_momentum_warmup_start,
        "muon_momentum_warmup_steps": p.muon_momentum_warmup_steps,
        **(clipped if p.grad_clip_norm else {}),
    }


def _quantization(p: Published) -> dict[str, Any]:
    six_bits = None if p.quantizer == "int8" else p.int6_floor
    floors = {"scale_floor": six_bits, "int8_scale_floor": p.int8_floor}
    return {
        "matrices": {"int8": "int8_row", "int6": "int6_row", "gptq": "gptq"}[p.quantizer],
        "embeddings": "int8_row",
        "passthrough_numel": p.passthrough_numel,
        "control": "float32" if p.control_fp32 else "float16",
        "large_control": "int8" if p.quantizer == "int8" else "float32",
        "container": "int8_clean_per_row_v1" if p.quantizer == "int8" else "w_m",
        "quantile_rank": "float32",
        "compressor": "zlib" if p.quantizer == "int8" else "lzma",
        "preset": 9 if p.quantizer == "int8" else 6,
        "int8_codes_by": "exact_scale",
        "gptq": {
            "calibration": p.gptq_calib,
            "batches": p.gptq_batches,
            "sequences": p.gptq_sequences,
            "sequence_batch": p.gptq_generate_batch,
            "temperature": p.gptq_temperature,
            "block": p.gptq_block,
            "damping": p.gptq_damp,
        },
        **{key: floor for key, floor in floors.items() if floor is not None},
    }


def _ttt(p: Published) -> dict[str, Any] | None:
    if p.ttt is None:
        return None
    return {
        "optimizer": p.ttt,
        "lr": p.ttt_lr,
        "momentum": p.ttt_momentum if p.ttt == "sgd" else 0.0,
        "epochs": p.ttt_epochs,
        "chunk_tokens": p.ttt_chunk_tokens,
        "batch_seqs": p.ttt_batch_seqs,
        "grad_clip": p.ttt_grad_clip,
        "freeze_layers": p.ttt_freeze_blocks,
        "freeze_matrices": False,
        "late_qat": p.ttt_late_qat,
    }


def _slot(p: Published) -> dict[str, Any]:
    return {
        "mode": "published",
        "lr": p.slot_lr,
        "steps": p.slot_steps,
        "batch_seqs": p.eval_batch_seqs,
    }
