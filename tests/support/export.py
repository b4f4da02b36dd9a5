"""A small FineWeb export, and what fetching it into a folder leaves there."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.tiny import VOCAB_SIZE, word_corpus
from trainer.data.building.prepare import Prepared, build_dataset
from trainer.data.download.fetch import fetch
from trainer.data.download.hub import Hub
from trainer.data.download.wanted import Wanted
from trainer.data.manifest import open_dataset
from trainer.data.shards import load_stream, write_shard

NAME = "fineweb10B_sp512"
FOLDER = f"datasets/datasets/{NAME}"
TOKENIZER = "datasets/tokenizers/fineweb_512_bpe.model"
MANIFEST = "datasets/manifest.json"
NUM_TRAIN, NUM_VAL = 4, 2
FIRST = "fineweb_train_000000.bin"


def published_files(folder: Path) -> dict[str, bytes]:
    """The files of the export, by their paths in the repository."""
    build_dataset(folder / "stdlib-512", "stdlib-512", VOCAB_SIZE, word_corpus())
    built = open_dataset(folder / "stdlib-512", VOCAB_SIZE)
    files = {TOKENIZER: built.tokenizer_path.read_bytes(), f"{FOLDER}/README.md": b"not a shard"}
    splits = (("train", built.train_paths, NUM_TRAIN), ("val", built.val_paths, NUM_VAL))
    for split, paths, num_shards in splits:
        for index, part in enumerate(np.array_split(load_stream(paths), num_shards)):
            name = f"fineweb_{split}_{index:06d}.bin"
            files[f"{FOLDER}/{name}"] = shard_bytes(folder / name, part)
    stats = {"files_train": NUM_TRAIN, "files_val": NUM_VAL}
    stats["tokens_val"] = built.manifest.num_val_tokens
    entry = {"name": NAME, "tokenizer_name": "sp_bpe_512", "stats": stats}
    other = {"name": "fineweb10B_byte260", "tokenizer_name": "pure_byte_260"}
    tokenizer = {"name": "sp_bpe_512", "model_path": "tokenizers/fineweb_512_bpe.model"}
    manifest = {"version": "10B", "datasets": [other, entry], "tokenizers": [tokenizer]}
    return files | {MANIFEST: json.dumps(manifest).encode()}


def shard_bytes(path: Path, tokens_N: Any) -> bytes:
    write_shard(path, tokens_N)
    return path.read_bytes()


def fetch_from(
    endpoint: str, root: Path, train_shards: int | None = None, *, offline: bool = False
) -> Prepared:
    wanted = Wanted(dataset=NAME, vocab_size=VOCAB_SIZE, root=root, train_shards=train_shards)
    return fetch(wanted, Hub(endpoint), offline=offline)


def contents(root: Path) -> dict[str, bytes]:
    """Every file of the dataset, those on the way to it included, by name."""
    files = (path for path in (root / NAME).rglob("*") if path.is_file())
    return {path.relative_to(root / NAME).as_posix(): path.read_bytes() for path in files}


def assert_nothing_looks_whole(files: dict[str, bytes], root: Path) -> None:
    """Under a final name there is only what was published, and no manifest yet."""
    found = contents(root)
    assert "manifest.json" not in found
    for name, content in found.items():
        if not name.startswith(".fetch/") and name != "tokenizer.model":
            assert content == files[f"{FOLDER}/{name}"], name


def damaged(content: bytes) -> bytes:
    """The same size, one bit in the middle changed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
