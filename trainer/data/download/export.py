"""What does the published FineWeb export hold, and which of its files make a dataset?

The repository has ``datasets/manifest.json``, the tokenizers in ``datasets/tokenizers`` and each
dataset's shards in ``datasets/datasets/NAME``. The manifest says which datasets there are and which
tokenizer each was written with, the server which files there are and what they hold.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from trainer.config.config_errors import ConfigError
from trainer.data.manifest import Manifest, Shard

if TYPE_CHECKING:  # the library behind it is only loaded where something is fetched
    from trainer.data.download.hub import Hub, RemoteFile

ROOT = "datasets"
MANIFEST_PATH = f"{ROOT}/manifest.json"
KNOWN = tuple(f"fineweb10B_sp{size}" for size in (512, 1024, 2048, 4096, 8192))

_DATASET = re.compile(r"fineweb10B_sp([0-9]+)")
_SHARD = re.compile(r"fineweb_(train|val)_([0-9]{6})\.bin")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_export(dataset: str) -> bool:
    """Whether ``dataset`` is named as the SentencePiece datasets of the export are."""
    return _DATASET.fullmatch(dataset) is not None


def unknown(dataset: str, known: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"data.dataset = {dataset!r}: the FineWeb export has no such dataset. It has "
        f"{', '.join(known)}."
    )


@dataclass(frozen=True, kw_only=True)
class Export:
    """The files of one dataset of the export, as they are in one revision of the repository."""

    dataset: str
    repository: str
    commit: str
    tokenizer: "RemoteFile"
    train: tuple["RemoteFile", ...]
    validation: tuple["RemoteFile", ...]
    num_val_tokens: int | None  # as the export's manifest counts them


def read_export(hub: "Hub", dataset: str) -> Export:
    """What the server says of ``dataset``; ConfigError if it is not there, or not all of it."""
    try:
        manifest_file = hub.find(MANIFEST_PATH)
        manifest = _parse(hub.read(manifest_file), hub.where)
    except ConfigError as error:
        if dataset in KNOWN:
            raise
        raise ConfigError(f"{unknown(dataset, KNOWN)} ({error})") from None
    entry = _find(dataset, manifest)
    commit, stats = manifest_file.commit, _mapping(entry.get("stats"))
    tokenizer = _mapping(_named(manifest, "tokenizers").get(str(entry.get("tokenizer_name"))))
    published = dict(_hashes(entry)) | dict(_hashes(tokenizer))
    files = [
        _with_hash(file, published)
        for file in hub.list_folder(f"{ROOT}/datasets/{dataset}", commit)
        if _SHARD.fullmatch(file.name)
    ]
    return Export(
        dataset=dataset,
        repository=hub.repository,
        commit=commit,
        tokenizer=_with_hash(hub.find(_tokenizer_path(dataset, tokenizer)), published),
        train=_numbered(files, "train", None, hub.where),
        validation=_numbered(files, "val", _count(stats.get("files_val")), hub.where),
        num_val_tokens=_count(stats.get("tokens_val")),
    )


def agreed(export: Export, manifest: Manifest) -> Export:
    """``export`` with the hashes of a manifest; ConfigError if that describes other files."""
    tokenizer = _agreed(export.tokenizer, manifest.tokenizer_sha256)
    validation = _agreed_shards(export.validation, manifest.validation)
    has = len(manifest.train)
    train = _agreed_shards(export.train[:has], manifest.train)
    if tokenizer is None or validation is None or train is None:
        raise ConfigError(
            f"the dataset {export.dataset} that is there is not what {export.repository} has now "
            f"(revision {export.commit[:12]}), and the two do not mix: results depend on every "
            f"shard. Move it away, or fetch into another folder (--root, or DATA= with make)."
        )
    train += export.train[has:]
    return replace(export, tokenizer=tokenizer, validation=validation, train=train)


def _agreed_shards(
    files: Sequence["RemoteFile"], shards: Sequence[Shard]
) -> tuple["RemoteFile", ...] | None:
    if [file.name for file in files] != [shard.name for shard in shards]:
        return None
    same = [_agreed(file, shard.sha256) for file, shard in zip(files, shards, strict=True)]
    return tuple(file for file in same if file is not None) if all(same) else None


def _agreed(file: "RemoteFile", sha256: str) -> "RemoteFile | None":
    if file.digest is not None and len(file.digest) == 64:
        return file if file.digest == sha256 else None
    return replace(file, digest=sha256)


def _parse(content: bytes, where: str) -> Mapping[str, Any]:
    try:
        manifest = json.loads(content)
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict):
        raise ConfigError(f"{MANIFEST_PATH} in {where} is no JSON object, so it lists no dataset.")
    return manifest


def _find(dataset: str, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    listed = {
        name: entry for name, entry in _named(manifest, "datasets").items() if is_export(name)
    }
    if dataset in listed:
        return listed[dataset]
    if listed or dataset not in KNOWN:
        raise unknown(dataset, sorted(listed, key=_size) or KNOWN)
    return {}


def _size(dataset: str) -> int:
    return int(dataset.rpartition("_sp")[2])


def _tokenizer_path(dataset: str, entry: Mapping[str, Any]) -> str:
    """Where the manifest says, or where the export puts it if the manifest does not."""
    given = entry.get("model_path") or entry.get("path")
    if not isinstance(given, str):
        return f"{ROOT}/tokenizers/fineweb_{_size(dataset)}_bpe.model"
    path = PurePosixPath(given)
    return f"{ROOT}/tokenizers/{path.name}" if path.is_absolute() else f"{ROOT}/{path}"


def _numbered(
    files: Sequence["RemoteFile"], split: str, expected: int | None, where: str
) -> tuple["RemoteFile", ...]:
    """The shards of a split, of which none may be missing before the last."""
    found = sorted((f for f in files if f.name.startswith(f"fineweb_{split}_")), key=_name)
    names = {file.name for file in found}
    wanted = [f"fineweb_{split}_{number:06d}.bin" for number in range(expected or len(found) or 1)]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ConfigError(
            f"{where} is not complete: {len(missing)} of {len(wanted)} {split} shards are missing, "
            f"{missing[0]} the first of them. Name another server with HF_ENDPOINT."
        )
    return tuple(found)


def _name(file: "RemoteFile") -> str:
    return file.name


def _with_hash(file: "RemoteFile", published: Mapping[str, str]) -> "RemoteFile":
    """``file``, to be checked against the manifest's hash where that has one."""
    given = published.get(file.name)
    if given is None or given == file.digest:
        return file
    if file.digest is not None and len(file.digest) == len(given):
        raise ConfigError(
            f"{file.path}: the export's manifest says that it is {given[:16]}…, and the server "
            f"that it is {file.digest[:16]}…. One of them is wrong; name another server with "
            f"HF_ENDPOINT, or ask those who published it."
        )
    return replace(file, digest=given)


def _hashes(value: object) -> Iterator[tuple[str, str]]:
    """File names and SHA-256 in an entry of the manifest, of which no form is agreed upon.

    Either ``{"…/NAME": HASH}``, or an object with a ``sha256`` and the file's name or path.
    """
    if isinstance(value, list):
        for each in value:
            yield from _hashes(each)
    if isinstance(value, dict):
        own = value.get("sha256")
        for key, each in value.items():
            yield from _hashes(each)
            yield from _pair(key, each)
            yield from _pair(each, own)


def _pair(file: object, sha256: object) -> Iterator[tuple[str, str]]:
    if isinstance(file, str) and isinstance(sha256, str) and _SHA256.fullmatch(sha256):
        path = PurePosixPath(file)
        if path.suffix in (".bin", ".model"):
            yield path.name, sha256


def _named(manifest: Mapping[str, Any], key: str) -> dict[str, Mapping[str, Any]]:
    """The entries of one of the manifest's lists, by their names."""
    listed = manifest.get(key)
    entries = [_mapping(entry) for entry in listed] if isinstance(listed, list) else []
    return {str(entry["name"]): entry for entry in entries if "name" in entry}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
