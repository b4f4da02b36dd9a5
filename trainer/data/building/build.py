"""How does a person's own text become a dataset?

It is read twice: once to check it, to split it and to learn a tokenizer, and once to cut it into
tokens. Neither time is it in memory as a whole. The order of the documents is that of the sources,
and the same sources and options give the same files, byte for byte, however many cores there are.
"""

import hashlib
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.config.config_errors import ConfigError
from trainer.data.building.adopt import check_name, check_tokenizer
from trainer.data.building.documents import find_sources, read_documents
from trainer.data.building.encode import EncodedSplit, Encoder, encode
from trainer.data.building.prepare import SHARD_TOKENS, Prepared, check_replaceable, install
from trainer.data.building.scan import Scan, Tell, scan
from trainer.data.building.writer import ShardWriter
from trainer.data.byte_audit import Auditor, ensure_audited, require_sound
from trainer.data.manifest import (
    MANIFEST_FILE,
    MAX_VOCAB_SIZE,
    TOKENIZER_FILE,
    Manifest,
    Shard,
    open_dataset,
    read_manifest,
    write_manifest,
)
from trainer.data.shards import MAX_TOKENS
from trainer.data.token_bytes import RULE_VERSION, ByteTable
from trainer.data.tokenizer import SAMPLE_BYTES, load_tokenizer, parse_tokenizer, train_tokenizer
from trainer.files import write_atomically

SOURCE = "own text"
VAL_FRACTION = 0.01
FEW_VAL_TOKENS = 10_000
SAMPLE_BYTES_PER_PIECE = 1_000  # beyond SAMPLE_BYTES, for vocabularies of more than 2,000 pieces


@dataclass(frozen=True, kw_only=True)
class TextBuild:
    """What is to be built: which text, cut how, where to. ``workers`` has no say in the result."""

    text: tuple[Path, ...]
    out: Path
    name: str
    vocab_size: int | None = None  # may be left out with a tokenizer
    tokenizer: Path | None = None  # one is learnt if there is none
    val_fraction: float = VAL_FRACTION
    shard_tokens: int = SHARD_TOKENS
    workers: int = 1
    rebuild: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "--name my-text")
        _check_range("--val-fraction", self.val_fraction, 0 < self.val_fraction < 1, "0 to 1")
        _check_range("--workers", self.workers, self.workers >= 1, "1 or more")
        fits = 1 <= self.shard_tokens <= MAX_TOKENS
        _check_range("--shard-tokens", self.shard_tokens, fits, f"1 to {MAX_TOKENS:,}")
        if self.vocab_size is None and self.tokenizer is None:
            raise ConfigError(
                "which tokenizer? --vocab-size N learns one from the text, --tokenizer FILE takes "
                "one that is there. Give one of them."
            )
        if self.vocab_size is not None and self.vocab_size > MAX_VOCAB_SIZE:
            raise ConfigError(
                f"--vocab-size {self.vocab_size} is too large: a token has 16 bits in a shard, so "
                f"there can be at most {MAX_VOCAB_SIZE} pieces. Choose fewer."
            )


def build_from_text(wanted: TextBuild, tell: Tell) -> Prepared:
    """Make ``wanted.out`` that dataset: all of it or nothing; nothing is done if it is there.

    ConfigError if the text or an option cannot be used, if the bytes counted over the validation
    tokens are not those of their text, or if the folder holds anything else.
    """
    before = _before(wanted.out)
    model = None if wanted.tokenizer is None else _given_model(wanted.tokenizer, wanted.vocab_size)
    sources = find_sources(wanted.text)
    sample_bytes = max(SAMPLE_BYTES, SAMPLE_BYTES_PER_PIECE * (wanted.vocab_size or 0))
    found = scan(read_documents(sources), wanted.val_fraction, sample_bytes, tell)
    _check_splits(found, wanted.val_fraction)
    if model is None:
        assert wanted.vocab_size is not None
        model = train_tokenizer(found.sample, wanted.vocab_size, sample_bytes)
    if before is not None and _is_up_to_date(wanted, before, found, model):
        there = open_dataset(wanted.out, before.vocab_size)
        return Prepared("up to date", there, _note(before, found))
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    workplace = wanted.out.with_name(f".{wanted.out.name}.{secrets.token_hex(4)}.building")
    try:
        workplace.mkdir()
        manifest = _write(workplace, wanted, sources, found, model, tell)
        if not install(workplace, wanted.out, replace=before is not None):
            raise ConfigError(f"{wanted.out} was made by someone else meanwhile. Run this again.")
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    return Prepared("built", open_dataset(wanted.out, manifest.vocab_size), _note(manifest, found))


