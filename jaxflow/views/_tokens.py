"""Tokens as a view shows them: their names, and in which direction they are read."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from jaxflow._printable import visible
from jaxflow.explain import Explanation, TokenName


def input_names(explanation: Explanation) -> list[TokenName]:
    """Name the inputs of an explanation. What a file says is made visible again: it may be anyone's."""
    return [
        TokenName(visible(name), kind) for name, kind in zip(explanation.tokens, explanation.token_kinds, strict=True)
    ]


def visible_names(names: Sequence[str]) -> list[str]:
    """Write names on one line each."""
    return [visible(str(name)) for name in names]


def runs_from_the_right(texts: Sequence[str]) -> bool:
    """Tell whether most of the letters are of scripts that are written from the right."""
    ways = [unicodedata.bidirectional(letter) for text in texts for letter in text]
    return sum(way in ("R", "AL") for way in ways) > sum(way == "L" for way in ways)
