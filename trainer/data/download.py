"""Download a dataset of the published FineWeb export.

The repository has ``datasets/manifest.json``, the tokenizers in ``datasets/tokenizers`` and each
dataset's shards in ``datasets/datasets/NAME``. What a dataset lacks is fetched into a hidden folder
beside its place; what came before an interruption stays there for the next time. ``adopt`` then
reads and describes all of it, and it is moved into its place, the manifest last.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from filelock import BaseFileLock, FileLock, Timeout

from trainer.config.config_errors import ConfigError
from trainer.data.building.adopt import adopt, check_tokenizer
from trainer.data.byte_audit import open_audited
from trainer.data.checks.probes import EXPORT_NAME
from trainer.data.manifest import (
    MANIFEST_FILE,
    TOKENIZER_FILE,
    Dataset,
    Manifest,
    Prepared,
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


def is_export(dataset: str) -> bool:
    """Whether ``dataset`` is named as the SentencePiece datasets of the export are."""
    return EXPORT_NAME.fullmatch(dataset) is not None


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
    existing, lack = _look(request)
    if existing is not None and lack is None:
        return Prepared("up to date", existing, None)
    try:
        if offline:
            if existing is None and request.dataset not in KNOWN:
                lack = str(_unknown(request.dataset, KNOWN))
            raise ConfigError(
                f"{request.directory} is not the dataset that the recipe needs: {lack} Without "
                f"--offline it is fetched, and what is there already is kept."
            )
        return _download(request)
    except ConfigError as error:
        damage = f"{lack}\n" if existing is not None and not offline else ""
        raise ConfigError(
            f"{damage}{error}\nShards that are elsewhere can be copied into {request.directory} "
            f"and made a dataset with `python -m trainer.data adopt {request.directory} "
            f"--tokenizer FILE`."
        ) from error


def _look(request: DownloadRequest) -> tuple[Dataset | None, str | None]:
    """What is here, if it has a manifest, and what it lacks to be what is asked for.

    ConfigError where it is in the way: no manifest, for another model, or of more shards.
    """
    if not (request.directory / MANIFEST_FILE).exists():
        return None, "it has no manifest, so it was never fetched to its end."
    manifest = read_manifest(request.directory)
    asked, has = request.train_shards, len(manifest.train)
    if asked is not None and asked < has:
        raise ConfigError(
            f"--train-shards {asked}: {request.directory} has {has}, and results depend on "
            f"them all. Leave it out to use the dataset as it is, or fetch a smaller one into "
            f"another folder (--root, or DATA= with make)."
        )
    try:
        dataset = open_audited(request.directory, request.vocab_size)
    except ConfigError as error:
        if manifest.vocab_size != request.vocab_size:
            raise
        return Dataset(request.directory, manifest, request.vocab_size), str(error)
    return dataset, None if asked in (None, has) else f"it has {has} training shards."


def _unknown(dataset: str, known: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"data.dataset = {dataset!r}: the FineWeb export has no such dataset. It has "
        f"{', '.join(known)}."
    )


def _download(request: DownloadRequest) -> Prepared:
    from trainer.data.hub import REPO, fetch

    export = _list_export(request.dataset)
    with _lock(request):
        existing, lack = _look(request)
        if existing is not None and lack is None:
            return Prepared("up to date", existing, None)  # another process was faster
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
        if existing is not None:
            _check_same_content(existing.manifest, manifest)
        _install(folder, target)
        shutil.rmtree(download_dir, ignore_errors=True)
    dataset = Dataset(request.directory, manifest, request.vocab_size)
    return Prepared("fetched", dataset, _note(manifest, stats.get("tokens_val")))


def _lock(request: DownloadRequest) -> AbstractContextManager[BaseFileLock]:
    """Held by the one process that fetches into the folder; the others wait here.

    The lock lies beside the folder, and stays: one that is removed may be held by two.
    """
    request.root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(request.root / f".{request.dataset}.lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print(f"{request.directory}: waiting for another process that fetches.", file=sys.stderr)
        return lock.acquire()


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
            f"{path} has {processor.vocab_size()} pieces, and the recipe's vocab_size is "
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


def _first_shards(
    train: list[str], request: DownloadRequest, existing: Dataset | None
) -> list[str]:
    """The training shards that the dataset is to have."""
    default = min(TRAIN_SHARDS, len(train)) if existing is None else len(existing.manifest.train)
    count = request.train_shards or default
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


def _check_same_content(existing: Manifest, new: Manifest) -> None:
    """ConfigError if the shards that a dataset had are not those that came for it."""
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
