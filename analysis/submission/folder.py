"""Write the folder of a submission: whole or not at all, and over no other folder unasked."""

import json
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.models.interval import TInterval
from analysis.submission.claim import Claim, Run
from analysis.submission.readme import hardware_words, readme
from analysis.submission.rules import Finding, checked
from trainer.config.config_errors import ConfigError

SUBMISSION_FILE = "submission.json"


def write_submission(claim: Claim, out: Path | None, *, force: bool) -> tuple[Path, list[str]]:
    """Write the folder of ``claim``, by default in ``records/``; its path, and what to look at.

    A ConfigError where a rule refuses, or where the folder is there and ``force`` does not allow to
    replace it.
    """
    findings = checked(claim)
    name = re.sub(r"[^\w.+-]+", "_", claim.name)
    path = out or Path("records", f"track_{claim.about.track}", f"{claim.date}_{name}")
    _require_free(path, force=force)
    _write(path, contents(claim, findings))
    told = [(found.rule, found.sentence) for found in findings if found.sentence is not None]
    return path, [f"{rule.name}: {said} ({rule.asks}; {rule.source})" for rule, said in told]


def contents(claim: Claim, findings: list[Finding]) -> dict[str, str]:
    """The text of each file by its name in the folder."""
    first, *others = claim.runs
    files = dict(first.evidence.files)
    if any(run.evidence.files != first.evidence.files for run in others):
        for run in claim.runs:
            files |= {f"seed{run.seed}/{name}": text for name, text in run.evidence.files.items()}
    return files | {
        "README.md": readme(claim, findings),
        SUBMISSION_FILE: json.dumps(submission(claim), indent=2, ensure_ascii=False) + "\n",
        "requirements.txt": _requirements(claim),
        **{f"train_seed{run.seed}.log": run.evidence.log for run in claim.runs},
    }


def submission(claim: Claim) -> dict[str, Any]:
    """What ``submission.json`` says; null is what is not known."""
    about, score, sizes = claim.about, claim.score, [run.total_bytes for run in claim.runs]
    known = [size for size in sizes if size is not None]
    return {
        "author": about.author,
        "github_id": about.github_id,
        "name": claim.name,
        "blurb": about.blurb,
        "date": str(claim.date),
        "track": about.track,
        "val_bpb": score.mean,
        "val_bpb_std": score.sd,
        "val_loss": TInterval()(
            loss for run in claim.runs if (loss := _loss(claim, run)) is not None
        ).mean,
        "bytes_total": max(known) if len(known) == len(sizes) else None,
        "bytes_code": max(run.code_bytes for run in claim.runs),
        "seeds": [run.seed for run in claim.runs],
        "seed_results": {str(run.seed): _result(claim, run) for run in claim.runs},
        "hardware": hardware_words(claim),
    }


def _result(claim: Claim, run: Run) -> Mapping[str, Any]:
    row = run.row
    return {
        "val_bpb": row[claim.stage],
        "val_loss": _loss(claim, run),
        "artifact_bytes": run.total_bytes,
        "steps": row["steps"],
        "step_ms": row["step_ms_p50"],
        "train_s": row["train_s"],
        "eval_s": row["eval_s"],
    }


def _loss(claim: Claim, run: Run) -> float | None:
    """Nats per token of the claimed stage: printed, or by the ratio of another stage's."""
    printed = run.row.get(f"{claim.stage.removesuffix('_bpb')}_loss")
    if printed is not None:
        return float(printed)
    factor = claim.nats_per_bpb
    return None if factor is None else round(factor * float(run.row[claim.stage]), 5)


def _requirements(claim: Claim) -> str:
    """torch as it was; of other packages no version was recorded."""
    lines = [
        f"# Python {version}" for version in sorted({str(run.row["python"]) for run in claim.runs})
    ]
    torch = {str(run.row["torch"]) for run in claim.runs if run.row["torch"] is not None}
    others = sorted({n for run in claim.runs for n in run.evidence.imports} - {"torch"})
    # Of a local version such as 2.9.1+cu128 the index has 2.9.1.
    lines += [f"torch=={version.split('+')[0]}  # {version}" for version in sorted(torch)]
    lines += [f"# also imported, version not recorded: {', '.join(others)}"] if others else []
    return "\n".join(lines) + "\n"


def _require_free(path: Path, *, force: bool) -> None:
    if not path.exists():
        return
    if not force:
        raise ConfigError(
            f"{path} is there already. FORCE=1 (--force) replaces it; OUT= (--out) names another."
        )
    if not (path / SUBMISSION_FILE).is_file():
        raise ConfigError(
            f"{path} holds no {SUBMISSION_FILE}, so it is not replaced. --out names another folder."
        )


def _write(path: Path, files: Mapping[str, str]) -> None:
    """Under a hidden name first; what was there goes once the new folder is whole."""
    new, old = (path.with_name(f".{path.name}.{secrets.token_hex(4)}") for _ in range(2))
    try:
        for name, text in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_text(text, encoding="utf-8")
        if path.exists():
            path.rename(old)
        new.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be written ({error.strerror}).") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if old.exists() and not path.exists():
            old.rename(path)
