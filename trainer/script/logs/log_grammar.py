"""The grammar of published training logs: every kind of printed line as a pattern.

A kind is one entry of ``ONCE`` (a run says it once), of ``REPEATED``, or of ``NOT_PLAIN`` (what its
name says is not what the score is). A line that is of none and has a word of ``ASKS`` is a question
for a person. ``log_lines`` reads with it.
"""

import re

RULER = "=" * 100

_INT, _REAL = r"\d{1,15}", r"[+-]?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|nan|inf)"
_PACKER = "(?:zlib|zstd|lzma|brotli)"
_FORMAT = r"(?P<format>\w+\+\w+)"  # such as int8+zlib, int6+lzma, int6+brotli
WORD_GROUPS = ("format", "dataset", "tokenizer", "pattern")  # groups that are words, not numbers


def _number(name: str, kind: str = _REAL) -> str:
    return f"(?P<{name}>{kind})"


def _score(decimals: int, mark: str = ":") -> str:
    """With all its decimals, so that a number that was cut off is no number."""
    real = rf"[+-]?(?:\d+\.\d{{{decimals}}}|nan|inf)"
    return f"val_loss{mark}{_number('loss', real)} val_bpb{mark}{_number('bpb', real)}"


_SCORE, _EXACT = _score(4), _score(8)
_STEP = rf"step:{_number('step', _INT)}/{_number('iterations', _INT)}"
_TIMES = rf"train_time:{_number('train_ms', _INT)}ms step_avg:{_number('step_avg_ms')}ms"
_EVAL = rf"(?: eval_time:{_number('eval_ms', _INT)}ms)"

# What a run says once.
ONCE = {
    "start": r"val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path=(?P<tokenizer>\S+)",
    "dataset": rf"train_loader:dataset:(?P<dataset>\S+) train_shards:{_number('shards', _INT)}",
    "val_loader": rf"val_loader:shards pattern=(?P<pattern>\S+) tokens:{_number('tokens', _INT)}",
    "params": rf"model_params:{_number('params', _INT)}",
    "world": rf"world_size:{_number('ranks', _INT)} grad_accum_steps:\d+",
    "heads": rf"attention_mode:gqa num_heads:{_number('heads', _INT)}"
    rf" num_kv_heads:{_number('kv_heads', _INT)}",
    "rates": rf"tie_embeddings:True embed_lr:{_number('embed_lr')} head_lr:{_number('head_lr')}"
    rf" matrix_lr:{_number('matrix_lr')} scalar_lr:{_number('scalar_lr')}",
    "config": rf"train_batch_tokens:{_number('batch_tokens', _INT)}"
    rf" train_seq_len:{_number('seq_len', _INT)} iterations:{_number('iterations', _INT)}"
    rf" warmup_steps:{_number('warmup', _INT)} max_wallclock_seconds:{_number('cap_s')}",
    "seed": rf"seed:{_number('seed', _INT)}",
    "xsa": rf"XSA:last_{_number('layers', _INT)} active_layers:\[.*\]",
    "stop": rf"stopping_early: wallclock_cap train_time:{_number('train_ms', _INT)}ms {_STEP}",
    "memory": rf"peak memory allocated: {_number('mib', _INT)} MiB reserved: \d+ MiB",
    "swa": r"swa:start step:\d+",
    "late_qat": r"late_qat:enabled step:\d+ scale:[\d.]+.*",
    "ema": r"ema:applying EMA weights",
    "post_ema": rf"DIAGNOSTIC post_ema {_SCORE}{_EVAL}",
    "raw_model": r"Serialized model: \d+ bytes",
    "code": rf"Code size: {_number('bytes', _INT)} bytes",
    "raw_total": r"Total submission size: \d+ bytes",
    "model": rf"Serialized model {_FORMAT}: {_number('bytes', _INT)} bytes(?: \(payload:.+\))?",
    "total": rf"Total submission size {_FORMAT}: {_number('bytes', _INT)} bytes",
    "int8": rf"final_int8_{_PACKER}_roundtrip {_SCORE}{_EVAL}",
    "int6": rf"final_int6_roundtrip {_SCORE}{_EVAL}",
    "int6_exact": rf"final_int6_roundtrip_exact {_EXACT}",
    "sliding": rf"final_int6_sliding_window {_SCORE} stride:{_number('stride', _INT)}{_EVAL}",
    "sliding_exact": rf"final_int6_sliding_window_exact {_EXACT}",
    "second_sliding": rf"final_int6_sliding_window_s64 {_SCORE} stride:64{_EVAL}",
    "second_sliding_exact": rf"final_int6_sliding_window_s64_exact {_EXACT}",
    "ttt_start": rf"ttt_sliding:start chunks=\d+ chunk_tokens={_number('chunk_tokens', _INT)}"
    rf" total_windows=\d+ stride={_number('stride', _INT)}(?: ttt_lr={_number('lr')}"
    rf" ttt_epochs={_number('epochs', _INT)} freeze_blocks={_number('freeze', _INT)})?",
    "ttt_done": rf"ttt_sliding:done {_score(6, '=')} elapsed=.+s",
    "ttt": rf"legal_ttt {_SCORE}{_EVAL}",
    "ttt_exact": rf"legal_ttt_exact {_EXACT}",
    "slot_start": rf"slot:starting lr={_number('lr')} steps={_number('steps', _INT)}",
    "slot": rf"final_slot {_SCORE} time:{_number('eval_ms', _INT)}ms",
    "slot_exact": rf"final_slot_exact {_EXACT}",
}
REPEATED = {
    "val": rf"{_STEP} {_SCORE} {_TIMES}",
    "train": rf"{_STEP} train_loss:{_number('loss')} {_TIMES}",
    "int8_exact": rf"final_int8_{_PACKER}_roundtrip_exact {_EXACT}",  # also said of sliding scores
    "chunk": rf" *ttt_chunk \[\d+/\d+\] bpb={_number('bpb')} time=.+s",  # rank 0's part, no score
    "ttt_params": r"ttt_sliding:params unfrozen=\d+ frozen=\d+",
    "gptq": r"gptq(?::calibrated|:calibrating|:generated|_quantize:)(?!.*\bval).+",
    "silent": r"(?!.*(?:bpb|val_loss|roundtrip))(?:warmup_step:\d+/\d+|logs/[\da-f-]+\.txt|\s*"
    r"|mtp_num_heads:0 .*|gptq:reserving .*|selective_prune: .+"
    r"|sdp_backends:.*|final_eval_mode:standard"
    r"|(?:\[rank\d+\]: ?)?\[?[IWE]\d{3,4} \d\d:\d\d:\d\d.+)",  # torch's own messages
}
HEADER = ("start", "dataset", "val_loader", "params", "world", "heads", "rates", "config", "seed")
KINDS = {kind: re.compile(text) for kind, text in (ONCE | REPEATED).items()}

