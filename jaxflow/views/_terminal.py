"""An explanation in a terminal with colours, by rich: strips, bars, and the matrix of short inputs."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions
from rich.text import Text

from jaxflow._palette import BLUE, GREY, ORANGE, rgb
from jaxflow.explain import Explanation
from jaxflow.views._named_scores import NamedScores, read_scores
from jaxflow.views._scale import end_of_scale, scale_shares
from jaxflow.views._sentences import (
    BEYOND,
    COULD_SEND,
    DID_GIVE,
    GAP,
    NARROW,
    bottleneck_sentence,
    error_bars,
    error_sentence,
    given_sentence,
    headline,
    notes_sentence,
    prediction_sentence,
    proof_sentence,
    saturation_sentence,
    score_text,
)

MAX_BAR, MAX_ROWS = 40, 40
CELL, WIDEST_CELL = 5, 8  # columns of a score in the matrix
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
        explanation, shown, width = self.explanation, read_scores(self.explanation), options.max_width
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
        yield from _lines(given_sentence(explanation, rows[0]))


def has_colours(console: Console) -> bool:
    """Whether a console is a terminal whose user wants colours: not piped, not dumb, and no `NO_COLOR`."""
    return console.is_terminal and console.color_system is not None and not console.no_color


def _lines(sentence: str | None) -> Iterator[Text]:
    if sentence is not None:
        yield Text(sentence)


def _strip(shown: NamedScores, row: int, width: int) -> Iterator[Text]:
    """Shade the words of one output's inputs; those that no path leads from, such as tokens generated later, are left out."""
    yield Text(shown.titles[row], style="bold")
    line = Text(no_wrap=True)
    for i in np.flatnonzero(shown.reachable[row]).tolist():
        score = shown.scores[row, i]
        word = f" {shown.inputs[i]}{'?' if np.isnan(score) else ''} "
        word = _fit(word, min(cell_len(word), width))
        is_decoder = i == shown.n_encoder and i > 0
        if line and (is_decoder or line.cell_len + cell_len(word) > width):
            yield line
            line = Text(no_wrap=True)
        line.append(word, style=_shade(score, shown.largest)).append(" ")
    yield line


