"""How does a dataset of the published FineWeb export come here?

Shard by shard, several at once, each verified before it has its name; the manifest is written last,
so that an interrupted fetch is no dataset yet. What has come by then is kept.
"""

import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from trainer.config.config_errors import ConfigError
from trainer.data.building.prepare import Prepared
from trainer.data.byte_audit import audited
from trainer.data.download.export import Export, agreed, read_export
from trainer.data.download.wanted import Here, Wanted, enough, look, not_here
from trainer.data.download.workers import map_in_threads
from trainer.data.manifest import TOKENIZER_FILE, Dataset, Manifest, write_manifest
from trainer.data.shard_contents import Split, corpus_hash, describe, described_train
from trainer.data.token_bytes import ByteTable
from trainer.data.tokenizer import load_tokenizer
from trainer.files import file_sha256

if TYPE_CHECKING:  # a third of a second to import, and needed only where something is missing
    from trainer.data.download.hub import Hub, RemoteFile
    from trainer.data.download.transfer import Brought

TRAIN_SHARDS = 80  # what the published scripts fetch by default, of an export that may hold more
NUM_THREADS = 4


def fetch(wanted: Wanted, hub: "Hub | None" = None, *, offline: bool = False) -> Prepared:
    """Make ``wanted`` be here; where it is, no server is asked, and with ``offline`` never.

    ConfigError if it cannot be; what has come by then stays for the next time.
    """
    here = look(wanted)
    if (dataset := enough(wanted, here)) is not None:
        return Prepared("up to date", dataset, None)
    if offline:
        raise ConfigError(not_here(wanted, here))
    try:
        return _fetch(wanted, hub)
    except ConfigError as error:
        hint = (
            f"Shards that are elsewhere can be copied into {wanted.directory} and made a dataset "
            f"with `python -m trainer.data adopt {wanted.directory} --tokenizer FILE`."
        )
        damage = "" if here.damage is None else f"{here.damage}\n"
        raise ConfigError(f"{damage}{error}\n{hint}") from error


def _fetch(wanted: Wanted, hub: "Hub | None") -> Prepared:
    from trainer.data.download.hub import Hub
    from trainer.data.download.transfer import bring_tokenizer, workplace

    hub = hub or Hub()
    export = read_export(hub, wanted.dataset)
    with _alone(wanted):
        here = look(wanted)
        if (dataset := enough(wanted, here)) is not None:
            return Prepared("up to date", dataset, None)  # another fetch was faster
        plan = _plan(wanted, here, export)
        with workplace(wanted.directory):
            table = bring_tokenizer(hub, plan.tokenizer, wanted.directory, wanted.vocab_size)
            brought = _bring(wanted, hub, plan, table)
            manifest = _manifest(wanted, here, export, brought, table)
            write_manifest(wanted.directory, manifest)
    dataset = Dataset(wanted.directory, manifest, wanted.vocab_size)
    return Prepared("fetched", dataset, _note(export, manifest, brought))


@contextmanager
def _alone(wanted: Wanted) -> Iterator[None]:
    """Let no other process fetch into the folder; wait if one does.

    The lock lies beside the folder, and stays: one that is removed may be held by two.
    """
    wanted.root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(wanted.root / f".{wanted.dataset}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{wanted.directory}: waiting for another process that fetches.", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """The tokenizer, and the shards that must be looked at or fetched, validation first."""

    tokenizer: "RemoteFile"
    validation: tuple["RemoteFile", ...]
    train: tuple["RemoteFile", ...]

    @property
    def shards(self) -> "tuple[RemoteFile, ...]":
        return self.validation + self.train


def _plan(wanted: Wanted, here: Here, export: Export) -> _Plan:
    """Nothing of a dataset that is whole is looked at again, and all of one that is not."""
    has = 0 if here.manifest is None else len(here.manifest.train)
    if here.manifest is not None:
        export = agreed(export, here.manifest)
    count = wanted.train_shards or has or min(TRAIN_SHARDS, len(export.train))
    if count > len(export.train):
        raise ConfigError(
            f"--train-shards {count}: the export of {wanted.dataset} has {len(export.train)}."
        )
    whole = here.dataset is not None
    return _Plan(
        tokenizer=export.tokenizer,
        validation=() if whole else export.validation,
        train=export.train[has if whole else 0 : count],
    )


def _bring(
    wanted: Wanted, hub: "Hub", plan: _Plan, table: ByteTable
) -> "tuple[list[Brought], list[Brought]]":
    """Validation and training shards, all of which are there afterwards."""
    from trainer.data.download.hub import progress_bar
    from trainer.data.download.transfer import Transfer, missing_bytes

    missing = sum(missing_bytes(wanted.directory, file) for file in plan.shards)
    _require_room(wanted.directory, missing)
    stop = threading.Event()
    with progress_bar(wanted.dataset, missing) as on_bytes:
        transfer = Transfer(
            hub=hub, directory=wanted.directory, table=table, stop=stop, on_bytes=on_bytes
        )
        done = map_in_threads(transfer.bring, plan.shards, num_threads=NUM_THREADS, stop=stop)
    return done[: len(plan.validation)], done[len(plan.validation) :]


def _require_room(directory: Path, missing: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < missing:
        raise ConfigError(
            f"{directory}: {missing / 1e9:.1f} GB are still to come ({missing:,} bytes), and "
            f"{free / 1e9:.1f} GB ({free:,} bytes) are free there. Make room, fetch into another "
            f"folder (--root, or DATA= with make), or fetch less (--train-shards)."
        )


def _manifest(
    wanted: Wanted,
    here: Here,
    export: Export,
    brought: "tuple[Sequence[Brought], Sequence[Brought]]",
    table: ByteTable,
) -> Manifest:
    """That of what was there and what came; a manifest that was there is extended."""
    new_validation, new_train = ([each.contents for each in part] for part in brought)
    before = Split() if here.dataset is None else described_train(here.dataset)
    train = before.followed_by(new_train, table)
    source = (
        f"FineWeb export, {export.repository}, revision {export.commit[:12]}, "
        f"{len(train.shards)} of {len(export.train)} training shards"
    )
    if here.manifest is None:
        manifest = describe(
            wanted.dataset,
            vocab_size=wanted.vocab_size,
            tokenizer_sha256=file_sha256(wanted.directory / TOKENIZER_FILE),
            train=train,
            validation=Split().followed_by(new_validation, table),
            source=source,
        )
    elif here.manifest.train == train.shards:
        manifest = here.manifest  # what was damaged is as it was
    else:
        manifest = here.manifest.model_copy(
            update={
                "train": train.shards,
                "num_train_documents": train.num_documents,
                "train_bytes": train.num_bytes,
                "corpus_sha256": corpus_hash(train.shards, here.manifest.validation),
                "source": source,
            }
        )
    if here.dataset is not None:
        return manifest  # whose validation split is as it was
    val_paths = [wanted.directory / shard.name for shard in manifest.validation]
    return audited(manifest, val_paths, load_tokenizer(wanted.directory / TOKENIZER_FILE))


def _note(
    export: Export, manifest: Manifest, brought: "tuple[Sequence[Brought], Sequence[Brought]]"
) -> str | None:
    notes = [f"fetched again: {each.note}" for part in brought for each in part if each.note]
    expected = export.num_val_tokens
    if expected is not None and expected != manifest.num_val_tokens:
        notes.append(
            f"the export's manifest says that validation has {expected:,} tokens; its shards have "
            f"{manifest.num_val_tokens:,}"
        )
    return "; ".join(notes) or None
