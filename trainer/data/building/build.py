"""Build a dataset from text files: plain text, JSON lines or Parquet.

They are read twice: once to check them, to split them and to learn a tokenizer, and once to cut
them into tokens. Neither time are they in memory as a whole. The order of the documents is that of
the sources, and the same sources and options give the same files, byte for byte, however many cores
there are.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.config.config_errors import ConfigError
from trainer.data.building.adopt import check_name, check_tokenizer
from trainer.data.building.documents import SplitDocument, find_sources, read_documents
from trainer.data.building.scan import Contents, Progress, scan
from trainer.data.building.writer import (
    SHARD_TOKENS,
    WriteOptions,
    build_folder,
    check_replaceable,
    install,
    write_dataset,
)
from trainer.data.byte_audit import open_audited
from trainer.data.manifest import (
    MANIFEST_FILE,
    MAX_VOCAB_SIZE,
    Manifest,
    Prepared,
    Shard,
    open_dataset,
    read_manifest,
)
from trainer.data.shards import MAX_TOKENS
from trainer.data.tokenizer import SAMPLE_BYTES, load_tokenizer, train_tokenizer

SOURCE = "own text"
VAL_FRACTION = 0.01
FEW_VAL_TOKENS = 10_000
SAMPLE_BYTES_PER_PIECE = 1_000  # beyond SAMPLE_BYTES, for vocabularies of more than 2,000 pieces


@dataclass(frozen=True, kw_only=True)
class TextBuild:
    """What is to be built: which text, cut how, where to. ``workers`` has no say in the result."""

    text: Sequence[Path]
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


def build_from_text(build: TextBuild, progress: Progress) -> Prepared:
    """Make ``build.out`` that dataset: all of it or nothing; nothing is done if it is there.

    ConfigError if the text or an option cannot be used, if the bytes counted over the validation
    tokens are not those of their text, or if the folder holds anything else.
    """
    existing = _existing_manifest(build.out)
    model = None if build.tokenizer is None else _read_model(build.tokenizer, build.vocab_size)
    sources = find_sources(build.text)
    sample_bytes = max(SAMPLE_BYTES, SAMPLE_BYTES_PER_PIECE * (build.vocab_size or 0))
    found, sample = scan(_read_split(sources, build.val_fraction), sample_bytes, progress)
    _check_splits(found, build.val_fraction)
    if model is None:
        assert build.vocab_size is not None
        model = train_tokenizer(sample, build.vocab_size, sample_bytes)
    if existing is not None and _is_up_to_date(build, existing, found, model):
        return Prepared("up to date", open_dataset(build.out), _note(existing, found))
    options = WriteOptions(
        name=build.name,
        source=SOURCE,
        contents=found,
        shard_tokens=build.shard_tokens,
        workers=build.workers,
    )
    with build_folder(build.out) as folder:
        documents = _read_split(sources, build.val_fraction)
        manifest = write_dataset(folder, documents, model, options, progress)
        if not install(folder, build.out, replace=existing is not None):
            raise ConfigError(f"{build.out} was made by someone else meanwhile. Run this again.")
    return Prepared("built", open_dataset(build.out), _note(manifest, found))


def _read_split(sources: Sequence[Path], val_fraction: float) -> Iterator[SplitDocument]:
    for document in read_documents(sources):
        yield SplitDocument(document, document.is_validation(val_fraction))


def _existing_manifest(out: Path) -> Manifest | None:
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


def _is_up_to_date(build: TextBuild, existing: Manifest, found: Contents, model: bytes) -> bool:
    """Whether the dataset that is there is whole and what a build would write."""
    same = {
        "name": existing.dataset == build.name,
        "text or split": existing.corpus_sha256 == found.corpus_sha256,
        "tokenizer": existing.tokenizer_sha256 == hashlib.sha256(model).hexdigest(),
        "length of shards": _are_cut(existing.train, build.shard_tokens)
        and _are_cut(existing.validation, build.shard_tokens),
    }
    differing = ", ".join(what for what, is_same in same.items() if not is_same)
    if build.rebuild:
        return False
    if differing:
        raise ConfigError(
            f"{build.out} holds another dataset (its {differing} would change), and results may "
            f"depend on it. Name another folder, or replace it with --rebuild."
        )
    try:
        open_audited(build.out, hash_train=True)
    except ConfigError:
        return False  # damaged: it is built anew
    return True


def _are_cut(shards: Sequence[Shard], shard_tokens: int) -> bool:
    """Whether each but the last has ``shard_tokens``."""
    *whole, last = (shard.num_tokens for shard in shards)
    return set(whole) <= {shard_tokens} and last <= shard_tokens


def _read_model(path: Path, vocab_size: int | None) -> bytes:
    processor = load_tokenizer(path)
    check_tokenizer(processor, path)
    if vocab_size not in (None, processor.vocab_size()):
        raise ConfigError(
            f"{path} has {processor.vocab_size()} pieces, and --vocab-size is {vocab_size}. Leave "
            f"it out, or name another tokenizer."
        )
    return path.read_bytes()


def _check_splits(found: Contents, val_fraction: float) -> None:
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


def _check_range(option: str, value: float, fits: bool, allowed: str) -> None:
    if not fits:
        raise ConfigError(f"{option} {value}: this is out of its range. Give {allowed}.")


def _note(manifest: Manifest, found: Contents) -> str | None:
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
