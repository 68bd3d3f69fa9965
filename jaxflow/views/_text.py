"""An explanation as plain text: what was predicted, a bar and a score per token, and what to make of them."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Sequence

import numpy as np

from jaxflow.explain import Explanation
from jaxflow.views._generation_table import are_steps, step_table
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


def to_text(explanation: Explanation, *, rows: Sequence[int] | None = None, width: int | None = None) -> str:
    """Render explained outputs as lists of tokens with bars; several steps of an encoder-decoder as one table.

    Args:
        explanation: what to show.
        rows: which of the explained outputs; None for all.
        width: columns to fit into; the terminal's if None.
    """
    width = shutil.get_terminal_size().columns if width is None else width
    rows = range(len(explanation.attribution.outputs)) if rows is None else rows
    head = _paragraph(headline(explanation), prediction_sentence(explanation), notes_sentence(explanation))
    notes = _paragraph(
        proof_sentence(explanation),
        saturation_sentence(explanation),
        bottleneck_sentence(explanation),
        error_sentence(explanation),
    )
    if len(rows) > 1 and are_steps(explanation):
        blocks = [_steps(explanation, rows)]
    else:
        blocks = [_block(explanation, row, width) for row in rows]
    return "\n\n".join(filter(None, [head, *blocks, notes]))


def _paragraph(*sentences: str | None) -> str:
    return "\n".join(_printable(sentence) for sentence in sentences if sentence is not None)


def _block(explanation: Explanation, row: int, width: int) -> str:
    scores = explanation.scores[row]
    words = [_printable(token) for token in explanation.tokens]
    column = max(map(_columns, words))
    errors = error_bars(explanation, row)
    bar = max(min(MAX_BAR, width - column - 10 - len(errors[0])), 1)
    longest = np.fmax(np.fmax.reduce(scores), np.finfo(np.float64).tiny)  # which pass over what is unknown
    lines = [_printable(output_sentence(explanation, row))]
    for word, score, off in zip(words, scores, errors, strict=True):
        drawn = "" if np.isnan(score) else "█" * round(bar * score / longest)
        lines.append(f"  {word}{' ' * (column - _columns(word))}  {score_text(score)}{off} {drawn}".rstrip())
    return "\n".join(lines)


def _steps(explanation: Explanation, rows: Sequence[int]) -> str:
    """Write what was read and written, and below it what decided each step."""
    header, *steps = step_table(explanation, rows=rows)
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
