"""Stage a cell's dataset on this node: use it where it lies, copy it into a cache, or fetch it.

A shared file system serves every rank of every node at once, a local disk one node. A staged
dataset is a folder of the cache that is named after its content; it is copied beside its place,
every file checked against its hash on the way, and renamed whole. A lock makes others that need it
meanwhile wait for the one that copies. Nothing is ever removed from a cache: running cells read it.
"""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from trainer.config.config_errors import ConfigError
from trainer.data.building.corpus import is_stdlib_dataset, stdlib_corpus
from trainer.data.building.prepare import prepare_stdlib
from trainer.data.download import DownloadRequest, download, is_export
from trainer.data.manifest import (
    MANIFEST_FILE,
    TOKENIZER_FILE,
    Manifest,
    check_content,
    open_dataset,
    read_manifest,
)
from trainer.files import fsync_folder, write_atomically

BLOCK_BYTES = 1 << 22
WAIT_S = 3600.0  # for another cell that copies: 16 GB at 5 MB/s
SPARE_BYTES = 1 << 28


@dataclass(frozen=True, kw_only=True)
class StageRequest:
    """The dataset that a sweep's cells read, by content, and where it lies on the driver's node."""

    data: Path
    dataset: str
    vocab_size: int
    corpus_sha256: str
    tokenizer_sha256: str
    train_shards: int | None = None
    cache: Path | None = None  # a folder on this node's disk
    missing: str = "refuse"  # or "fetch"


def stage(request: StageRequest) -> Path:
    """The folder to read on this node, with the dataset in it; ConfigError if it cannot be had."""
    fetched = request.missing == "fetch" and not request.data.is_dir()
    source = _fetch(request) if fetched else request.data
    manifest = read_manifest(source)
    check_content(source, manifest, request.corpus_sha256, request.tokenizer_sha256)
    if request.cache is None or fetched:
        open_dataset(source, request.vocab_size)
        return source
    return copy_to_cache(source, request.cache)


def _fetch(request: StageRequest) -> Path:
    """The folder of data that was downloaded or built on this node, beside others of its name."""
    root = request.data.parent
    if request.cache is not None:
        root = request.cache / _content(request.corpus_sha256, request.tokenizer_sha256)
    if is_export(request.dataset):
        export = DownloadRequest(
            dataset=request.dataset,
            vocab_size=request.vocab_size,
            root=root,
            train_shards=request.train_shards,
        )
        return download(export).dataset.directory
    if is_stdlib_dataset(request.dataset):
        corpus = stdlib_corpus()
        prepared = prepare_stdlib(request.dataset, request.vocab_size, root, corpus)
        return prepared.dataset.directory
    raise ConfigError(
        f"{request.data}: not on this node, and dataset {request.dataset!r} can be fetched from "
        f"nowhere. Put it at this path on every node."
    )


def staged_folder(cache: Path, manifest: Manifest) -> Path:
    """Where in ``cache`` the dataset of ``manifest`` lies, or would."""
    content = _content(manifest.corpus_sha256, manifest.tokenizer_sha256)
    return cache / f"{manifest.dataset}-{content}"


def _content(corpus_sha256: str, tokenizer_sha256: str) -> str:
    return f"{corpus_sha256[:16]}-{tokenizer_sha256[:16]}"


def copy_to_cache(source: Path, cache: Path) -> Path:
    """The folder in ``cache`` with the dataset of ``source``, copied there if it is not yet.

    ConfigError if the source is no whole dataset, if there is no room, or if a copied file is not
    what the manifest says.
    """
    manifest = read_manifest(source)
    target = staged_folder(cache, manifest)
    if _is_whole(target, manifest):
        return target
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(cache / f".{target.name}.lock", timeout=WAIT_S):
            if not _is_whole(target, manifest):
                _copy_dataset(source, target, manifest)
    except Timeout:
        raise ConfigError(
            f"{target}: another process has been copying it for {WAIT_S:g} s. If none does, remove "
            f"{cache / f'.{target.name}.lock'}."
        ) from None
    return target


def _is_whole(target: Path, manifest: Manifest) -> bool:
    """Whether it is there with its manifest, which is copied last, and every file in its size.

    One that is damaged is not, and is copied again.
    """
    try:
        return read_manifest(target) == manifest == open_dataset(target).manifest
    except ConfigError:
        return False


def _copy_dataset(source: Path, target: Path, manifest: Manifest) -> None:
    hashes = {shard.name: shard.sha256 for shard in manifest.shards}
    hashes[TOKENIZER_FILE] = manifest.tokenizer_sha256
    _require_room(source, target.parent, hashes)
    partial = target.with_name(f".{target.name}.copying")
    shutil.rmtree(partial, ignore_errors=True)  # of a copy that was cut: the lock is ours
    shutil.rmtree(target, ignore_errors=True)
    partial.mkdir()
    for name, expected in hashes.items():
        _copy_verified(source / name, partial / name, expected)
    write_atomically(partial / MANIFEST_FILE, (source / MANIFEST_FILE).read_bytes())
    partial.rename(target)
    fsync_folder(target.parent)


def _require_room(source: Path, cache: Path, hashes: dict[str, str]) -> None:
    needed = sum((source / name).stat().st_size for name in hashes) + SPARE_BYTES
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise ConfigError(
            f"cache {cache}: {needed / 1e9:.1f} GB are needed for {source} and {free / 1e9:.1f} GB "
            f"are free. Make room, or name another folder."
        )


def _copy_verified(source: Path, target: Path, expected: str) -> None:
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(BLOCK_BYTES):
            digest.update(block)
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
    if digest.hexdigest() != expected:
        raise ConfigError(
            f"{source}: found content {digest.hexdigest()[:16]}…, expected {expected[:16]}… as its "
            f"manifest says; nothing was staged. `python -m trainer.data inspect {source.parent}` "
            f"checks the whole dataset."
        )
