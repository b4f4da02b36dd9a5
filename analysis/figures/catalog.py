"""Every figure of a sweep by its name: draw one, or save all of them as PNG and SVG.

One set of figures per setting: budgets change the scores more than slopes do, so two budgets on
one axis would flatten both. The same cells give the same bytes: no date, no version, no random
identifier. A figure whose input is absent is not drawn, and the reason is told.
"""

import io
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from analysis.figures import (
    beta,
    forest,
    layer_measures,
    learning_curves,
    power,
    scores,
    slope_curve,
    speed,
)
from analysis.figures.captions import DPI, take_caption
from analysis.figures.figure_data import FigureData
from analysis.rows.read import succeeded
from analysis.study import Study
from sweep.store.files import open_files
from trainer.config.config_errors import ConfigError

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
    "text.parse_math": False,  # a name may have dollars
}


class FigureKind(NamedTuple):
    """One figure: its title, and what composes it or raises a ConfigError that says why not."""

    title: str
    compose: Callable[[FigureData], Figure]


FIGURES = {
    "slope_bpb": FigureKind("Bits per byte over the negative slope, by stage", scores.bpb_by_slope),
    "slope_curve": FigureKind("The best slope, and which slopes may be it", slope_curve.best_slope),
    "differences": FigureKind("Paired differences from the reference", forest.differences),
    **{
        name: FigureKind(f"{title} over the negative slope", partial(scores.delta, name=name))
        for name, title in (
            ("quant_delta", "Quantization delta"),
            ("ttt_gain", "Gain by test-time training"),
            ("slot_gain", "Gain by SLOT"),
        )
    },
    "artifact_bytes": FigureKind(
        "Size of the artifact over the negative slope", scores.artifact_bytes
    ),
    "learning_curves": FigureKind("Learning curves", learning_curves.learning_curves),
    "pace": FigureKind("Steps reached and time of a step", speed.speed),
    "beta_by_layer": FigureKind("What β became, by layer", beta.beta_by_layer),
    "power": FigureKind("Smallest effect that so many seeds resolve", power.resolution),
    "mechanism": FigureKind(
        "Density, weights and codes over the negative slope", layer_measures.by_slope
    ),
    "mechanism_delta": FigureKind(
        "Quantization delta against density and quantization error", layer_measures.against_delta
    ),
    "mechanism_layers": FigureKind("Density, weights and codes by layer", layer_measures.by_layer),
}


def draw(name: str, data: FigureData) -> Figure:
    """The figure ``name`` of one setting; a ConfigError says why it cannot be drawn."""
    with mpl.rc_context(STYLE):
        return FIGURES[name].compose(data)


def draw_or_reason(name: str, data: FigureData) -> Figure | str:
    """The figure ``name``, or its name and why it cannot be drawn."""
    try:
        return draw(name, data)
    except ConfigError as error:
        return f"{name}: {error}"


def save_figures(
    study: Study,
    *,
    tell: Callable[[str], object] = lambda line: None,
    known: Mapping[str, FigureData] | None = None,
) -> list[str]:
    """Write every figure of ``study`` as PNG and SVG beside its rows; the paths written.

    ``tell`` gets a line for each figure that is not drawn. ``known``: what is drawn, by setting,
    where it has been read already; it keeps each figure for a page.
    """
    for_page = known is not None
    if known is None:
        succeeded(study.cells)
        known = {setting: FigureData(one) for setting, one in study.settings.items()}
    files, names = open_files(study.place_of("figure")), []
    for setting, data in known.items():
        ending = "" if len(known) == 1 else f"--{slug(setting)}"
        for name in FIGURES:
            figure = draw_or_reason(name, data)
            if isinstance(figure, str):
                tell(figure.replace(name, f"{name}{ending}", 1))
                continue
            svg = as_svg(figure)
            for kind, content in (("png", as_png(figure)), ("svg", svg)):
                names.append(f"figures/{name}{ending}.{kind}")
                files.replace(names[-1], content)
            if for_page:
                data.on_page[name] = take_caption(figure, svg)
    return [files.where(name) for name in names]


def slug(setting: str) -> str:
    """
    >>> slug("local, 200 steps, optim.lr = 0.02")
    'local-200-steps-optim.lr-0.02'
    """
    return re.sub(r"[^\w.]+", "-", setting).strip("-")


def as_svg(figure: Figure) -> bytes:
    """The figure as SVG without a date."""
    _lay_out(figure)
    return _encoded(FigureCanvasSVG(figure).print_svg, {"Date": None, "Creator": None})


def as_png(figure: Figure) -> bytes:
    """The figure as PNG without a version."""
    _lay_out(figure)
    figure.set_dpi(DPI)
    return _encoded(FigureCanvasAgg(figure).print_png, {"Software": None})


def _lay_out(figure: Figure) -> None:
    """Place what is in ``figure`` once for all canvases, each of which would do it anew.

    Rounded: the solver's last bits depend on where objects lie in memory, and SVG ids on all bits.
    """
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        figure.set_dpi(DPI)
        FigureCanvasAgg(figure)  # measures the texts
        with mpl.rc_context(STYLE):
            engine.execute(figure)
        figure.set_layout_engine("none")
        for axes in figure.axes:
            left, bottom, width, height = (round(part, 9) for part in axes.get_position().bounds)
            axes.set_position((left, bottom, width, height))


def _encoded(write: Callable[..., object], metadata: dict[str, None]) -> bytes:
    """Figure.savefig would draw twice, the first time for the layout."""
    content = io.BytesIO()
    with mpl.rc_context(STYLE):
        write(content, metadata=metadata)
    return content.getvalue()
