"""Download a dataset of the published FineWeb export.

The repository has ``datasets/manifest.json``, the tokenizers in ``datasets/tokenizers`` and each
dataset's shards in ``datasets/datasets/NAME``. What a dataset lacks is fetched into a hidden folder
beside its place; what came before an interruption stays there for the next time. ``adopt`` then
reads and describes all of it, and it is moved into its place, the manifest last.
"""

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from trainer.config.config_errors import ConfigError
from trainer.data.building.adopt import adopt, check_tokenizer
from trainer.data.byte_audit import ensure_audited
from trainer.data.manifest import (
    MANIFEST_FILE,
    TOKENIZER_FILE,
    Dataset,
    Manifest,
    Prepared,
    open_dataset,
    read_manifest,
)
from trainer.data.tokenizer import load_tokenizer
from trainer.files import fsync_folder

if TYPE_CHECKING:  # the library behind it is only loaded where something is fetched
    from trainer.data.hub import Export

TRAIN_SHARDS = 80  # what the published scripts fetch by default, of an export that may hold more
KNOWN = tuple(f"fineweb10B_sp{size}" for size in (512, 1024, 2048, 4096, 8192))

_ROOT = "datasets"
_MANIFEST_PATH = f"{_ROOT}/manifest.json"
_DATASET = re.compile(r"fineweb10B_sp([0-9]+)")


def is_export(dataset: str) -> bool:
    """Whether ``dataset`` is named as the SentencePiece datasets of the export are."""
    return _DATASET.fullmatch(dataset) is not None


@dataclass(frozen=True, kw_only=True)
class DownloadRequest:
    """A dataset of the export in ``root``, for a model of ``vocab_size`` tokens.

    ``train_shards`` is the number of training shards that it is to have; None is as many as it has,
    or, where there is none yet, ``TRAIN_SHARDS``.
    """

    dataset: str
    vocab_size: int
    root: Path
    train_shards: int | None = None

    def __post_init__(self) -> None:
        if self.train_shards is not None and self.train_shards < 1:
            raise ConfigError(
                f"--train-shards {self.train_shards}: a dataset has 1 training shard or more."
            )

    @property
    def directory(self) -> Path:
        return self.root / self.dataset


def download(request: DownloadRequest, *, offline: bool = False) -> Prepared:
    """Make the dataset be here; where it is, no server is asked, and with ``offline`` never.

    ConfigError if it cannot be; what has come by then stays for the next time.
    """
    existing = _look(request)
    if (dataset := existing.as_requested(request)) is not None:
        return Prepared("up to date", dataset, None)
    try:
        if offline:
            raise ConfigError(_not_here(request, existing))
        return _download(request)
    except ConfigError as error:
        damage = f"{existing.damage}\n" if existing.damage and not offline else ""
        raise ConfigError(
            f"{damage}{error}\nShards that are elsewhere can be copied into {request.directory} "
            f"and made a dataset with `python -m trainer.data adopt {request.directory} "
            f"--tokenizer FILE`."
        ) from error


# -- what is here


@dataclass(frozen=True)
class _Existing:
    """What stands in the folder: no manifest, one with all that it describes, or one without."""

    manifest: Manifest | None = None
    dataset: Dataset | None = None
    damage: str | None = None

    @property
    def num_train(self) -> int:
        return 0 if self.manifest is None else len(self.manifest.train)

    def as_requested(self, request: DownloadRequest) -> Dataset | None:
        """The dataset if it is whole and has as many shards as it should; it may not have more."""
        asked, has = request.train_shards, self.num_train
        if asked is not None and asked < has:
            raise ConfigError(
                f"--train-shards {asked}: {request.directory} has {has}, and results depend on "
                f"them all. Leave it out to use the dataset as it is, or fetch a smaller one into "
                f"another folder (--root, or DATA= with make)."
            )
        return self.dataset if asked is None or asked == has else None