def _write(
    folder: Path, wanted: TextBuild, sources: Sequence[Path], found: Scan, model: bytes, tell: Tell
) -> Manifest:
    write_atomically(folder / TOKENIZER_FILE, model)
    processor = parse_tokenizer(model)
    vocab_size = processor.vocab_size()
    auditor = Auditor(processor, ByteTable.from_tokenizer(processor, vocab_size))
    encoder = Encoder(model, wanted.val_fraction)
    order = hashlib.sha256()
    with (
        ShardWriter(folder, f"{wanted.name}_train", wanted.shard_tokens) as train_writer,
        ShardWriter(folder, f"{wanted.name}_val", wanted.shard_tokens) as val_writer,
    ):
        train, validation = _Split(train_writer), _Split(val_writer)
        for chunk in encode(read_documents(sources), encoder, wanted.workers):
            order.update(chunk.digests)
            train.add(chunk.train)
            validation.add(chunk.validation)
            auditor.feed(chunk.validation.tokens_N)
            require_sound(auditor.found, wanted.out)  # at the first, not after hours
            num_documents = train.num_documents + validation.num_documents
            tell("cut into tokens", num_documents, train.raw_bytes + validation.raw_bytes)
    require_sound(auditor.finish(), wanted.out)
    if order.hexdigest() != found.order_sha256:
        raise ConfigError("the text changed while it was read. Run this again once it is complete.")
    manifest = Manifest(
        dataset=wanted.name,
        vocab_size=vocab_size,
        corpus_sha256=found.corpus_sha256,
        tokenizer_sha256=hashlib.sha256(model).hexdigest(),
        train=tuple(train_writer.shards),
        validation=tuple(val_writer.shards),
        num_train_documents=train.num_documents,
        num_val_documents=validation.num_documents,
        train_bytes=train.num_bytes,
        val_bytes=auditor.found.counted_bytes,
        val_raw_bytes=validation.raw_bytes,
        audited=RULE_VERSION,
        source=SOURCE,
    )
    write_manifest(folder, manifest)
    return manifest


@dataclass
class _Split:
    writer: ShardWriter
    num_documents: int = 0
    num_bytes: int = 0
    raw_bytes: int = 0

    def add(self, part: EncodedSplit) -> None:
        self.writer.append(part.tokens_N)
        self.num_documents += part.num_documents
        self.num_bytes += part.num_bytes
        self.raw_bytes += part.raw_bytes


def _before(out: Path) -> Manifest | None:
    """The manifest of the dataset in ``out``; ConfigError if it holds what may not be replaced."""
    check_replaceable(out)
    if not out.exists() or not any(out.iterdir()):
        return None
    if not (out / MANIFEST_FILE).exists():
        raise ConfigError(
            f"{out} is no dataset and not empty: found shards or a tokenizer without a "
            f"{MANIFEST_FILE}. Name another folder, or move it away."
        )
    manifest = read_manifest(out)
    if manifest.source != SOURCE:
        raise ConfigError(
            f"{out} holds {manifest.dataset}, made from {manifest.source}, which is not replaced. "
            f"Name another folder."
        )
    return manifest


def _is_up_to_date(wanted: TextBuild, before: Manifest, found: Scan, model: bytes) -> bool:
    """Whether the dataset that is there is whole and what a build would write."""
    same = {
        "name": before.dataset == wanted.name,
        "text or split": before.corpus_sha256 == found.corpus_sha256,
        "tokenizer": before.tokenizer_sha256 == hashlib.sha256(model).hexdigest(),
        "length of shards": _are_cut(before.train, wanted.shard_tokens)
        and _are_cut(before.validation, wanted.shard_tokens),
    }
    differing = ", ".join(what for what, is_same in same.items() if not is_same)
    if wanted.rebuild:
        return False
    if differing:
        raise ConfigError(
            f"{wanted.out} holds another dataset (its {differing} would change), and results may "
            f"depend on it. Name another folder, or replace it with --rebuild."
        )
    try:
        ensure_audited(wanted.out)
        open_dataset(wanted.out, before.vocab_size, hash_train=True)
    except ConfigError:
        return False  # damaged: it is built anew
    return True


def _are_cut(shards: Sequence[Shard], shard_tokens: int) -> bool:
    """Whether each but the last has ``shard_tokens``."""
    *whole, last = (shard.num_tokens for shard in shards)
    return set(whole) <= {shard_tokens} and last <= shard_tokens


def _given_model(path: Path, vocab_size: int | None) -> bytes:
    processor = load_tokenizer(path)
    check_tokenizer(processor, path)
    if vocab_size not in (None, processor.vocab_size()):
        raise ConfigError(
            f"{path} has {processor.vocab_size()} pieces, and --vocab-size is {vocab_size}. Leave "
            f"it out, or name another tokenizer."
        )
    return path.read_bytes()


def _check_splits(found: Scan, val_fraction: float) -> None:
    num_documents = found.num_train_documents + found.num_val_documents
    if num_documents == 0:
        raise ConfigError(
            f"there is no document: found {found.num_empty:,} empty ones and nothing else. Name "
            f"files with text in them."
        )
    for kind, count, change in (
        ("training", found.num_train_documents, "smaller"),
        ("validation", found.num_val_documents, "larger"),
    ):
        if count == 0:
            raise ConfigError(
                f"none of the {num_documents:,} documents is for {kind}: each is for validation "
                f"with a chance of {val_fraction:g}, by the hash of its text. Give more documents "
                f"(a plain text file is one), or a {change} --val-fraction."
            )


def _check_range(option: str, given: float, fits: bool, allowed: str) -> None:
    if not fits:
        raise ConfigError(f"{option} {given}: this is out of its range. Give {allowed}.")


def _note(manifest: Manifest, found: Scan) -> str | None:
    """What a person should know of the dataset beside its numbers."""
    notes = []
    if manifest.num_val_tokens < FEW_VAL_TOKENS:
        notes.append(
            f"WARNING: only {manifest.num_val_tokens:,} validation tokens, too few to tell models "
            f"apart: give more text or a larger --val-fraction"
        )
    if manifest.val_raw_bytes not in (None, manifest.val_bytes):
        notes.append(
            f"the tokenizer changes the text: of {manifest.val_raw_bytes:,} bytes of validation "
            f"text {manifest.val_bytes:,} are left and counted"
        )
    if found.num_empty:
        notes.append(f"{found.num_empty:,} empty documents were passed over")
    return "; ".join(notes) or None
