"""plot_matrix: the scores of all outputs (rows) and inputs (columns), encoder and decoder in two blocks on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxflow import _palette as palette
from jaxflow.views._named_scores import Given, cut, read_scores
from jaxflow.views.plot._sizes import Size, check_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# In points.
EDGE, PAD, LEGEND = 2.0, 3.0, 14.0
CELL, CELL_OF_NUMBERS, LINE = 18.0, 23.0, 9.0  # largest cell; a cell that holds a number; what a name needs to be read
BLOCK_GAP = 0.6  # between encoder and decoder, in cells, of a few of them
MAX_VECTOR = 64 * 64  # cells that are drawn as shapes; more of them are pixels of an image


def plot_matrix(
    given: Given,
    *,
    tokens: Sequence[str] | None = None,
    output_tokens: Sequence[str] | None = None,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw every score as a shaded cell: a row for each explained output, a column for each input.

    Light is 0; negative scores are orange. Inputs of an encoder and of a decoder are two blocks on one scale. Cells
    that no path leads to, as causality forbids, are hatched, and unknown ones dotted: neither is shaded as 0. Numbers stand in
    the cells where there is room. Where there is none for every name, each second, third, ... is written. More than 4,096
    cells are drawn as an image, which a PDF or SVG holds cell by cell.

    Args:
        given: an `Explanation`, an unbatched `Attribution`, or scores `[output, input]`.
        tokens: `[input]`, names of the inputs instead of those of the explanation, or instead of positions.
        output_tokens: `[output]`, likewise of the outputs.
        size: "column" (3.25 in) or "page" (6.75 in, the default) wide; narrower where cells would be large, as high as it takes.
        ax: axes to draw into; names and the colour bar are around them. By default those of a new figure (see `plot_tokens`).

    Returns:
        The axes. Each block is the first of its `collections` and `images` in order: `get_array()` are its scores.

    Raises:
        ValueError: a batch, names that do not fit, another size.
        ImportError: matplotlib is not installed.

    Example:
        >>> ax = plot_matrix([[0.5, 0.25], [1.0, 0.75]], tokens=["the", "keys"])
        >>> ax.collections[0].get_array().tolist()
        [[0.5, 0.25], [1.0, 0.75]]
    """
    shown = read_scores(given, tokens=tokens, output_tokens=output_tokens)
    width = check_width(size, ax)
    from jaxflow.views.plot import _drawing as drawing

    n_outputs, n_inputs = shown.scores.shape
    inputs, outputs = ([cut(name) for name in names] for names in (shown.inputs, shown.outputs))
    gap = BLOCK_GAP * max(n_inputs / 30, 1) if 0 < shown.n_encoder < n_inputs else 0.0
    columns = np.arange(n_inputs) + np.where(np.arange(n_inputs) >= shown.n_encoder, gap, 0.0)
    has_legend = bool((~shown.reachable).any() or np.isnan(shown.scores).any())
    if ax is None:
        left = EDGE + PAD + max(map(drawing.text_width, outputs))
        top = EDGE + PAD + max(map(drawing.text_width, inputs))
        bottom = 2 * EDGE + LEGEND * has_legend
        breadth = n_inputs + gap
        cell = min((width - left - drawing.BAR) / breadth, CELL_OF_NUMBERS if n_inputs <= 16 else CELL)
        height = max(cell, LINE)
        height = height if height * n_outputs <= 1.2 * width else cell
        whole = (left + breadth * cell + drawing.BAR, top + n_outputs * height + bottom)
        ax = drawing.new_axes(*whole, shown.explanation)
        ax.set_position((left / whole[0], bottom / whole[1], breadth * cell / whole[0], n_outputs * height / whole[1]))
    ax.set(xlim=(0, n_inputs + gap), ylim=(n_outputs, 0))
    across, down = drawing.size_of(ax)
    cell = (across / (n_inputs + gap), down / n_outputs)

    cmap, norm = drawing.shading(shown.scores)
    scores = np.ma.masked_where(~shown.reachable | np.isnan(shown.scores), shown.scores)
    for start, stop in ((0, shown.n_encoder), (shown.n_encoder, n_inputs)):
        if start < stop:
            drawn = _draw_block(ax, scores[:, start:stop], columns[start], cmap=cmap, norm=norm)
    drawing.hatch_boxes(ax, _runs(~shown.reachable, columns), drawing.FORBIDDEN)
    drawing.hatch_boxes(ax, _runs(np.isnan(shown.scores) & shown.reachable, columns), drawing.UNKNOWN)
    if cell[0] >= CELL_OF_NUMBERS - 1 and cell[1] >= LINE:
        for output, number in np.argwhere(~np.ma.getmaskarray(scores)):
            score = shown.scores[output, number]
            style = {"fontsize": drawing.SMALL, "color": drawing.ink_on(cmap(norm(score)))}
            drawing.write(ax, columns[number] + 0.5, output + 0.5, f"{score:.2f}", **style)
    _name(ax.xaxis, columns + 0.5, inputs, cell[0], rotation=90, **drawing.verbatim())
    _name(ax.yaxis, np.arange(n_outputs) + 0.5, outputs, cell[1], **drawing.verbatim())
    ax.xaxis.tick_top()
    ax.tick_params(length=0, pad=PAD, labelcolor=drawing.INK, labelsize=drawing.FONT_SIZE)
    ax.spines[:].set_visible(False)
    drawing.add_bar(ax, drawn)
    drawing.add_legend(
        ax,
        forbidden=bool((~shown.reachable).any()),
        unknown=bool((np.isnan(shown.scores) & shown.reachable).any()),
        loc="upper left",
        bbox_to_anchor=(0, -PAD / down),
        ncols=2,
    )
    return ax


def _draw_block(ax: Axes, scores: np.ma.MaskedArray, left: float, *, cmap: Any, norm: Any) -> Any:
    n_rows, n_columns = scores.shape
    if scores.size > MAX_VECTOR:
        extent = (left, left + n_columns, n_rows, 0)
        return ax.imshow(scores, extent=extent, cmap=cmap, norm=norm, aspect="auto", interpolation="none")
    style: dict[str, Any] = {"edgecolors": palette.EDGE, "linewidth": 0.25} if scores.size <= 24 * 24 else {}
    return ax.pcolormesh(left + np.arange(n_columns + 1), np.arange(n_rows + 1), scores, cmap=cmap, norm=norm, **style)


def _runs(mask: np.ndarray, columns: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Cover cells by as few boxes as their rows allow; the gap between blocks parts them."""
    boxes = []
    for row, cells in enumerate(mask):
        found = np.flatnonzero(cells)
        for run in np.split(found, np.flatnonzero(np.diff(columns[found]) > 1.001) + 1):
            if run.size:
                boxes.append((float(columns[run[0]]), float(row), float(run.size), 1.0))
    return boxes


def _name(axis: Any, places: np.ndarray, names: Sequence[str], room: float, **style: Any) -> None:
    """Write the names beside an axis, each k-th where there is no room for all."""
    step = max(int(np.ceil(LINE / room)), 1)
    axis.set_ticks(places[::step], labels=names[::step], **style)
