"""plot_tokens: one output's scores as a strip of shaded words, in as many lines as it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxflow.views._named_scores import Given, NamedScores, check_row, cut, read_scores
from jaxflow.views._sentences import score_text
from jaxflow.views._tokens import runs_from_the_right
from jaxflow.views.plot._sizes import Size, check_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_TOKENS = 120  # of a longer text the strongest are shown, and what lies between them is counted
SHORTEST = 3  # a run of fewer is no shorter when it is counted
# In points, at full size.
EDGE, PAD, GAP, LEADING, TITLE, BLOCK, BOX = 1.0, 2.5, 2.0, 3.0, 13.0, 8.0, 20.0
SMALLEST = 0.5  # of the full size, which letters shrink to in axes that are too small


def plot_tokens(
    given: Given,
    *,
    row: int = 0,
    tokens: Sequence[str] | None = None,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw what each input token counts for one output: words, shaded by score, with the number below.

    Shades are those of all explained outputs: two strips of one explanation can be compared. Light is 0; negative scores, which
    gradients and leave-one-out have, are orange. Where no path leads is "no path", what is unknown "unknown", both on white.
    Inputs of an encoder and of a decoder are two blocks on one scale. Words of right-to-left scripts run from the right. Of more
    than 120 tokens the strongest are drawn; between them it says how many were left out, and their largest score.

    Args:
        given: an `Explanation`, an unbatched `Attribution`, or scores `[input]` or `[output, input]`.
        row: which of the explained outputs.
        tokens: `[input]`, names instead of those of the explanation, or instead of positions.
        size: "column" (3.25 in) or "page" (6.75 in, the default) wide; as high as it takes.
        ax: axes to draw into, in smaller letters where that is needed; by default those of a new figure, of which pyplot knows
            nothing. `ax.figure.savefig("strip.pdf")` saves it, text as text, with the conventions in the file's metadata.

    Returns:
        The axes. `ax.collections[0].get_array()` are the scores that are drawn.

    Raises:
        ValueError: a batch, a row that does not exist, names that do not fit, another size.
        ImportError: matplotlib is not installed.

    Example:
        >>> ax = plot_tokens([0.25, 0.75], tokens=["the", "keys"])
        >>> ax.collections[0].get_array().tolist()
        [0.25, 0.75]
    """
    shown = read_scores(given, tokens=tokens)
    row = check_row(shown, row)
    width = check_width(size, ax)
    from jaxflow.views.plot import _drawing as drawing

    cells = _cells(shown, row)
    widths = [max(drawing.text_width(cell.name), drawing.text_width(cell.note, drawing.SMALL)) for cell in cells]
    decoder = next((i for i, cell in enumerate(cells) if cell.number >= shown.n_encoder), len(cells))
    scale = 1.0
    if ax is None:
        boxes, height = _lay(widths, decoder, width, scale)
        ax = drawing.new_axes(width, height, shown.explanation)
    else:
        width, room = drawing.size_of(ax)
        boxes, height = _lay(widths, decoder, width, scale)
        while height > room and scale > SMALLEST:
            scale *= 0.95
            boxes, height = _lay(widths, decoder, width, scale)
        height = max(height, room)
    if runs_from_the_right(shown.inputs):
        boxes = [(width - x - box_width, y, box_width, box_height) for x, y, box_width, box_height in boxes]
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    drawing.write(
        ax,
        EDGE,
        EDGE + scale * TITLE / 2,
        cut(shown.titles[row], longest=100),
        fontsize=scale * drawing.FONT_SIZE,
        ha="left",
    )

    cmap, norm = drawing.shading(shown.scores)
    drawn = [(box, cell) for box, cell in zip(boxes, cells, strict=True) if not cell.is_folded]
    scores = np.ma.masked_invalid([cell.score for _, cell in drawn])
    drawing.draw_boxes(ax, [box for box, _ in drawn], scores, cmap, norm, rounding=scale * PAD)
    for (x, y, box_width, box_height), cell in zip(boxes, cells, strict=True):
        ink = drawing.SOFT if cell.is_blank else drawing.ink_on(cmap(norm(cell.score)))
        middle = x + box_width / 2
        drawing.write(ax, middle, y + 0.33 * box_height, cell.name, fontsize=scale * drawing.FONT_SIZE, color=ink)
        drawing.write(ax, middle, y + 0.76 * box_height, cell.note, fontsize=scale * drawing.SMALL, color=ink)
    return ax


@dataclasses.dataclass(frozen=True)
class _Cell:
    """An input, or the run of inputs that was left out in its place."""

    number: int
    name: str
    note: str
    score: float
    is_blank: bool = False  # nothing to shade
    is_folded: bool = False


def _cells(shown: NamedScores, row: int) -> list[_Cell]:
    scores, reachable = shown.scores[row], shown.reachable[row]
    strength = np.where(reachable & np.isfinite(scores), np.abs(scores), -1.0)
    is_kept = np.zeros(len(scores), bool)
    is_kept[np.argsort(-strength, kind="stable")[:MAX_TOKENS]] = True
    ends = np.flatnonzero(np.diff(is_kept)) + 1
    cells: list[_Cell] = []
    for run in np.split(np.arange(len(scores)), np.union1d(ends, shown.n_encoder)):
        if len(run) < SHORTEST or is_kept[run[0]]:
            cells += [_cell(shown, row, number) for number in run.tolist()]
        else:
            largest = strength[run].max()
            note = f"≤ {largest:.3f}" if largest >= 0 else ""
            cells.append(_Cell(int(run[0]), f"… {len(run)} …", note, np.nan, is_blank=True, is_folded=True))
    return cells


def _cell(shown: NamedScores, row: int, number: int) -> _Cell:
    name, score = cut(shown.inputs[number]), shown.scores[row, number]
    if not shown.reachable[row, number]:
        return _Cell(number, name, "no path", np.nan, is_blank=True)
    error = "" if shown.errors is None else f" ±{2 * shown.errors[row, number]:.3f}"
    return _Cell(number, name, f"{score_text(score)}{error}", score, is_blank=bool(np.isnan(score)))


def _lay(
    widths: Sequence[float], decoder: int, width: float, scale: float
) -> tuple[list[tuple[float, float, float, float]], float]:
    """Place boxes line by line, the decoder's from box `decoder` on in lines of their own: boxes, and the height of all."""
    x, y = EDGE, EDGE + scale * TITLE
    boxes = []
    for number, one in enumerate(widths):
        box_width = min(scale * (one + 2 * PAD), width - 2 * EDGE)
        is_block = number == decoder and number > 0
        if is_block or (x > EDGE and x + box_width > width - EDGE):
            x, y = EDGE, y + scale * (BOX + LEADING + BLOCK * is_block)
        boxes.append((x, y, box_width, scale * BOX))
        x += box_width + scale * GAP
    return boxes, y + scale * BOX + EDGE