def _look(request: DownloadRequest) -> _Existing:
    """What is here. ConfigError where it is in the way: no manifest, or for another model."""
    if not (request.directory / MANIFEST_FILE).exists():
        return _Existing()
    manifest = read_manifest(request.directory)
    try:
        dataset = open_dataset(request.directory, request.vocab_size, unaudited=True)
    except ConfigError as error:
        if manifest.vocab_size != request.vocab_size:
            raise
        return _Existing(manifest, None, str(error))
    if ensure_audited(request.directory):
        manifest = read_manifest(request.directory)
    return _Existing(manifest, replace(dataset, manifest=manifest))


def _not_here(request: DownloadRequest, existing: _Existing) -> str:
    """Why what is here is not enough, and what helps."""
    if existing.dataset is not None:
        found = f"it has {existing.num_train} training shards."
    elif request.dataset not in KNOWN and existing.manifest is None:
        found = str(_unknown(request.dataset, KNOWN))
    else:
        found = existing.damage or "it has no manifest, so it was never fetched to its end."
    return (
        f"{request.directory} is not the dataset that the recipe needs: {found} Without --offline "
        f"it is fetched, and what is there already is kept."
    )


def _unknown(dataset: str, known: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"data.dataset = {dataset!r}: the FineWeb export has no such dataset. It has "
        f"{', '.join(known)}."
    )


# -- what is fetched


def _download(request: DownloadRequest) -> Prepared:
    from trainer.data.hub import REPO, fetch

    export = _list_export(request.dataset)
    with _only_process(request):
        existing = _look(request)
        if (dataset := existing.as_requested(request)) is not None:
            return Prepared("up to date", dataset, None)  # another process was faster
        target = request.directory.resolve()
        download_dir = target.with_name(f".{target.name}.download")
        entry = _fetch_entry(export, request.dataset, download_dir)
        tokenizer = _fetch_tokenizer(export, entry, request, download_dir)
        train = _shards(export, request.dataset, "train")
        chosen = _first_shards(train, request, existing)
        stats = entry.get("stats", {})
        shards = _shards(export, request.dataset, "val", at_least=stats.get("files_val", 1))
        shards += chosen
        _link_existing(target, download_dir, shards)
        fetch(export, shards, download_dir)
        folder = (download_dir / shards[0]).parent
        _remove_others(folder, shards)
        source = (
            f"FineWeb export, {REPO}, revision {export.commit[:12]}, "
            f"{len(chosen)} of {len(train)} training shards"
        )
        manifest = adopt(folder, tokenizer, request.dataset, source=source).dataset.manifest
        _check_same_content(existing.manifest, manifest)
        _install(folder, target)
        shutil.rmtree(download_dir, ignore_errors=True)
    dataset = Dataset(request.directory, manifest, request.vocab_size)
    return Prepared("fetched", dataset, _note(manifest, stats.get("tokens_val")))


@contextlib.contextmanager
def _only_process(request: DownloadRequest) -> Iterator[None]:
    """Let no other process fetch into the folder; wait if one does.

    The lock lies beside the folder, and stays: one that is removed may be held by two.
    """
    request.root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(request.root / f".{request.dataset}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{request.directory}: waiting for another process that fetches.", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _list_export(dataset: str) -> "Export":
    """What the server has; ConfigError if it has no such dataset."""
    from trainer.data.hub import list_export

    try:
        export = list_export()
    except ConfigError as error:
        if dataset in KNOWN:
            raise
        raise ConfigError(f"{_unknown(dataset, KNOWN)} ({error})") from None
    folders = {PurePosixPath(path).parent for path in export.files}
    listed = {each.name for each in folders if each.parent == PurePosixPath(_ROOT, "datasets")}
    if dataset not in listed:
        raise _unknown(dataset, sorted(filter(is_export, listed), key=_vocab_size) or KNOWN)
    return export


def _fetch_entry(export: "Export", dataset: str, download_dir: Path) -> dict[str, Any]:
    """What the export's own manifest says of the dataset, its ``tokenizer``'s entry included.

    Nothing where it does not name them.
    """
    from trainer.data.hub import fetch

    fetch(export, [_MANIFEST_PATH], download_dir)
    try:
        manifest = json.loads((download_dir / _MANIFEST_PATH).read_bytes())
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict):
        raise ConfigError(f"the export's {_MANIFEST_PATH} is no JSON object, so nothing is known.")

    def named(key: str, name: object) -> dict[str, Any]:
        return next((each for each in manifest.get(key, ()) if each.get("name") == name), {})

    entry = named("datasets", dataset)
    return entry | {"tokenizer": named("tokenizers", entry.get("tokenizer_name"))}


