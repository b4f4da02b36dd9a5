"""A healthy node with eight H100s, as the checks see it, to be spoiled by tests."""

from dataclasses import replace
from pathlib import Path

from sweep.messages import RequiredDataset, Requirements
from sweep.preflight.facts import Facts, gpus_of
from sweep.preflight.finding import Finding
from sweep.provenance import Software
from sweep.spec.sweep_file import NodeShape
from sweep.timing.nvml import Unreadable
from tests.support.gpus import GIB, h100s, scripted_nvml
from trainer.data.manifest import read_manifest

SOFTWARE = Software(python="3.11.7", torch="2.13.0+cu128", ray="2.60.0")
DATASET = RequiredDataset(
    data_dir="/data/fineweb",
    dataset="fineweb",
    vocab_size=1024,
    corpus_sha256="c" * 64,
    tokenizer_sha256="d" * 64,
    train_shards=None,
    cache=None,
    missing="refuse",
)


def requirements(*, gpus=8, gpu_model="H100", timed=True, **changes):
    asked = Requirements(
        shape=NodeShape(gpus=gpus, cpus=16, gpu_model=gpu_model if gpus else None),
        datasets=(DATASET,),
        trainer_hash="a" * 64,
        lockfile_hash="b" * 64,
        checkpoint_folder="/local/checkpoints",
        timed=timed,
        driver_software=SOFTWARE,
        sweep_hash="e" * 64,
        sent_at=1_000.0,
    )
    return replace(asked, **changes)


def node_facts(gpus=None, *, visible=None, library=None, **changes):
    """``gpus`` are ScriptedGpus; ``library`` changes the double of NVML itself."""
    nvml = scripted_nvml(h100s() if gpus is None else gpus, visible, **(library or {}))
    healthy = Facts(
        gpus=gpus_of(nvml, settle_s=0.0),
        gpu_files=8,
        xids=(),
        torch_cuda="12.8",
        settings={},
        interfaces=frozenset({"lo", "eth0"}),
        shm_bytes=8 * GIB,
        open_files=65536,
        locked_bytes=None,
        free_bytes={"/tmp": 100 * GIB, "/local/checkpoints": 100 * GIB},
        data={DATASET.data_dir: None},
        trainer_hash="a" * 64,
        sweep_hash="e" * 64,
        lockfile_hash="b" * 64,
        software=SOFTWARE,
        now_at=1_000.2,
        all_reduce=lambda ranks: Finding("pass", f"{ranks} ranks, 400 GB/s"),
    )
    return replace(healthy, **changes)


def required_dataset(folder: Path, **changes):
    """The dataset in ``folder``, as a node is asked for it."""
    manifest = read_manifest(folder)
    required = RequiredDataset(
        data_dir=str(folder),
        dataset=manifest.dataset,
        vocab_size=manifest.vocab_size,
        corpus_sha256=manifest.corpus_sha256,
        tokenizer_sha256=manifest.tokenizer_sha256,
        train_shards=1,
        cache=None,
        missing="refuse",
    )
    return replace(required, **changes)


def blind(reason="no driver", **changes):
    """The same without NVML."""
    return replace(node_facts(**changes), gpus=Unreadable(reason))