def _bars(explanation: Explanation, shown: NamedScores, row: int, width: int) -> Iterator[Text]:
    """Write each input's score and a bar, on a scale of this output's own, and beside it what the input did give."""
    column = max(min(max(map(cell_len, shown.inputs)), width // 2), 1)
    given = explanation.contributions
    lists = [(COULD_SEND, explanation, shown)]
    if given is not None:
        lists.append((DID_GIVE, given, read_scores(given)))
    each = (width - column) // len(lists) - GAP
    if len(lists) > 1 and each < NARROW:
        for title, one, its in lists:
            yield Text(title, style="dim")
            yield from _table(shown.inputs, [_column(one, its, row, width - column)], column)
        return
    columns = [_column(one, its, row, each if len(lists) > 1 else width - column) for _, one, its in lists]
    if len(lists) > 1:
        columns = [[Text(title, style="dim"), *cells] for (title, _, _), cells in zip(lists, columns, strict=True)]
    yield from _table(["", *shown.inputs] if len(lists) > 1 else shown.inputs, columns, column)


def _table(names: Sequence[str], columns: Sequence[Sequence[Text]], width: int) -> Iterator[Text]:
    """Write lists beside each other, each line after its name."""
    wide = [max(map(len, cells)) + GAP for cells in columns]
    for name, *cells in zip(names, *columns, strict=True):
        line = Text("  " + _fit(name, width) + "  ", no_wrap=True, end="")
        for place, cell in enumerate(cells):
            line.append_text(cell)
            if place < len(cells) - 1:
                line.append(" " * (wide[place] - len(cell)))
        yield line.append("\n")


def _column(explanation: Explanation, shown: NamedScores, row: int, width: int) -> list[Text]:
    """Write the scores of one output with bars that fit; one that is longer than the scale ends in an arrow."""
    scores = shown.scores[row]
    numbers = [score_text(score) + off for score, off in zip(scores, error_bars(explanation, row), strict=True)]
    digits = max(map(len, numbers))
    longest = max(min(MAX_BAR, width - digits - 6), 1)
    largest = end_of_scale(explanation, scores)
    cells = []
    for number, score, share, colour, reachable in zip(
        numbers, scores, scale_shares(scores, largest), shown.shares[row], shown.reachable[row], strict=True
    ):
        if not reachable:
            cells.append(Text("no path", style="dim"))
            continue
        bar = "█" * round(longest * abs(share)) + (BEYOND if abs(score) > largest else "")
        cells.append(Text(number.rjust(digits) + " ").append(bar, style=_colour(colour)))
    return cells


def _fits(shown: NamedScores, rows: Sequence[int], width: int) -> bool:
    return len(rows) <= MAX_ROWS and _label(shown, rows) + (CELL + 1) * len(shown.inputs) + 2 <= width


def _label(shown: NamedScores, rows: Sequence[int]) -> int:
    return min(max(cell_len(shown.outputs[row]) for row in rows), 20)


def _matrix(shown: NamedScores, rows: Sequence[int], width: int) -> Iterator[Text]:
    """Write the scores of outputs (lines) and inputs (columns) on shades."""
    label = _label(shown, rows)
    cell = min((width - label - 2) // len(shown.inputs) - 1, max(CELL, *map(cell_len, shown.inputs)), WIDEST_CELL)
    head = Text(" " * label, no_wrap=True)
    for i, name in enumerate(shown.inputs):
        head.append(" │" if i == shown.n_encoder and i else "", style="dim").append(" " + _fit(name, cell))
    yield head
    for row in rows:
        line = Text(_fit(shown.outputs[row], label), no_wrap=True)
        for i, score in enumerate(shown.scores[row]):
            line.append(" │" if i == shown.n_encoder and i else "", style="dim").append(" ")
            if not shown.reachable[row, i]:
                line.append("/" * cell, style="dim")
            elif np.isnan(score):
                line.append("?".center(cell), style="dim")
            else:
                line.append(f"{score:.2f}".rjust(cell), style=_shade(score, shown.largest))
        yield line


def _legend(shown: NamedScores) -> Text:
    """Write the scale of the colours, from the largest score below 0, if any, to the largest above it."""
    legend = Text()
    if shown.has_negative:
        legend.append(f"{-shown.largest:.3g} ", style="dim")
        for step in (-4, -3, -2, -1):
            legend.append("  ", style=_shade(step * shown.largest / 4, shown.largest))
        legend.append(" ")
    legend.append("0 ", style="dim")
    for step in (1, 2, 3, 4):
        legend.append("  ", style=_shade(step * shown.largest / 4, shown.largest))
    return legend.append(f" {shown.largest:.3g}", style="dim")


def _rgb(share: float) -> tuple[int, ...]:
    """Return the colour of a share of the scale, from grey at 0 to blue at 1 and orange at -1."""
    end = rgb(BLUE if share >= 0 else ORANGE)
    return tuple(round(a + abs(share) * (b - a)) for a, b in zip(GREY, end, strict=True))


def _colour(share: float) -> str:
    return "rgb({},{},{})".format(*_rgb(share))


def _shade(score: float, largest: float) -> str:
    """Choose the style of a score on its colour, in dark or light letters, whichever is read better."""
    if np.isnan(score):
        return "dim"
    share = float(scale_shares(score, largest))
    if abs(share) < NOTHING:
        return ""
    red, green, blue = _rgb(share)
    ink = "rgb(0,0,0)" if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else "rgb(255,255,255)"
    return f"{ink} on {_colour(share)}"


def _fit(name: str, columns: int) -> str:
    """Fit a name into so many columns, wide letters taking two, and keep what follows from running with it."""
    if cell_len(name) > columns:
        name = set_cell_size(name, columns - 1).rstrip() + "…"
    is_from_the_right = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in name)
    return set_cell_size(name, columns) + LEFT_TO_RIGHT * is_from_the_right
