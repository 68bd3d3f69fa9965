"""The only module that imports matplotlib: figures without pyplot, text that stays text, shades, boxes and hatches."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxflow._palette import ABOVE, BELOW, BLUE, EDGE, GREEN, INK, ORANGE, SOFT, WHITE, tint
from jaxflow._printable import visible
from jaxflow._version import DISTRIBUTION
from jaxflow.explain import Explanation
from jaxflow.views._scale import largest_score
from jaxflow.views._sentences import headline, saturation_sentence
from jaxflow.views.plot._sizes import POINTS

try:
    import matplotlib
except ImportError as error:
    raise ImportError(
        f"Figures are drawn by matplotlib, which is not installed: it is an extra, pip install '{DISTRIBUTION}[plots]'."
    ) from error
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.collections import PatchCollection, PathCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle
from matplotlib.path import Path as Curve
from matplotlib.transforms import blended_transform_factory

FONT_SIZE, SMALL = 8.0, 6.5
# Of Linux, macOS and Windows, for Chinese, Japanese, Korean, Hebrew, Arabic, the scripts of India, and emoji.
FALLBACKS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "WenQuanYi Zen Hei", "Droid Sans Fallback",
    "Noto Sans Hebrew", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Emoji",
    "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Arial Unicode MS",
    "Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "Nirmala UI", "Segoe UI Emoji",
)  # fmt: skip
BAR = 36.0  # points that a scale of shades takes
CUT, CROSS, FLOW, BACK, CUT_GHOST = ORANGE, GREEN, BLUE, tint(BLUE, 0.4), tint(ORANGE, 0.25)
KINDS = {"attention": FLOW, "residual": FLOW, "cross": CROSS, "feedback": BACK}  # colours of arcs
FORBIDDEN, UNKNOWN = "/////", "....."
# Text stays text: letters in an SVG, TrueType in a PDF, as publishers ask. The same numbers give the same file.
SAVING: Any = {"svg.fonttype": "none", "pdf.fonttype": 42, "ps.fonttype": 42, "svg.hashsalt": "jaxflow"}
UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None, "ModDate": None}, "png": {}}

Box = tuple[float, float, float, float]  # x, y, width, height


class PaperFigure(Figure):
    """A figure of no pyplot: it saves text as text, says in the file what it shows, and shows itself in a notebook."""

    about: dict[str, str] = {}  # noqa: RUF012

    def savefig(self, fname: str | PathLike[Any] | IO[Any], **options: Any) -> None:
        """Save as `Figure.savefig`, whose options it takes."""
        kind = str(options.get("format") or Path(str(fname)).suffix[1:]).lower()
        if kind in UNDATED:
            about = {
                "Subject" if (key, kind) == ("Description", "pdf") else key: text for key, text in self.about.items()
            }
            options["metadata"] = UNDATED[kind] | about | (options.get("metadata") or {})
        with matplotlib.rc_context(SAVING):
            super().savefig(fname, **options)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def new_axes(width: float, height: float, explanation: Explanation | None) -> Axes:
    """Make axes that fill a figure of so many points."""
    figure = PaperFigure(figsize=(width / POINTS, height / POINTS), dpi=200)
    if explanation is not None:
        sentences = (headline(explanation), saturation_sentence(explanation), f"jaxflow {visible(explanation.version)}")
        figure.about = {"Title": headline(explanation), "Description": " ".join(filter(None, sentences))}
    return figure.add_axes((0, 0, 1, 1))


def size_of(ax: Axes) -> tuple[float, float]:
    """Return width and height of axes in points."""
    box = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
    return box.width * POINTS, box.height * POINTS


def width_of(figure: Any) -> float:
    """Return the width of a figure in points."""
    return float(figure.bbox.width / figure.dpi * POINTS)


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """Return how many points wide a text is."""
    properties = FontProperties(family=families(), size=10 * size)  # large, since letters are set on whole pixels
    return RendererAgg(1, 1, POINTS).get_text_width_height_descent(text, properties, False)[0] / 10


def write(ax: Axes, x: float, y: float, text: str, **style: Any) -> Any:
    """Write text as it is: a dollar or a backslash in a token begins no formula."""
    default: dict[str, Any] = {"fontsize": FONT_SIZE, "color": INK, "ha": "center", "va": "center"}
    return ax.text(x, y, text, **(default | verbatim() | style))


def verbatim() -> dict[str, Any]:
    """Give the style of text that is a token: no formula, in whatever installed font has its letters."""
    return {"parse_math": False, "usetex": False, "fontfamily": families()}


def families() -> list[str]:
    """List the fonts to take letters from: those of the user, and installed ones that have other scripts."""
    installed = _installed(len(fontManager.ttflist))
    return [*matplotlib.rcParams["font.family"], *(name for name in FALLBACKS if name in installed)]


@functools.cache
def _installed(n_fonts: int) -> frozenset[str]:  # again when their number has changed
    return frozenset(fontManager.get_font_names())


def shading(scores: np.ndarray) -> tuple[Colormap, Normalize]:
    """Choose colours for scores: blues that darken from 0, and oranges below 0 where some are negative."""
    largest = largest_score(scores) or 1.0
    if (scores < 0).any():
        return LinearSegmentedColormap.from_list("signed", [*BELOW, *ABOVE]), Normalize(-largest, largest)
    return LinearSegmentedColormap.from_list("scores", ABOVE), Normalize(0, largest)


def glaze(scores: np.ndarray) -> tuple[Colormap, Normalize]:
    """Choose colours to draw over an image: clear at 0, blue that fills up with the score, orange below 0."""
    _, norm = shading(scores)
    clear, full, below, least = (to_rgba(colour, alpha) for colour in (BLUE, ORANGE) for alpha in (0.0, 0.8))
    stops = [(0.0, clear), (1.0, full)] if norm.vmin == 0 else [(0.0, least), (0.5, below), (0.5, clear), (1.0, full)]
    return LinearSegmentedColormap.from_list("glaze", stops), norm


def ink_on(colour: Sequence[float]) -> str:
    """Choose dark or light letters for a ground, whichever is read better."""
    red, green, blue = (c / 12.92 if c <= 0.04 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3])
    return WHITE if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.22 else INK


def draw_boxes(
    ax: Axes, boxes: Sequence[Box], values: np.ndarray, cmap: Colormap, norm: Normalize, *, rounding: float = 0.0
) -> PatchCollection:
    """Draw boxes in the shades of their values, which the collection's `get_array` gives back."""
    drawn = PatchCollection(
        [FancyBboxPatch(box[:2], *box[2:], boxstyle=f"round,pad=0,rounding_size={rounding}") for box in boxes]
        if rounding
        else [Rectangle(box[:2], *box[2:]) for box in boxes],
        cmap=cmap,
        norm=norm,
        edgecolor=EDGE,
        linewidth=0.4,
    )
    drawn.set_array(np.asarray(values))
    ax.add_collection(drawn, autolim=False)
    return drawn


