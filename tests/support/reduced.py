"""The published recipes at sizes that a test can afford: everything in them is there, but small."""

from typing import Any

SMALL: dict[str, Any] = {
    "model.vocab_size": 512,
    "model.num_layers": 5,
    "model.width": 64,
    "model.num_heads": 4,
    "model.num_kv_heads": 2,
    "model.mlp_hidden": 128,
    "train.seq_len": 32,
    "train.batch_tokens": 256,
    "train.warmup_steps": 1,
    "train.warmdown_steps": 3,
    "optim.muon_momentum_warmup_steps": 4,
    "quantization.passthrough_numel": 1000,
    "quantization.gptq.batches": 4,
    "quantization.gptq.sequences": 4,
    "quantization.gptq.sequence_batch": 1,
    "scoring.seq_len": 32,
    "scoring.max_targets": 512,
    "scoring.batch_seqs": 8,
}
WITH_EMBEDDINGS: dict[str, Any] = {
    "model.rope_dims": 8,
    "model.rope_ntk_len": 16,
    "model.bigram.vocab_size": 300,
    "model.bigram.dim": 96,
    "model.value_embedding.layers": [3, 4],
    "model.value_embedding.dim": 48,
    "averaging.decay": 0.7,
    "scoring.stride": 16,
    "ttt.chunk_tokens": 128,
    "ttt.epochs": 1,
}
REDUCED: dict[str, dict[str, Any]] = {
    "pr1035": SMALL | {"model.rope_dims": 16, "scoring.stride": 32},
    "pr549": SMALL | WITH_EMBEDDINGS,
    "pr549-clean": SMALL | {k: v for k, v in WITH_EMBEDDINGS.items() if "ntk" not in k},
    "pr1176": SMALL | WITH_EMBEDDINGS | {"model.xsa_last_layers": 5, "slot.batch_seqs": 4},
}
