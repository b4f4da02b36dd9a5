"""Everything that configures a published run (parameter-golf PR #1035, #549, #1176)."""

from dataclasses import dataclass, replace

PUBLISHED_SHARDS = tuple(
    f"data/datasets/fineweb10B_sp1024/fineweb_train_{index:06d}.bin" for index in range(80)
)


@dataclass(frozen=True)
class Published:
    """Fields without a default differ between the recipes."""

    # Model.
    num_layers: int
    mlp_hidden: int
    rope_dims: int  # 0: the whole head
    rope_ntk_len: int | None  # longer sequences rescale the rotary base
    qk_gain_init: float
    xsa_last_n: int
    smear: bool
    ln_scale: bool
    bigram_vocab_size: int  # 0: no bigram path
    bigram_dim: int
    ve_layers: tuple[int, ...]
    ve_dim: int
    init: str  # "kaiming" | "orthogonal"
    # Training.
    train_seq_len: int
    train_batch_tokens: int
    iterations: int
    warmdown_iters: int
    grad_clip_norm: float  # 0: off
    clip_per_shard: bool  # clip each micro-batch's gradient, then average
    matrix_lr: float
    embed_lr: float
    scalar_lr: float
    muon_wd: float
    adam_wd: float
    muon_momentum: float
    muon_momentum_warmup_start: float
    muon_momentum_warmup_steps: int
    ema_decay: float | None
    # Artifact.
    quantizer: str  # "int8" | "int6" | "gptq"
    control_fp32: bool
    # Evaluation.
    ttt: str | None  # "sgd" | "muon" | None

    # The rest is the same in all three, or only one of them reads it.
    model_dim: int = 512
    num_heads: int = 8
    num_kv_heads: int = 4
    vocab_size: int = 1024
    rope_base: float = 10000.0
    logit_softcap: float = 30.0
    asqu_init: float = 0.25
    grad_accum_steps: int = 8
    warmup_steps: int = 20
    asqu_lr: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.95
    adam_eps: float = 1e-8
    loader: str = "sequential"  # | "coprime"
    loader_world: int = 8  # the world size that the coprime plan is drawn for
    loader_seed_strings: tuple[str, ...] = PUBLISHED_SHARDS
    passthrough_numel: int = 65536
    int6_floor: float | None = 1 / 31
    int8_floor: float | None = 1 / 127
    gptq_calib: str = "train"  # | "generated"
    gptq_batches: int = 64
    gptq_sequences: int = 64
    gptq_generate_batch: int = 8
    gptq_temperature: float = 0.8
    gptq_seed: int | None = None  # None: the seed of the run
    gptq_block: int = 128
    gptq_damp: float = 0.01
    eval_stride: int = 64
    sliding_tail: str = "published"  # | "once"
    eval_batch_seqs: int = 32
    ttt_lr: float = 0.002
    ttt_epochs: int = 3
    ttt_chunk_tokens: int = 32768
    ttt_momentum: float = 0.9
    ttt_batch_seqs: int = 32
    ttt_grad_clip: float = 1.0
    ttt_freeze_blocks: int = 0
    ttt_late_qat: bool = False
    slot: bool = False
    slot_lr: float = 0.003
    slot_steps: int = 5
    seed: int = 1337

    @classmethod
    def pr1035(cls) -> "Published":
        """Recipe A: the nine-layer baseline at fixed steps."""
        return cls(
            num_layers=9,
            mlp_hidden=1024,
            rope_dims=0,
            rope_ntk_len=None,
            qk_gain_init=1.5,
            xsa_last_n=0,
            smear=False,
            ln_scale=False,
            bigram_vocab_size=0,
            bigram_dim=0,
            ve_layers=(),
            ve_dim=0,
            init="kaiming",
            train_seq_len=1024,
            train_batch_tokens=524288,
            iterations=10000,
            warmdown_iters=1200,
            grad_clip_norm=0.0,
            clip_per_shard=False,
            matrix_lr=0.04,
            embed_lr=0.05,
            scalar_lr=0.04,
            muon_wd=0.0,
            adam_wd=0.0,
            muon_momentum=0.95,
            muon_momentum_warmup_start=0.85,
            muon_momentum_warmup_steps=500,
            ema_decay=None,
            quantizer="int8",
            control_fp32=True,
            ttt=None,
        )

    @classmethod
    def pr549(cls) -> "Published":
        """Recipe B: eleven layers, EMA, int6, SGD at test time."""
        return cls(
            num_layers=11,
            mlp_hidden=1536,
            rope_dims=16,
            rope_ntk_len=1024,
            qk_gain_init=1.5,
            xsa_last_n=4,
            smear=True,
            ln_scale=True,
            bigram_vocab_size=1536,
            bigram_dim=128,
            ve_layers=(9, 10),
            ve_dim=128,
            init="orthogonal",
            train_seq_len=2048,
            train_batch_tokens=786432,
            iterations=9000,
            warmdown_iters=3500,
            grad_clip_norm=0.3,
            clip_per_shard=True,
            matrix_lr=0.025,
            embed_lr=0.035,
            scalar_lr=0.025,
            muon_wd=0.04,
            adam_wd=0.04,
            muon_momentum=0.99,
            muon_momentum_warmup_start=0.92,
            muon_momentum_warmup_steps=1500,
            ema_decay=0.997,
            quantizer="int6",
            control_fp32=False,
            ttt="sgd",
            ttt_late_qat=True,
        )

    @classmethod
    def pr1176(cls) -> "Published":
        """Recipe C: recipe B with the coprime loader, XSA everywhere, Muon-TTT and SLOT."""
        return replace(
            cls.pr549(),
            qk_gain_init=4.0,
            xsa_last_n=11,
            bigram_vocab_size=2816,
            bigram_dim=112,
            iterations=20000,
            loader="coprime",
            ttt="muon",
            ttt_freeze_blocks=2,
            ttt_late_qat=False,
            slot=True,
        )
