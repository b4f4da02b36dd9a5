"""Make a dataset of token shards that are there already, by describing them in a manifest.

They are read from end to end and left as they are.
"""

import re
from pathlib import Path

from pydantic import ValidationError
from sentencepiece import SentencePieceProcessor

from trainer.config.config_errors import ConfigError
from trainer.config.data import Data
from trainer.data.building.corpus import is_stdlib_dataset
from trainer.data.byte_audit import audited
from trainer.data.manifest import (
    MANIFEST_FILE,
    MAX_VOCAB_SIZE,
    SHARD_NAME,
    TOKENIZER_FILE,
    Dataset,
    Manifest,
    Prepared,
    read_manifest,
    write_manifest,
)
from trainer.data.shard_counts import ShardPaths, describe_shards
from trainer.data.shards import open_shard
from trainer.data.tokenizer import BOS_ID, load_tokenizer
from trainer.files import write_atomically

SOURCE = "shards that were made elsewhere"


def adopt(
    directory: Path, tokenizer: Path, dataset: str | None = None, *, source: str = SOURCE
) -> Prepared:
    """Make ``directory``, which holds shards, a dataset, by default of the folder's own name.

    Every ``*_train_*.bin`` and ``*_val_*.bin`` is taken, in lexicographic order, and read whole;
    ``*_val_bytes_*.bin`` are no tokens but the byte sidecar of these.
    ``tokenizer`` is copied beside them and the manifest written last; where ConfigError is raised,
    or the writing fails, neither is left. Doing it again checks everything and changes nothing, nor
    does ``source``, which says where the shards come from. A shard of 10⁸ tokens takes 2 s.
    """
    name = dataset or directory.absolute().name
    check_name(name, "--dataset fineweb10B_sp1024")
    paths = _shard_paths(directory)
    has_manifest = (directory / MANIFEST_FILE).exists()
    existing = read_manifest(directory) if has_manifest else None
    _check_same_tokenizer(tokenizer, directory)
    source = source if existing is None else existing.source
    unaudited = describe_shards(name, tokenizer, paths, source)
    manifest = audited(unaudited, paths.validation, load_tokenizer(tokenizer))
    if existing is not None and existing not in (manifest, unaudited):
        differences = ", ".join(key for key, value in existing if value != getattr(manifest, key))
        raise ConfigError(
            f"{directory / MANIFEST_FILE} describes another dataset than what is here: its "
            f"{differences} would change, and results may depend on it. Move it away to adopt "
            f"these shards anew, or fetch again what it describes."
        )
    if existing != manifest or not (directory / TOKENIZER_FILE).exists():
        _write(directory, manifest, tokenizer.read_bytes())
    found = Dataset(directory=directory, manifest=manifest, vocab_size=manifest.vocab_size)
    return Prepared("adopted" if existing is None else "up to date", found, None)


def check_tokenizer(processor: SentencePieceProcessor, path: Path) -> None:
    """ConfigError unless shards can have been written with the tokenizer that lies in ``path``."""
    if processor.bos_id() != BOS_ID or not 4 <= processor.vocab_size() <= MAX_VOCAB_SIZE:
        raise ConfigError(
            f"{path}: found {processor.vocab_size()} pieces and {processor.bos_id()} for the "
            f"beginning of a document, expected 4 to {MAX_VOCAB_SIZE} pieces and {BOS_ID}. Name "
            f"the tokenizer that the shards were written with."
        )


def _shard_paths(directory: Path) -> ShardPaths:
    """The shards, each with a good header and a name that a manifest takes."""
    if not directory.is_dir():
        raise ConfigError(f"{directory}: there is no such folder. Name the one with the shards.")
    train, validation, sidecar = (
        sorted(directory.glob(f"*_{part}_*.bin")) for part in ("train", "val", "val_bytes")
    )
    validation = [path for path in validation if path not in sidecar]
    for path in (*train, *validation, *sidecar):
        in_both = path in train and path in (*validation, *sidecar)
        if not re.match(SHARD_NAME, path.name) or in_both or "_train_bytes_" in path.name:
            raise ConfigError(
                f"{path}: not the name of a shard. It has one of _train_ and _val_ in it (and no "
                f"_train_bytes_: only validation has a byte sidecar), and otherwise letters, "
                f"digits, dots, dashes and underscores. Rename or remove it."
            )
    for kind, example, paths in (("training", "train", train), ("validation", "val", validation)):
        if not paths:
            raise ConfigError(
                f"{directory} holds no {kind} shard: found {len(train)} files *_train_*.bin and "
                f"{len(validation)} *_val_*.bin, and a dataset needs one of each or more, such as "
                f"fineweb_{example}_000000.bin. Fetch what is missing, or name another folder."
            )
        if sum(open_shard(path).size for path in paths) < 2:
            raise ConfigError(f"{directory}: the {kind} shards hold nothing to predict.")
    return ShardPaths(train, validation, sidecar)


def _check_same_tokenizer(path: Path, directory: Path) -> None:
    check_tokenizer(load_tokenizer(path), path)
    there = directory / TOKENIZER_FILE
    if there.exists() and there.read_bytes() != path.read_bytes():
        raise ConfigError(
            f"{there} is another tokenizer than {path}. Name it (--tokenizer {there}) if the "
            f"shards were written with it; otherwise move it away."
        )


def check_name(name: str, example: str) -> None:
    """ConfigError unless a dataset that is not built from the standard library can be ``name``."""
    try:
        Data(dataset=name)
        fits = not is_stdlib_dataset(name)
    except ValidationError:
        fits = False
    if not fits:
        raise ConfigError(
            f"{name!r} cannot be the name of an adopted dataset or of one's own text: it begins "
            f"with a letter or digit, goes on with these, dots, dashes and underscores, and does "
            f"not begin with stdlib, which is for what is built here. Give another, such as "
            f"{example}."
        )


def _write(directory: Path, manifest: Manifest, model: bytes) -> None:
    """Write tokenizer and manifest; where that fails, what was not there is not there."""
    paths = directory / TOKENIZER_FILE, directory / MANIFEST_FILE
    missing = [path for path in paths if not path.exists()]
    try:
        write_atomically(directory / TOKENIZER_FILE, model)
        write_manifest(directory, manifest)
    except BaseException:
        for path in missing:
            path.unlink(missing_ok=True)
        raise
