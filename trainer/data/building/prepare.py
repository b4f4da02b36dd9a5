"""Build the dataset of the text that every Python ships, unless it is there already.

A dataset that is there stays: results depend on it, and another Python ships another text.
"""

from pathlib import Path

from trainer.config.config_errors import ConfigError
from trainer.data.building.corpus import Corpus, is_stdlib_dataset
from trainer.data.building.writer import (
    SHARD_TOKENS,
    WriteOptions,
    build_folder,
    check_replaceable,
    install,
    write_dataset,
)
from trainer.data.byte_audit import open_audited
from trainer.data.manifest import MANIFEST_FILE, Dataset, Manifest, Prepared, open_dataset
from trainer.data.tokenizer import train_tokenizer


def prepare_stdlib(
    dataset: str, vocab_size: int, root: Path, corpus: Corpus, *, rebuild: bool = False
) -> Prepared:
    """Make ``root/dataset`` a whole dataset; build it only if it is not one, or on ``rebuild``."""
    target = root / dataset
    damage = None
    if target.exists() and not rebuild:
        try:
            existing = open_audited(target, hash_train=True)
        except ConfigError as error:
            damage = f"what was there could not be used: {error}"
        else:
            return _kept(existing, vocab_size, corpus)
    check_replaceable(target)
    with build_folder(target) as folder:
        build_dataset(folder, dataset, vocab_size, corpus)
        if not install(folder, target, replace=rebuild or damage is not None):
            other = open_audited(target, hash_train=True)  # another build was faster
            return _kept(other, vocab_size, corpus)
    return Prepared("built", open_dataset(target, vocab_size), damage)


def build_dataset(
    folder: Path,
    dataset: str,
    vocab_size: int,
    corpus: Corpus,
    *,
    shard_tokens: int = SHARD_TOKENS,
) -> Manifest:
    """Write the dataset of a corpus into ``folder``, with a tokenizer that is learnt from it.

    The same corpus gives the same files. ConfigError if a split is empty.
    """
    for name, documents in (("training", corpus.train), ("validation", corpus.validation)):
        if not documents:
            raise ConfigError(
                f"{corpus.source} leaves no document for {name}: a dataset needs both splits. "
                f"Use a larger corpus."
            )
    model = train_tokenizer((each.text for each in corpus.train), vocab_size)
    options = WriteOptions(
        name=dataset,
        source=corpus.source,
        contents=corpus.contents,
        shard_tokens=shard_tokens,
        lossless=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    return write_dataset(folder, corpus.documents(), model, options)


def check_stdlib(dataset: str, root: Path) -> None:
    """ConfigError unless ``dataset`` can be built from the standard library."""
    if not is_stdlib_dataset(dataset):
        raise ConfigError(
            f"dataset {dataset!r} cannot be built here. What can be: stdlib-NAME, such as "
            f"stdlib-1024, from the text that every Python ships (--set data.dataset=stdlib-1024). "
            f"The FineWeb export is fetched where it is not there yet; its datasets are called "
            f"fineweb10B_sp1024 and alike. Shards that were made elsewhere go into "
            f"{root / dataset}, and `python -m trainer.data adopt {root / dataset} --tokenizer "
            f"FILE` makes a dataset of them."
        )


def find_prepared(dataset: str, vocab_size: int, root: Path) -> Prepared | None:
    """The dataset of that name if it was made of other text or shards and is there.

    The content of its training shards (16 GB in the published export) is not read again: that is
    what adopting it once more does.
    """
    if is_stdlib_dataset(dataset) or not (root / dataset / MANIFEST_FILE).exists():
        return None
    return Prepared("up to date", open_audited(root / dataset, vocab_size), None)


def _kept(dataset: Dataset, vocab_size: int, corpus: Corpus) -> Prepared:
    """A whole dataset stays, whatever text it was built from; ConfigError if for another model."""
    manifest = dataset.manifest
    if manifest.vocab_size != vocab_size:
        raise ConfigError(
            f"{dataset.directory} was built with a vocabulary of {manifest.vocab_size}, and the "
            f"recipe's vocab_size is {vocab_size}. Give the other one its own name "
            f"(--set data.dataset=stdlib-{vocab_size}), or replace it with --rebuild."
        )
    if manifest.corpus_sha256 == corpus.sha256:
        return Prepared("up to date", dataset, None)
    note = (
        f"it was built from another text ({manifest.source}) than this one ({corpus.source}) and "
        f"stays, since results depend on it; --rebuild replaces it"
    )
    return Prepared("kept", dataset, note)
