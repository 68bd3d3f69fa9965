"""An explanation in a terminal with colours, by rich: a strip and bars, the matrix of short inputs, steps of a generation."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions
from rich.text import Text

from jaxflow.explain import Explanation
from jaxflow.views._named_scores import Shown, read
from jaxflow.views._sentences import (
    bottleneck_sentence,
    error_bars,
    error_sentence,
    headline,
    notes_sentence,
    prediction_sentence,
    proof_sentence,
    saturation_sentence,
    score_text,
)

MAX_BAR, MAX_ROWS = 40, 40
CELL, WIDEST_CELL = 5, 8  # columns of a score in the matrix
# From what is least to what is most, and to what is most below 0: readable on light and on dark terminals.
LEAST, MOST, BELOW = (150, 161, 175), (14, 82, 160), (190, 80, 10)
NOTHING = 1 / 64  # of the largest score; less has no shade
LEFT_TO_RIGHT = "\u200e"  # keeps numbers after a right-to-left word where they are


@dataclasses.dataclass(frozen=True)
class InTerminal:
    """What `rich.print` and `Console.print` take: an explanation, as wide as the console.

    Attributes:
        explanation: what to show.
        rows: which of the explained outputs; None for all.
    """

    explanation: Explanation
    rows: Sequence[int] | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        explanation, shown, width = self.explanation, read(self.explanation), options.max_width
        rows = list(range(len(shown.scores)) if self.rows is None else self.rows)
        yield Text(headline(explanation), style="bold")
        yield from _lines(prediction_sentence(explanation))
        yield from _lines(notes_sentence(explanation))
        yield Text()
        prediction = explanation.prediction_of(rows[0])
        if len(rows) == 1:
            yield from _strip(shown, rows[0], width)
            yield Text()
            yield from _bars(explanation, shown, rows[0], width)
        elif (prediction is not None and prediction.position is not None) or not _fits(shown, rows, width):
            for row in rows:  # step by step, where each output produced something
                yield from _strip(shown, row, width)
                yield Text()
        else:
            yield from _matrix(shown, rows, width)
        yield Text()
        yield _legend(shown)
        for sentence in (proof_sentence, saturation_sentence, bottleneck_sentence, error_sentence):
            yield from _lines(sentence(explanation))


def has_colours(console: Console) -> bool:
    """Whether a console is a terminal whose user wants colours: not piped, not dumb, and no `NO_COLOR`."""
    return console.is_terminal and console.color_system is not None and not console.no_color


def _lines(sentence: str | None) -> Iterator[Text]:
    if sentence is not None:
        yield Text(sentence)


def _strip(shown: Shown, row: int, width: int) -> Iterator[Text]:
    """Shade the words of one output's inputs; those that no path leads from, such as the ones yet to be written, are left out."""
    yield Text(shown.titles[row], style="bold")
    line = Text(no_wrap=True)
    for player in np.flatnonzero(shown.reachable[row]).tolist():
        score = shown.scores[row, player]
        word = f" {shown.inputs[player]}{'?' if np.isnan(score) else ''} "
        word = _fit(word, min(cell_len(word), width))
        is_decoder = player == shown.n_encoder and player > 0
        if line and (is_decoder or line.cell_len + cell_len(word) > width):
            yield line
            line = Text(no_wrap=True)
        line.append(word, style=_shade(score, shown)).append(" ")
    yield line


def _bars(explanation: Explanation, shown: Shown, row: int, width: int) -> Iterator[Text]:
    errors = error_bars(explanation, row)
    column = max(min(max(map(cell_len, shown.inputs)), width // 2), 1)
    longest = max(min(MAX_BAR, width - column - 11 - max(map(len, errors))), 1)
    largest = _largest(shown.scores[row])
    for name, score, off, reachable in zip(shown.inputs, shown.scores[row], errors, shown.reachable[row], strict=True):
        line = Text("  " + _fit(name, column) + "  ", no_wrap=True, end="")
        if not reachable:
            yield line.append("no path\n", style="dim")
            continue
        line.append(f"{score_text(score)}{off} ")
        if not np.isnan(score):
            line.append("█" * round(longest * abs(score) / largest), style=_colour(score, shown))
        yield line.append("\n")


def _fits(shown: Shown, rows: Sequence[int], width: int) -> bool:
    return len(rows) <= MAX_ROWS and _label(shown, rows) + (CELL + 1) * len(shown.inputs) + 2 <= width


def _label(shown: Shown, rows: Sequence[int]) -> int:
    return min(max(cell_len(shown.outputs[row]) for row in rows), 20)


def _matrix(shown: Shown, rows: Sequence[int], width: int) -> Iterator[Text]:
    """Write the scores of outputs (lines) and inputs (columns) on shades."""
    label = _label(shown, rows)
    cell = min((width - label - 2) // len(shown.inputs) - 1, max(CELL, *map(cell_len, shown.inputs)), WIDEST_CELL)
    head = Text(" " * label, no_wrap=True)
    for player, name in enumerate(shown.inputs):
        head.append(" │" if player == shown.n_encoder and player else "", style="dim").append(" " + _fit(name, cell))
    yield head
    for row in rows:
        line = Text(_fit(shown.outputs[row], label), no_wrap=True)
        for player, score in enumerate(shown.scores[row]):
            line.append(" │" if player == shown.n_encoder and player else "", style="dim").append(" ")
            if not shown.reachable[row, player]:
                line.append("/" * cell, style="dim")
            elif np.isnan(score):
                line.append("?".center(cell), style="dim")
            else:
                line.append(f"{score:.2f}".rjust(cell), style=_shade(score, shown))
        yield line


def _legend(shown: Shown) -> Text:
    largest = _largest(shown.scores)
    legend = Text()
    if np.nanmin(shown.scores, initial=0) < 0:
        legend.append(f"{-largest:.3g} ", style="dim")
        for step in (-4, -3, -2, -1):
            legend.append("  ", style=_shade(step * largest / 4, shown))
        legend.append(" ")
    legend.append("0 ", style="dim")
    for step in (1, 2, 3, 4):
        legend.append("  ", style=_shade(step * largest / 4, shown))
    return legend.append(f" {largest:.3g}", style="dim")


def _largest(scores: np.ndarray) -> float:
    """Return the largest size of a score, above 0; what is unknown has none."""
    return float(np.fmax.reduce(np.abs(scores), axis=None, initial=np.finfo(np.float64).tiny))


def _rgb(score: float, shown: Shown) -> tuple[int, ...]:
    share = abs(score) / _largest(shown.scores)
    return tuple(round(a + share * (b - a)) for a, b in zip(LEAST, MOST if score >= 0 else BELOW, strict=True))


def _colour(score: float, shown: Shown) -> str:
    return "rgb({},{},{})".format(*_rgb(score, shown))


def _shade(score: float, shown: Shown) -> str:
    if np.isnan(score):
        return "dim"
    if abs(score) < NOTHING * _largest(shown.scores):
        return ""
    red, green, blue = _rgb(score, shown)
    ink = "rgb(0,0,0)" if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else "rgb(255,255,255)"
    return f"{ink} on {_colour(score, shown)}"


def _fit(name: str, columns: int) -> str:
    """Fit a name into so many columns, wide letters taking two, and keep what follows from running with it."""
    if cell_len(name) > columns:
        name = set_cell_size(name, columns - 1).rstrip() + "…"
    is_from_the_right = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in name)
    return set_cell_size(name, columns) + LEFT_TO_RIGHT * is_from_the_right
