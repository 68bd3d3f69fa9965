"""An explanation as plain text: the prediction, a score and a bar per token, and what the scores can tell."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Sequence

from jaxflow.explain import Explanation
from jaxflow.views._generation_table import generation_table, is_generation
from jaxflow.views._scale import largest_score, scale_shares
from jaxflow.views._sentences import (
    bottleneck_sentence,
    error_bars,
    error_sentence,
    headline,
    notes_sentence,
    output_sentence,
    prediction_sentence,
    proof_sentence,
    saturation_sentence,
    score_text,
)

MAX_BAR = 40
ABOVE_ZERO, BELOW_ZERO = "█", "▒"  # of bars


def to_text(explanation: Explanation, *, rows: Sequence[int] | None = None, width: int | None = None) -> str:
    """Render explained outputs as lists of tokens with bars, a generation of an encoder-decoder as one table.

    Bars of scores below 0 are grey (▒). Each output's bars have a scale of their own.

    Args:
        explanation: what to show.
        rows: which of the explained outputs; None for all.
        width: columns to fit into; the terminal's if None.
    """
    width = shutil.get_terminal_size().columns if width is None else width
    rows = range(len(explanation.attribution.positions)) if rows is None else rows
    head = _paragraph(headline(explanation), prediction_sentence(explanation), notes_sentence(explanation))
    notes = _paragraph(
        proof_sentence(explanation),
        saturation_sentence(explanation),
        bottleneck_sentence(explanation),
        error_sentence(explanation),
    )
    if len(rows) > 1 and is_generation(explanation):
        blocks = [_generation(explanation, rows)]
    else:
        blocks = [_block(explanation, row, width) for row in rows]
    return "\n\n".join(filter(None, [head, *blocks, notes]))


def _paragraph(*sentences: str | None) -> str:
    return "\n".join(_printable(sentence) for sentence in sentences if sentence is not None)


def _block(explanation: Explanation, row: int, width: int) -> str:
    scores = explanation.scores[row]
    words = [_printable(token) for token in explanation.tokens]
    column = max(map(_columns, words))
    numbers = [score_text(score) + off for score, off in zip(scores, error_bars(explanation, row), strict=True)]
    digits = max(map(len, numbers))
    bar = max(min(MAX_BAR, width - column - digits - 5), 1)
    lines = [_printable(output_sentence(explanation, row))]
    for word, number, share in zip(words, numbers, scale_shares(scores, largest_score(scores)), strict=True):
        drawn = (BELOW_ZERO if share < 0 else ABOVE_ZERO) * round(bar * abs(share))
        lines.append(f"  {word}{' ' * (column - _columns(word))}  {number.rjust(digits)} {drawn}".rstrip())
    return "\n".join(lines)


def _generation(explanation: Explanation, rows: Sequence[int]) -> str:
    """Write what was read and generated, and below it what decided each generated token."""
    header, *steps = generation_table(explanation, rows=rows)
    read = _printable(" ".join(explanation.encoder_tokens))
    wrote = _printable(" ".join(step[0] for step in steps))
    cells = [[_printable(cell) for cell in line] for line in (header, *steps)]
    widths = [max(map(_columns, column)) for column in zip(*cells, strict=True)]
    table = (
        "  ".join(cell + " " * (width - _columns(cell)) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )
    return "\n".join([f"It read   {read}", f"It wrote  {wrote}", "", *(f"  {line}".rstrip() for line in table)])


def _printable(token: str) -> str:
    """Show what a terminal would obey, such as escape sequences, instead of sending it there."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in token)


def _columns(text: str) -> int:
    """Count the terminal columns of `text`: wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
