"""Words, lines and paragraphs of a text, as spans of the tokens that a tokenizer made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from jaxflow._printable import visible
from jaxflow.explain._offsets import offsets_of
from jaxflow.explain._token_names import TokenName, join_names
from jaxflow.network import ends_of

Unit = Literal["words", "lines", "paragraphs"]
Span = tuple[int, int] | tuple[int, int, str]
# None begins or ends with a space. Punctuation belongs to the word it is written at.
UNITS = {"words": r"\S+", "lines": r"\S(?:.*\S)?", "paragraphs": r"\S(?:(?!\n[^\S\n]*\n)[\s\S])*(?<=\S)"}
LONGEST_NAME = 40


def text_spans(tokenizer: Any, text: str, unit: Unit = "words") -> list[tuple[int, int, str]]:
    """Group the tokens of a text by the words, lines or paragraphs that they are parts of.

    A token that belongs to several joins them, since tokens are not divided; a blank right before a word belongs to it. A
    token that belongs to none ([CLS], the end of a line) is in no span.

    Args:
        tokenizer: one that tells offsets, as the fast ones of transformers do.
        text: what it reads.
        unit: "words" (what blanks separate), "lines", or "paragraphs" (what blank lines separate).

    Returns:
        `(start, stop, name)` each, tokens start to stop - 1, in the order of the text.

    Raises:
        ValueError: a tokenizer without offsets; another unit.
    """
    if unit not in UNITS:
        raise ValueError(f"spans is {unit!r}; expected {', '.join(map(repr, UNITS))}, or (start, stop) pairs.")
    return _group(offsets_of(tokenizer, text)[1], text, unit)


def known_words(tokenizer: Any, text: Any) -> list[tuple[int, int, str]] | None:
    """Return the words of a text as `text_spans` does; None where there is no text, or its tokenizer tells no offsets."""
    if not isinstance(text, str):
        return None
    try:
        return text_spans(tokenizer, text)
    except ValueError:
        return None


def written_spans(
    tokenizer: Any, ids: Int[np.ndarray, " token"], unit: Unit = "words", *, start: int = 0
) -> list[tuple[int, int, str]]:
    """Group tokens that a model wrote, which have no offsets: by the text that more and more of them decode to.

    Args:
        tokenizer: whose `decode` turns tokens into text.
        ids: `[token]`, all that the decoder read, what was given first.
        unit: as in `text_spans`.
        start: how many were given; these are in no span.

    Returns:
        As `text_spans`.
    """
    numbers = ids.tolist()
    special = set(tokenizer.all_special_ids)
    texts = [tokenizer.decode(numbers[start:stop], skip_special_tokens=True) for stop in range(start, len(numbers) + 1)]
    ends = [len(text) for text in texts]
    offsets = [(0, 0)] * start
    for token, first, last in zip(numbers[start:], ends[:-1], ends[1:], strict=True):
        offsets.append((0, 0) if token in special else (min(first, last), last))
    return _group(offsets, texts[-1], unit)


def cover(spans: Sequence[Span], tokens: Sequence[TokenName]) -> list[tuple[int, int, str]]:
    """Name spans, and let each token that is in none be one of its own; in the order of the text.

    Raises:
        ValueError: something that is no span, is empty, or leaves the tokens. (Overlap is for `span_masks` to find.)
    """
    named = [_named(span, tokens) for span in spans]
    inside = {token for start, stop, _ in named for token in range(start, stop)}
    return sorted(named + [(i, i + 1, token.name) for i, token in enumerate(tokens) if i not in inside])


def _named(span: Span, tokens: Sequence[TokenName]) -> tuple[int, int, str]:
    start, stop = ends_of(span[:2])
    return start, stop, visible(str(span[2])) if len(span) > 2 else short(join_names(tokens[start:stop]))


def _group(offsets: Sequence[tuple[int, int]], text: str, unit: Unit) -> list[tuple[int, int, str]]:
    units = [match.span() for match in re.finditer(UNITS[unit], text)]
    spans: list[tuple[int, int, int, int]] = []  # of tokens, and of units
    first = 0
    for token, (start, stop) in enumerate(offsets):
        while first < len(units) and units[first][1] <= start:
            first += 1
        last = first
        while last < len(units) and units[last][0] < stop:
            last += 1
        if last == first < len(units) and units[first][0] == stop and "\n" not in text[start:stop]:
            last += 1
        if stop <= start or last == first:
            continue
        if spans and first < spans[-1][3]:
            spans[-1] = (spans[-1][0], token + 1, spans[-1][2], max(last, spans[-1][3]))
        else:
            spans.append((token, token + 1, first, last))
    return [(start, stop, short(text[units[a][0] : units[b - 1][1]])) for start, stop, a, b in spans]


def short(name: str) -> str:
    """Write a name on one line, cut where it is too long for a column."""
    name = visible(" ".join(name.split()))
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1].rstrip()}…"


def spans_by_side(
    spans: Unit | Sequence[Span] | Mapping[str, Sequence[Span]] | None,
    sides: Sequence[str],
    *,
    tokenizer: Any,
    text: str | None,
    written: Sequence[Span] | None = None,
) -> dict[str, Sequence[Span]]:
    """Find whose tokens are to be grouped, and how.

    Args:
        spans: as in `explain`.
        sides: the stacks that there are, "encoder" first.
        tokenizer: tells offsets in the text.
        text: what was read; None for other inputs.
        written: spans of the decoder's tokens that were written.

    Raises:
        ValueError: spans of a stack that is not there; a unit of what is no text.
    """
    if isinstance(spans, Mapping):
        for side in spans:
            if side not in sides:
                raise ValueError(f"spans are given for the {side}; the model has {' and '.join(sides)} tokens alone.")
        return dict(spans)
    grouped: dict[str, Sequence[Span]] = {}
    if isinstance(spans, str):
        if text is None:
            raise ValueError(f"spans={spans!r} groups the tokens of a text: pass the text, or (start, stop) pairs.")
        spans = text_spans(tokenizer, text, spans)
    if spans is not None:
        grouped[sides[0]] = spans
    if written is not None:
        grouped[sides[-1]] = [*grouped.get(sides[-1], ()), *written]
    return grouped