def hatch_boxes(ax: Axes, boxes: Sequence[Box], hatch: str) -> PatchCollection | None:
    """Hatch boxes that have no score: those that nothing can reach, or those that are unknown."""
    if not boxes:
        return None
    drawn = PatchCollection([Rectangle(box[:2], *box[2:]) for box in boxes], **_hatched(hatch))
    _thin_hatch(drawn)
    ax.add_collection(drawn, autolim=False)
    return drawn


def add_bar(ax: Axes, drawn: Any) -> None:
    """Add the scale of the shades at the right of axes, where it takes `BAR` points."""
    across, down = size_of(ax)
    height = min(70 / down, 1.0)
    bar = ax.figure.colorbar(drawn, cax=ax.inset_axes((1 + 6 / across, 1 - height, 6 / across, height)))
    ends = sorted({drawn.norm.vmin, 0.0, drawn.norm.vmax})
    bar.set_ticks(ends, labels=[f"{end:.3g}" for end in ends])
    bar.ax.tick_params(length=0, labelsize=SMALL, labelcolor=INK, pad=2)
    bar.outline.set_visible(False)


def draw_arcs(
    ax: Axes,
    curves: Sequence[Sequence[tuple[float, float]]],
    widths: np.ndarray,
    colours: Any,
    *,
    label: str,
    dashes: Sequence[tuple[float, float] | None] | None = None,
) -> PathCollection:
    """Draw curves, four points each, on top of those drawn without `dashes`.

    Args:
        ax: where.
        curves: in data coordinates.
        widths: `[arc]`, in points.
        colours: one for each arc.
        label: of the collection.
        dashes: for each arc the lengths of a dash and of a gap in points, None for a solid one.
    """
    codes = [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4]
    styles: Any = "solid"
    if dashes is not None:
        each = zip(dashes, np.maximum(widths, 1e-6), strict=True)  # by which matplotlib multiplies dashes
        styles = ["solid" if one is None else (0, (one[0] / wide, one[1] / wide)) for one, wide in each]
    drawn = PathCollection(
        [Curve(curve, codes) for curve in curves],
        facecolors="none",
        edgecolors=colours,
        linewidths=widths,
        linestyles=styles,
        capstyle="butt",
        clip_on=False,
        label=label,
        zorder=2 if dashes is not None else 1,
    )
    ax.add_collection(drawn, autolim=False)
    return drawn