def _fetch_tokenizer(
    export: "Export", entry: Mapping[str, Any], request: DownloadRequest, download_dir: Path
) -> Path:
    """Where the tokenizer is now; ConfigError if it is for another model."""
    from trainer.data.hub import fetch

    default = f"fineweb_{_vocab_size(request.dataset)}_bpe.model"
    stated = entry["tokenizer"].get("model_path") or entry["tokenizer"].get("path") or default
    path = f"{_ROOT}/tokenizers/{PurePosixPath(stated).name}"
    fetch(export, [path], download_dir)
    processor = load_tokenizer(download_dir / path)
    check_tokenizer(processor, download_dir / path)
    if processor.vocab_size() != request.vocab_size:
        raise ConfigError(
            f"{path} has {processor.vocab_size()} pieces, and the recipe's model.vocab_size is "
            f"{request.vocab_size}: nothing was fetched. Set model.vocab_size = "
            f"{processor.vocab_size()}, or name another data.dataset."
        )
    return download_dir / path


def _shards(export: "Export", dataset: str, split: str, at_least: int = 1) -> list[str]:
    """The paths of ``train`` or ``val`` shards, of which none may be missing before the last."""
    prefix = f"{_ROOT}/datasets/{dataset}/fineweb_{split}_"
    found = [path for path in export.files if re.fullmatch(rf"{prefix}[0-9]{{6}}\.bin", path)]
    paths = [f"{prefix}{number:06d}.bin" for number in range(max(len(found), at_least))]
    export.require(paths)
    return paths


def _first_shards(train: list[str], request: DownloadRequest, existing: _Existing) -> list[str]:
    """The training shards that the dataset is to have."""
    count = request.train_shards or existing.num_train or min(TRAIN_SHARDS, len(train))
    if count > len(train):
        raise ConfigError(
            f"--train-shards {count}: the export of {request.dataset} has {len(train)}."
        )
    return train[:count]


def _vocab_size(dataset: str) -> int:
    return int(dataset.rpartition("_sp")[2])


def _note(manifest: Manifest, stated: int | None) -> str | None:
    if stated in (None, manifest.num_val_tokens):
        return None
    return (
        f"the export's manifest says that validation has {stated:,} tokens; its shards have "
        f"{manifest.num_val_tokens:,}"
    )


# -- between the dataset's place and the download


def _link_existing(target: Path, download_dir: Path, shards: Sequence[str]) -> None:
    """Put the shards that are here already where the library finds and checks them."""
    for shard in shards:
        here, link = target / PurePosixPath(shard).name, download_dir / shard
        if here.exists() and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(here, link)
            except OSError:  # another file system, or one without links
                shutil.copyfile(here, link)


def _remove_others(folder: Path, shards: Sequence[str]) -> None:
    """Leave only the shards in the folder: no more of an earlier run, and no manifest of fewer."""
    kept = {PurePosixPath(shard).name for shard in shards}
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()


def _check_same_content(existing: Manifest | None, new: Manifest) -> None:
    """ConfigError if the shards that a dataset had are not those that came for it."""
    if existing is None:
        return
    same = (
        existing.tokenizer_sha256 == new.tokenizer_sha256
        and existing.validation == new.validation
        and existing.train == new.train[: len(existing.train)]
    )
    if not same:
        raise ConfigError(
            f"the dataset {existing.dataset} that is there is not what the export has now, and the "
            f"two do not mix: results depend on every shard. Move it away, or fetch into another "
            f"folder (--root, or DATA= with make)."
        )


def _install(folder: Path, target: Path) -> None:
    """Move the files into the dataset's place, the manifest last: until then it is what it was."""
    target.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in folder.iterdir()} - {TOKENIZER_FILE, MANIFEST_FILE}
    for name in (*sorted(names), TOKENIZER_FILE, MANIFEST_FILE):
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
        (folder / name).replace(target / name)
    fsync_folder(target)
