"""Which pictures does a sweep deserve, and which of them can be drawn from what it left?

One set of figures per setting: budgets change the scores more than slopes do, so two budgets on
one axis would flatten both. The same cells give the same bytes: no date, no version, no random
identifier. A figure whose input is absent is not drawn, and the reason is told.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.captions import DPI, WIDTH_IN
from analysis.figures.composition import mechanism, scores, training
from analysis.figures.inputs import Given, given
from analysis.rows.read import Sweep, is_scored, succeeded
from analysis.stats.quantization import with_deltas
from analysis.study import Study, read_study
from sweep.store.files import open_files
from trainer.config.config_errors import ConfigError

__all__ = ["DPI", "FIGURES", "STYLE", "WIDTH_IN", "Picture", "draw", "save_figures", "why_not"]

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-6, 7),
    "svg.hashsalt": "activation-sweep",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One figure: what it is called, how it is drawn, and what it takes to draw it.

    ``needs`` and ``uses`` are fields of ``Given``: without the first it is not drawn, the second
    add to it. ``lacks`` says why the cells themselves do not suffice; None where they do.
    """

    title: str
    compose: Callable[[pd.DataFrame, Sweep, Given], Figure]
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    lacks: Callable[[pd.DataFrame, Given], str | None] = lambda cells, known: None


def _unscored(cells: pd.DataFrame, known: Given, *, name: str) -> str | None:
    found = with_deltas(cells)[name]
    return None if found[is_scored(cells)].notna().any() else "no cell has both scores"


def _nothing_learned(cells: pd.DataFrame, known: Given) -> str | None:
    told = known.layers is not None and training.learning_keys(cells, known.layers)
    return None if told else "no activation here learns its β"


def _untimed(cells: pd.DataFrame, known: Given) -> str | None:
    timed = cells.loc[is_scored(cells), "step_ms_p50"].notna().any()
    return None if timed else "no cell has a step time"


FIGURES: dict[str, Picture] = {
    "slope_bpb": Picture(
        title="Bits per byte over the negative slope, by stage",
        compose=scores.slope_bpb,
        uses=("slope_curve", "published"),
    ),
    "slope_curve": Picture(
        title="The best slope, and which slopes may be it",
        compose=scores.slope_curve,
        needs=("slope_curve",),
    ),
    "differences": Picture(
        title="Paired differences from the reference",
        compose=scores.differences,
        needs=("contrasts",),
        uses=("paired",),
    ),
    "quant_delta": Picture(
        title="Quantization delta over the negative slope",
        compose=partial(scores.delta, name="quant_delta"),
    ),
    "ttt_gain": Picture(
        title="Gain by test-time training over the negative slope",
        compose=partial(scores.delta, name="ttt_gain"),
        lacks=partial(_unscored, name="ttt_gain"),
    ),
    "slot_gain": Picture(
        title="Gain by SLOT over the negative slope",
        compose=partial(scores.delta, name="slot_gain"),
        lacks=partial(_unscored, name="slot_gain"),
    ),
    "artifact_bytes": Picture(
        title="Size of the artifact over the negative slope", compose=scores.artifact_bytes
    ),
    "learning_curves": Picture(
        title="Learning curves", compose=training.learning_curves, needs=("curves",)
    ),
    "pace": Picture(
        title="Steps reached and time of a step", compose=training.training_pace, lacks=_untimed
    ),
    "beta_by_layer": Picture(
        title="What β became, by layer",
        compose=training.beta_by_layer,
        needs=("layers",),
        lacks=_nothing_learned,
    ),
    "power": Picture(
        title="Smallest effect that so many seeds resolve",
        compose=scores.resolution,
        needs=("power",),
    ),
    "mechanism": Picture(
        title="Density, weights and codes over the negative slope",
        compose=mechanism.mechanism,
        needs=("layers",),
    ),
    "mechanism_delta": Picture(
        title="Quantization delta against density and quantization error",
        compose=mechanism.mechanism_delta,
        needs=("layers",),
    ),
    "mechanism_layers": Picture(
        title="Density, weights and codes by layer",
        compose=mechanism.mechanism_layers,
        needs=("layers",),
    ),
}


def draw(name: str, study: Study, known: Given | None = None) -> Figure:
    """The figure ``name`` of one setting; a ConfigError where its input is absent.

    Without ``known``, what the figure takes is computed (``inputs.given``).
    """
    picture = FIGURES[name]
    if known is None:
        known = given(study, [*picture.needs, *picture.uses])
    reason = why_not(name, study.cells, known)
    if reason is not None:
        raise ConfigError(f"{name} cannot be drawn: {reason}.")
    with mpl.rc_context(STYLE):
        return picture.compose(study.cells, study.sweep, known)


def why_not(name: str, cells: pd.DataFrame, known: Given) -> str | None:
    """Why the figure ``name`` cannot be drawn of these cells; None where it can."""
    return known.lacks(FIGURES[name].needs) or FIGURES[name].lacks(cells, known)


def save_figures(
    place: str | Path, *, tell: Callable[[str], object] = lambda line: None
) -> list[str]:
    """Write every figure of the sweep in ``place`` as PNG and SVG; the paths written.

    ``tell`` gets a line for each figure that is not drawn.
    """
    study = read_study(place)
    succeeded(study.cells)
    files, settings, names = open_files(place), study.settings, []
    wanted = [name for picture in FIGURES.values() for name in (*picture.needs, *picture.uses)]
    for setting, here in settings.items():
        known = given(here, wanted)
        for name in FIGURES:
            stem = name if len(settings) == 1 else f"{name}--{slug(setting)}"
            reason = why_not(name, here.cells, known)
            if reason is not None:
                tell(f"{stem}: {reason}")
                continue
            for kind, data in _encoded(draw(name, here, known)).items():
                names.append(f"figures/{stem}.{kind}")
                files.replace(names[-1], data)
    return [files.where(name) for name in names]


def slug(setting: str) -> str:
    """
    >>> slug("local, 200 steps, optim.lr = 0.02")
    'local-200-steps-optim.lr-0.02'
    """
    return re.sub(r"[^\w.]+", "-", setting).strip("-")


def _encoded(figure: Figure) -> dict[str, bytes]:
    """The figure as files, by the ending of their names."""
    png, svg = io.BytesIO(), io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return {"png": png.getvalue(), "svg": svg.getvalue()}
