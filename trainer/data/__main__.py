"""Prepare, build, adopt, inspect and decode datasets from the command line.

python -m trainer.data prepare --recipe NAME-OR-PATH --root data [--set section.key=value]
    [--train-shards N] [--offline]
python -m trainer.data adopt DIR --tokenizer FILE [--dataset NAME]
python -m trainer.data build --text PATH ... --vocab-size N --out DIR
python -m trainer.data inspect DIR
python -m trainer.data decode DIR [--split val] [--start 0] [--count 200]
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from trainer.config import data_of, parse_override
from trainer.config.config_errors import ConfigError
from trainer.contract import EXIT_BAD_INPUT
from trainer.data.building.adopt import adopt
from trainer.data.building.build import VAL_FRACTION, TextBuild, build_from_text
from trainer.data.building.corpus import stdlib_corpus
from trainer.data.building.inspect import description, inspect_dataset, span_text
from trainer.data.building.prepare import check_stdlib, find_prepared, prepare_stdlib
from trainer.data.building.writer import SHARD_TOKENS
from trainer.data.download import TRAIN_SHARDS, DownloadRequest, download, is_export
from trainer.data.manifest import Prepared, Shard, read_manifest
from trainer.data.stage import StageRequest, stage

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
PROGRESS_EVERY_S = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """0 if it was done, 2 if it cannot be (standard error says why), 130 after Ctrl-C."""
    options = _parser().parse_args(argv)
    started_at_s = time.perf_counter()
    try:
        done: Prepared | str = options.run(options)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:
        print(f"{error}. Name a folder and files that can be used.", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("Interrupted. Run it again to go on.", file=sys.stderr)
        return EXIT_INTERRUPTED
    elapsed_s = time.perf_counter() - started_at_s
    print(_summary(done, elapsed_s) if isinstance(done, Prepared) else done)
    return 0


def _prepare(options: argparse.Namespace) -> Prepared:
    dataset, vocab_size = data_of(options.recipe, dict(map(parse_override, options.set)))
    root = options.root
    if is_export(dataset) and not options.rebuild:
        request = DownloadRequest(
            dataset=dataset, vocab_size=vocab_size, root=root, train_shards=options.train_shards
        )
        return download(request, offline=options.offline)
    if options.train_shards is not None:
        raise ConfigError(
            f"--train-shards is for datasets of the FineWeb export, such as fineweb10B_sp1024; the "
            f"recipe's is {dataset!r}. Leave it out."
        )
    if not options.rebuild and (prepared := find_prepared(dataset, vocab_size, root)):
        return prepared
    check_stdlib(dataset, root)
    return prepare_stdlib(dataset, vocab_size, root, stdlib_corpus(), rebuild=options.rebuild)


def _adopt(options: argparse.Namespace) -> Prepared:
    return adopt(options.directory, options.tokenizer, options.dataset)


def _build(options: argparse.Namespace) -> Prepared:
    values = _values_of(TextBuild, options)
    values["name"] = options.out.absolute().name if options.name is None else options.name
    return build_from_text(TextBuild(**values), ProgressLines())


def _inspect(options: argparse.Namespace) -> str:
    # Printed first: it helps to know what was meant when something turns out to be wrong.
    print(*description(read_manifest(options.directory)), sep="\n", flush=True)
    return "\n".join(inspect_dataset(options.directory))


def _decode(options: argparse.Namespace) -> str:
    return span_text(
        options.directory, options.split, options.start, options.count, pieces=options.pieces
    )


def _stage(options: argparse.Namespace) -> str:
    return str(stage(StageRequest(**_values_of(StageRequest, options))))


def _values_of(kind: type[TextBuild | StageRequest], options: argparse.Namespace) -> dict[str, Any]:
    """The options that are fields of ``kind``."""
    return {field.name: getattr(options, field.name) for field in fields(kind)}


class ProgressLines:
    """Prints how far a build has come, at most one line in ``PROGRESS_EVERY_S``."""

    def __init__(self) -> None:
        self._printed_at_s = time.monotonic()

    def __call__(self, what: str, num_documents: int, num_bytes: int) -> None:
        now_s = time.monotonic()
        if now_s - self._printed_at_s >= PROGRESS_EVERY_S:
            self._printed_at_s = now_s
            size = f"{num_bytes / 1e6:,.1f} MB"
            print(f"{what}: {num_documents:,} documents, {size}", file=sys.stderr, flush=True)


def _summary(prepared: Prepared, elapsed_s: float) -> str:
    """What became of a dataset, and what it holds; a line each."""
    manifest = prepared.dataset.manifest
    directory = prepared.dataset.directory
    status = f"{directory} {'was' if prepared.status != 'up to date' else 'is'} {prepared.status}"
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer.data")
    verbs = parser.add_subparsers(dest="command", required=True)

    def verb(
        name: str, run: Callable[[argparse.Namespace], Prepared | str], text: str
    ) -> Callable[..., argparse.Action]:
        added = verbs.add_parser(name, help=text)
        added.set_defaults(run=run)
        return added.add_argument

    add = verb("prepare", _prepare, "build or fetch a recipe's dataset if it is not there")
    add("--recipe", required=True, help="a name in configs/recipes, or a .toml")
    add("--root", type=Path, required=True, help="the folder of all datasets")
    set_help = "override the recipe"
    add("--set", action="append", default=[], metavar="section.key=value", help=set_help)
    add("--rebuild", action="store_true", help="replace a dataset that was built here")
    train_shards_help = (
        "how many training shards of the FineWeb export the dataset is to have (as many as it "
        f"has, or {TRAIN_SHARDS}); a larger number than before adds the others"
    )
    add("--train-shards", type=int, metavar="N", help=train_shards_help)
    add("--offline", action="store_true", help="fetch nothing: what is not there is an error")

    add = verb("adopt", _adopt, "make a dataset of shards that are there already, reading all")
    add("directory", type=Path, metavar="DIR", help="the folder of the shards")
    tokenizer_help = "the SentencePiece model that they were written with; it is copied beside them"
    add("--tokenizer", type=Path, required=True, metavar="FILE", help=tokenizer_help)
    add("--dataset", metavar="NAME", help="its name, if not that of the folder")

    add = verb("build", _build, "make a dataset of your own text: plain files, JSON lines, Parquet")
    text_help = (
        "files, or folders with .txt, .md, .jsonl and .parquet files in them. A plain file is one "
        "document; a line of .jsonl is one and has a field text; a row of .parquet is one and has "
        "a column text"
    )
    add("--text", type=Path, nargs="+", required=True, metavar="PATH", help=text_help)
    add("--out", type=Path, required=True, metavar="DIR", help="the new folder")
    vocab_help = "how many pieces to learn (at most 65536)"
    add("--vocab-size", type=int, metavar="N", help=vocab_help)
    model_help = "a SentencePiece model, to learn none"
    add("--tokenizer", type=Path, metavar="FILE", help=model_help)
    add("--name", help="what recipes call the dataset, if not the folder's name")
    fraction_help = f"the chance of a document to be for validation (default {VAL_FRACTION:g})"
    add("--val-fraction", type=float, default=VAL_FRACTION, metavar="F", help=fraction_help)
    add("--shard-tokens", type=int, default=SHARD_TOKENS, metavar="N")
    workers_help = "processes that cut text (default: every core)"
    add("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help=workers_help)
    rebuild_help = "replace a dataset of other text that is there"
    add("--rebuild", action="store_true", help=rebuild_help)

    add = verb("inspect", _inspect, "print what a dataset holds and check all of it, bytes too")
    add("directory", type=Path, metavar="DIR", help="the dataset's folder")

    add = verb("decode", _decode, "print a span of a dataset as text")
    add("directory", type=Path, metavar="DIR", help="the dataset's folder")
    add("--split", choices=("train", "val"), default="val")
    add("--start", type=int, default=0, metavar="N", help="the first token's number")
    add("--count", type=int, default=200, metavar="N", help="how many tokens")
    pieces_help = "show the pieces themselves, with bars between them"
    add("--pieces", action="store_true", help=pieces_help)

    add = verb("stage", _stage, "bring a cell's data to this node (for agents)")
    add("--data", type=Path, required=True, help="where the data lies elsewhere")
    add("--dataset", required=True)
    add("--vocab-size", type=int, required=True)
    add("--corpus", dest="corpus_sha256", required=True, metavar="SHA256")
    add("--tokenizer", dest="tokenizer_sha256", required=True, metavar="SHA256")
    add("--train-shards", type=int, metavar="N")
    add("--cache", type=Path, metavar="DIR", help="a folder on this node's disk")
    add("--missing", choices=("refuse", "fetch"), default="refuse")
    return parser


if __name__ == "__main__":
    status = main()
    if status == EXIT_INTERRUPTED:  # at once: an exit would wait for files that are on their way
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