def draw_dots(ax: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Draw the nodes that arcs join."""
    ax.scatter(x, y, s=5, color=INK, linewidths=0, zorder=3, clip_on=False)


def explain_arcs(ax: Axes, colours: dict[str, str], *, dashed: str, wraps: bool) -> Legend:
    """Say what the colours of arcs mean, below axes from the left of the figure, in one line or two."""
    lines = [Line2D([], [], color=colour, linewidth=3, label=name) for name, colour in colours.items()]
    lines.append(Line2D([], [], color=FLOW, linewidth=1.5, linestyle=(0, (2, 1)), label=dashed))
    return ax.legend(
        handles=lines, ncols=(len(lines) + 1) // 2 if wraps else len(lines), loc="upper left", bbox_to_anchor=(0, 0),
        bbox_transform=blended_transform_factory(ax.figure.transFigure, ax.transAxes), frameon=False, fontsize=SMALL,
        labelcolor=INK, handlelength=1.6, columnspacing=1.2, borderaxespad=0.2,
    )  # fmt: skip


def write_beside(ax: Axes, x: float, y: float, text: str, points: float, **style: Any) -> None:
    """Write text so many points to the right of a place, or to the left where negative."""
    ground = {"facecolor": WHITE, "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
    _write_off(ax, (x, y), text, (points, 0), ha="left" if points > 0 else "right", va="center", bbox=ground, **style)


def write_above(ax: Axes, x: float, text: str, points: float) -> None:
    """Write small text so many points above axes, at a place of theirs."""
    at = blended_transform_factory(ax.transData, ax.transAxes)
    _write_off(ax, (x, 1), text, (0, points), xycoords=at, ha="center", va="bottom", fontsize=SMALL, color=SOFT)


def write_title(ax: Axes, text: str, points: float) -> None:
    """Write text so many points above the left corner of axes."""
    _write_off(ax, (0, 1), text, (0, points), xycoords=ax.transAxes, ha="left", va="bottom")


def _write_off(ax: Axes, place: tuple[float, float], text: str, off: tuple[float, float], **style: Any) -> None:
    default: dict[str, Any] = {"fontsize": FONT_SIZE, "color": INK, "annotation_clip": False, "xycoords": "data"}
    ax.annotate(text, place, xytext=off, textcoords="offset points", **(default | verbatim() | style))


def count(axis: Any, n_layers: int) -> None:
    """Number an axis from 1 to the last layer, each k-th of many."""
    axis.set_ticks(range(1, n_layers + 1, max(n_layers // 12, 1)))


def plain(ax: Axes, xlabel: str, ylabel: str) -> None:
    """Give axes small letters, thin lines, and none above and at the right."""
    ax.set_xlabel(xlabel, fontsize=FONT_SIZE, color=INK, labelpad=2)
    ax.set_ylabel(ylabel, fontsize=FONT_SIZE, color=INK, labelpad=2)
    ax.tick_params(labelsize=SMALL, labelcolor=INK, color=SOFT, length=2, width=0.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[:].set(color=SOFT, linewidth=0.5)


def add_legend(ax: Axes, *, forbidden: bool, unknown: bool, **place: Any) -> Legend | None:
    """Say what hatches mean, where there are any."""
    meanings = [(FORBIDDEN, "no path", forbidden), (UNKNOWN, "unknown", unknown)]
    handles = [Patch(label=label, **_hatched(hatch)) for hatch, label, present in meanings if present]
    for handle in handles:
        _thin_hatch(handle)
    if not handles:
        return None
    style: dict[str, Any] = {
        "frameon": False, "fontsize": SMALL, "labelcolor": INK, "handlelength": 1.4, "handleheight": 1.0, "borderaxespad": 0.0,
    }  # fmt: skip
    return ax.legend(handles=handles, **(style | place))


def _hatched(hatch: str) -> dict[str, Any]:
    return {"facecolor": WHITE, "edgecolor": EDGE, "linewidth": 0.0, "hatch": hatch}


def _thin_hatch(artist: Any) -> None:
    if hasattr(artist, "set_hatch_linewidth"):  # since matplotlib 3.11 for collections
        artist.set_hatch_linewidth(0.5)
