"""What does a person want to know of a dataset that has just been prepared?"""

from collections.abc import Sequence

from trainer.data.building.prepare import Prepared
from trainer.data.manifest import Shard


def summary(prepared: Prepared, elapsed_s: float) -> str:
    """What became of it, and what it holds; a line each."""
    manifest = prepared.dataset.manifest
    where = prepared.dataset.directory
    status = f"{where} {'was' if prepared.status != 'up to date' else 'is'} {prepared.status}"
    note = f"\n  note        {prepared.note}" if prepared.note else ""
    bytes_per_token = manifest.val_bytes / manifest.num_val_tokens
    return (
        f"{status} ({elapsed_s:.1f} s){note}\n"
        f"  text        {manifest.source}, corpus {manifest.corpus_sha256[:16]}\n"
        f"  train       {_count(manifest.train)}, {manifest.num_train_documents:,} documents, "
        f"{manifest.num_train_tokens:,} tokens, {manifest.train_bytes:,} bytes\n"
        f"  validation  {_count(manifest.validation)}, {manifest.num_val_documents:,} documents, "
        f"{manifest.num_val_tokens:,} tokens, {manifest.val_bytes:,} bytes, "
        f"{bytes_per_token:.3f} bytes per token"
    )


def _count(shards: Sequence[Shard]) -> str:
    return f"{len(shards)} shard{'' if len(shards) == 1 else 's'}"
