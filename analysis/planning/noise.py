"""The size of the noise that a grid is planned with: measured here, elsewhere, or published.

In this order: what the sweep itself has shown so far, what another sweep of the same recipe and
budget has shown in the same results, what was published for the recipe. A recipe of which nothing
is known has no noise, rather than a guess.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.models.block_model import blocked, fit_blocks
from analysis.planning.power import Kind
from analysis.rows.read import CELLS_FILE, is_scored, records
from analysis.stats.ranking import ranked_rows
from analysis.study import Study, read_study
from sweep.store.files import open_files
from trainer.config.config_errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The noise that a design is planned with, in BPB, and where its size is known from.

    ``noise_sd``: of one score after seed and activation are taken out, so that a paired difference
    has √2 times as much. ``noise_df``: degrees of freedom of that estimate, None where it was not
    estimated here. ``seed_sd``: of one activation's scores between seeds. ``tokens_per_byte``: of
    the scored text, None if unknown.
    """

    noise_sd: float
    seed_sd: float
    source: str
    noise_df: int | None = None
    tokens_per_byte: float | None = None

    def sd_for(self, kind: Kind) -> float:
        return self.seed_sd if kind == "unpaired" else self.noise_sd

    def bpb_of(self, nats: float) -> float | None:
        """So many nats per token in BPB.

        >>> noise = Noise(noise_sd=1, seed_sd=1, source="", tokens_per_byte=0.41)
        >>> round(noise.bpb_of(0.005), 5)
        0.00296
        """
        return None if self.tokens_per_byte is None else nats * self.tokens_per_byte / math.log(2)


# Paired: PR #1035, post-quant at 10,000 steps, three activations under seeds 1337, 42 and 2025. The
# sd of their differences is 0.0007, 0.0007 and 0.0004; the largest is planned with. A difference
# has √2 times the noise of a score. No other stack has published two activations under one seed.
# Between seeds: 0.0004 to 0.0011 where three seeds of one activation were published (PR #1035,
# #549, #1135, #1176); 0.0007 is what the field plans with. 0.005 nats per token are 0.00296 BPB in
# sp1024.
_PUBLISHED = Noise(
    noise_sd=0.0007 / math.sqrt(2),
    seed_sd=0.0007,
    source="published: paired sd 0.0007 in PR #1035 at 10,000 steps",
    tokens_per_byte=0.00296 / 0.005 * math.log(2),
)
PUBLISHED = dict.fromkeys(("pr1035", "pr549", "pr549-clean", "pr1176"), _PUBLISHED)

_SETTING = ["recipe", "budget_kind", "budget_value", "setting", "budget"]


def planning_noise(cells: pd.DataFrame, results: str | Path, sweep: str) -> dict[str, Noise | None]:
    """The noise to plan each setting of ``cells`` with: the sweep's own, another's, or published.

    Of several sweeps with the same recipe and budget, the one that knows it with the most degrees
    of freedom. A sweep in ``results`` that cannot be read or compared is passed over.
    """
    known = list(_measured(results))
    found: dict[str, Noise | None] = {}
    for row in records(cells[_SETTING].drop_duplicates()):
        alike = [one for one in known if all(one[1][name] == row[name] for name in _SETTING[:3])]
        own = [one for one in alike if (one[0], one[1]["setting"]) == (sweep, row["setting"])]
        best = max(own or alike, key=_certainty, default=None)
        found[row["setting"]] = best[2] if best else PUBLISHED.get(str(row["recipe"]))
    return found


def noise_of(study: Study, source: str) -> Noise | None:
    """The noise of one setting at the primary stage; None before two seeds have two activations."""
    scores = ranked_rows(study, study.primary, study.reference)
    if scores.empty:
        return None
    first = study.reference if study.reference in set(scores["key"]) else min(scores["key"])
    fit = fit_blocks(blocked(scores, first, study.blocking))
    if not fit.noise_sd:
        return None
    of_key = scores.groupby("key")["value"]
    left = scores["value"] - of_key.transform("mean")
    scored = study.cells[["val_tokens", "val_bytes"]][is_scored(study.cells)]
    ratio = (scored["val_tokens"] / scored["val_bytes"]).dropna()
    return Noise(
        noise_sd=fit.noise_sd,
        seed_sd=math.sqrt(float((left**2).sum()) / (len(scores) - of_key.ngroups)),
        source=source,
        noise_df=fit.noise_df,
        tokens_per_byte=float(ratio.mean()) if len(ratio) else None,
    )


def _certainty(one: tuple[str, dict[str, Any], Noise]) -> tuple[int, str, str]:
    name, facts, noise = one
    return noise.noise_df or 0, name, facts["setting"]


def _measured(results: str | Path) -> Iterator[tuple[str, dict[str, Any], Noise]]:
    """Each sweep and setting in ``results`` that shows its noise."""
    root = open_files(results)
    for name in root.folders():
        if not root.exists(f"{name}/{CELLS_FILE}"):
            continue
        try:
            for here in read_study(f"{str(results).rstrip('/')}/{name}").settings.values():
                noise = noise_of(here, f"measured in sweep {name}")
                if noise is not None:
                    yield name, records(here.cells[_SETTING])[0], noise
        except ConfigError:  # another sweep's fault is reported by the commands on that sweep
            continue
