"""Is the dataset of the export that is wanted here already? Answered without asking a server."""

from dataclasses import dataclass, replace
from pathlib import Path

from trainer.config.config_errors import ConfigError
from trainer.data.byte_audit import ensure_audited
from trainer.data.download.export import KNOWN, unknown
from trainer.data.manifest import MANIFEST_FILE, Dataset, Manifest, open_dataset, read_manifest


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A dataset in ``root`` for a model of ``vocab_size`` tokens.

    ``train_shards`` is the number of training shards that it is to have; None is as many as it has,
    or, where there is none yet, ``fetch.TRAIN_SHARDS``.
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


@dataclass(frozen=True)
class Here:
    """What stands in the folder: no manifest, one with all that it describes, or one without."""

    manifest: Manifest | None = None
    dataset: Dataset | None = None
    damage: str | None = None


def look(wanted: Wanted) -> Here:
    """What is here. ConfigError where it is in the way: no manifest, or for another model."""
    if not (wanted.directory / MANIFEST_FILE).exists():
        return Here()
    manifest = read_manifest(wanted.directory)
    try:
        dataset = open_dataset(wanted.directory, wanted.vocab_size, unaudited=True)
    except ConfigError as damage:
        if manifest.vocab_size != wanted.vocab_size:
            raise
        return Here(manifest, None, str(damage))
    if ensure_audited(wanted.directory):
        manifest = read_manifest(wanted.directory)
    return Here(manifest, replace(dataset, manifest=manifest))


def enough(wanted: Wanted, here: Here) -> Dataset | None:
    """The dataset if it is whole and has as many shards as it should; it may not have more."""
    asked, has = wanted.train_shards, 0 if here.manifest is None else len(here.manifest.train)
    if asked is not None and asked < has:
        raise ConfigError(
            f"--train-shards {asked}: {wanted.directory} has {has}, and results depend on them "
            f"all. Leave it out to use the dataset as it is, or fetch a smaller one into another "
            f"folder (--root, or DATA= with make)."
        )
    return here.dataset if asked is None or asked == has else None


def not_here(wanted: Wanted, here: Here) -> str:
    """Why it is not enough, and what helps, in a sentence."""
    if here.dataset is not None:
        found = f"it has {len(here.dataset.manifest.train)} training shards."
    elif wanted.dataset not in KNOWN and here.manifest is None:
        found = str(unknown(wanted.dataset, KNOWN))
    else:
        found = here.damage or "it has no manifest, so it was never fetched to its end."
    return (
        f"{wanted.directory} is not the dataset that is wanted: {found} Without --offline it is "
        f"fetched, and what is there already is kept. Shards that are all there are made a dataset "
        f"with `python -m trainer.data adopt {wanted.directory} --tokenizer FILE`."
    )