# Words with which nothing begins but a line of the grammar.
BEGINS = (
    *("step:", "seed:", "final_", "legal_ttt", "ttt_sliding", "DIAGNOSTIC", "diagnostic"),
    *("Serialized model", "Total submission", "Code size", "stopping_early", "model_params:"),
    *("train_batch_tokens:", "val_loader:", "val_bpb:", "world_size:", "tie_embeddings:", "XSA:"),
    *("attention_mode:", "peak memory", "ema:", "lawa:", "slot:", "quantized"),
)
OF_A_SCORE = re.compile(r"bpb|val_loss|roundtrip")

# Lines after which a score is not what its name says: kind, how it is known, what it means.
_NOT_PLAIN = {
    "slot in TTT": (
        r"^ttt_sliding:.*slot",
        "this TTT also shifts hidden states, fitted on the targets that it then scores: an illegal"
        " SLOT score under the name of TTT",
    ),
    "sliding round trip": (
        r"^final_eval_mode:.*sliding",
        "the final score is of sliding windows, under the name of the round trip",
    ),
    "mixture": (
        r"^(?=.*(?:bpb|val_loss)).*?(?:n-?gram|ctw|mixture|mixing|knn)",
        "a score of a mixture with another model; what else here is of the mixture is not said",
    ),
    "other average": (
        r"^lawa:applying",
        "weights that are averaged in a way that no recipe here has",
    ),
}
NOT_PLAIN = {
    kind: (re.compile(text, re.IGNORECASE), what) for kind, (text, what) in _NOT_PLAIN.items()
}

# Words after which a score may not be what its name says, or not of this data or this training.
_OF_ANOTHER_SCORE = (
    r"slot|n[-_ ]?gram|\d-?gram|ctw|mixture|mixing|interpolat|backoff|blend|dirichlet|knn|tilt"
    r"|ensembl|paid|(?<![a-z])(?:ppm|ttt|ema|swa|lawa|lora|qat)(?![a-z])|averag(?:ed|ing)"
    r"|sliding|stride|eval_(?:seq|len|context|window)|two[-_ ]?pass|rescor"
    r"|val_?only|train_?on_?val|(?<![a-z])sp(?!1024)\d{3,5}|byte260"
    r"|resum(?:e|ed|ing)\b|load(?:ed|ing)? (?:\w+ ){0,4}(?:checkpoint|weights)"
    r"|pretrained|distill|prun(?:e|ed|ing)(?![a-z])|calib\w*.{0,60}\bval"
)
_OF_AN_ACTIVATION = r"mlp_act|slope|leaky|relu|gelu|silu|swi(?:sh|glu)|asqu"
_NO_WARNING = r"^(?!\S+\.py:\d+: \w*Warning: ).*?"  # of Python, such as DDP's of gradient strides
ASKS = re.compile(f"{_NO_WARNING}({_OF_ANOTHER_SCORE}|{_OF_AN_ACTIVATION})", re.IGNORECASE)
ASKS_BESIDE_ACTIVATION = re.compile(f"{_NO_WARNING}({_OF_ANOTHER_SCORE})", re.IGNORECASE)
NAMES_ACTIVATION = re.compile(
    r"(?<![a-z])(?:(?:mlp_)?act(?:ivation)?(?:_fn|_func|_type)?\s*[:=]\s*['\"]?\w"
    r"|slope\s*[:=]\s*[-+]?\.?\d)",
    re.IGNORECASE,
)


def beginning(kind: str) -> str:
    """How a line of ``kind`` begins, as it stands in a log.

    >>> beginning("int6_exact")
    'final_int6_roundtrip_exact'
    """
    begin = re.match(r"[^\\(]*", KINDS[kind].pattern)
    return begin[0].partition(" val_loss")[0].strip() if begin else kind
