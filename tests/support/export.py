"""A small FineWeb export, and what downloading it into a folder leaves there."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.tiny import VOCAB_SIZE, word_corpus
from trainer.data.building.prepare import build_dataset
from trainer.data.download import DownloadRequest, download
from trainer.data.manifest import Prepared, open_dataset
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


def request(root: Path, train_shards: int | None = None) -> DownloadRequest:
    return DownloadRequest(
        dataset=NAME, vocab_size=VOCAB_SIZE, root=root, train_shards=train_shards
    )


def fetch(root: Path, train_shards: int | None = None, *, offline: bool = False) -> Prepared:
    return download(request(root, train_shards), offline=offline)


def dataset_files(root: Path) -> dict[str, bytes]:
    """Every file of the dataset, by name."""
    return {path.name: path.read_bytes() for path in (root / NAME).glob("*")}


def damaged(content: bytes) -> bytes:
    """The same size, one bit in the middle changed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
