"""An explanation as plain text: the prediction, a score and a bar per token, and what the scores can tell."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Sequence

from jaxflow._printable import visible
from jaxflow.explain import Explanation
from jaxflow.views._generation_table import generation_table, is_generation
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
    output_sentence,
    prediction_sentence,
    proof_sentence,
    saturation_sentence,
    score_text,
)
from jaxflow.views._tokens import input_names

MAX_BAR = 40
ABOVE_ZERO, BELOW_ZERO = "█", "▒"  # of bars


def to_text(explanation: Explanation, *, rows: Sequence[int] | None = None, width: int | None = None) -> str:
    """Render explained outputs as lists of tokens with bars, a generation of an encoder-decoder as one table.

    Bars of scores below 0 are grey (▒). Each output's bars have a scale of their own; those of contributions leave out special
    tokens and a decoder's first, whose bars end in an arrow where they are longer.

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
        None if is_generation(explanation) and len(rows) > 1 else given_sentence(explanation, rows[0]),
    )
    if len(rows) > 1 and is_generation(explanation):
        blocks = [_generation(explanation, rows)]
    else:
        blocks = [_block(explanation, row, width) for row in rows]
    return "\n\n".join(filter(None, [head, *blocks, notes]))


def _paragraph(*sentences: str | None) -> str:
    return "\n".join(sentence for sentence in sentences if sentence is not None)


def _block(explanation: Explanation, row: int, width: int) -> str:
    """List the inputs with their scores, and beside them with their contributions, if they are known."""
    words = [token.name for token in input_names(explanation)]
    column = max(map(_columns, words))
    given = explanation.contributions
    names = ["  " + word + " " * (column - _columns(word)) + "  " for word in words]
    title, whole = output_sentence(explanation, row), width - column
    if given is None:
        return "\n".join([title, *_beside(names, _scored(explanation, row, whole))])
    each = (whole - GAP) // 2
    if each < NARROW:
        sent, gave = (_beside(names, _scored(one, row, whole)) for one in (explanation, given))
        return "\n".join([title, COULD_SEND, *sent, DID_GIVE, *gave])
    could, did = ([head, *_scored(one, row, each)] for head, one in ((COULD_SEND, explanation), (DID_GIVE, given)))
    wide = max(map(len, could)) + GAP
    names = [" " * (column + 4), *names]
    return "\n".join(
        [title, *_beside(names, [left.ljust(wide) + right for left, right in zip(could, did, strict=True)])]
    )


def _beside(names: Sequence[str], lines: Sequence[str]) -> list[str]:
    return [(name + line).rstrip() for name, line in zip(names, lines, strict=True)]


def _scored(explanation: Explanation, row: int, width: int) -> list[str]:
    """Write each input's score and a bar that fits; one that is longer than the scale ends in an arrow."""
    scores = explanation.scores[row]
    numbers = [score_text(score) + off for score, off in zip(scores, error_bars(explanation, row), strict=True)]
    digits = max(map(len, numbers))
    bar = max(min(MAX_BAR, width - digits - 5), 1)
    largest = end_of_scale(explanation, scores)
    lines = []
    for number, score, share in zip(numbers, scores, scale_shares(scores, largest), strict=True):
        drawn = (BELOW_ZERO if share < 0 else ABOVE_ZERO) * round(bar * abs(share))
        lines.append(f"{number.rjust(digits)} {drawn}{BEYOND if abs(score) > largest else ''}".rstrip())
    return lines


def _generation(explanation: Explanation, rows: Sequence[int]) -> str:
    """Write what was read and generated, and below it what decided each generated token."""
    header, *steps = generation_table(explanation, rows=rows)
    read = " ".join(visible(token) for token in explanation.encoder_tokens)
    wrote = " ".join(step[0] for step in steps)
    widths = [max(map(_columns, column)) for column in zip(header, *steps, strict=True)]
    table = (
        "  ".join(cell + " " * (width - _columns(cell)) for cell, width in zip(line, widths, strict=True))
        for line in (header, *steps)
    )
    return "\n".join([f"It read   {read}", f"It wrote  {wrote}", "", *(f"  {line}".rstrip() for line in table)])


def _columns(text: str) -> int:
    """Count the terminal columns of `text`: wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
