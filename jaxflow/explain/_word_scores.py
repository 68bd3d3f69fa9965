"""Scores of whole words, beside those of the tokens they are made of: what a word's tokens can send together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxflow.explain._token_names import TokenName
from jaxflow.explain._words import Span, cover
from jaxflow.network import Spans, span_masks

Word = tuple[int, int, str]


def all_words(words: Mapping[str, Sequence[Span]], names: Mapping[str, Sequence[TokenName]]) -> tuple[Word, ...]:
    """Return words in the order of all inputs, `(start, stop, word)`, and the tokens of none alone.

    Args:
        words: of the encoder, the decoder or both, in tokens of that stack.
        names: of the tokens of each stack.
    """
    stacks = {side: cover(words.get(side, ()), names[side]) for side in ("encoder", "decoder")}
    n_encoder = len(names["encoder"])
    behind = [(start + n_encoder, stop + n_encoder, word) for start, stop, word in stacks["decoder"]]
    return (*stacks["encoder"], *behind)


def sum_words(words: Sequence[Word], scores: Float[np.ndarray, "output input"]) -> Float[np.ndarray, "output word"]:
    """Score words by the sum of their tokens, of methods whose scores add up."""
    return np.add.reduceat(scores, [start for start, _, _ in words], axis=1)


def join_words(
    words: Sequence[Word],
    scores: Float[np.ndarray, "output input"],
    *,
    n_encoder: int,
    joint_flow: Callable[[Spans], Float[np.ndarray, "output span"]],
) -> Float[np.ndarray, "output word"]:
    """Score words by the joint flow of their tokens; those of one token have its score, and are not solved again.

    Args:
        words: as `all_words` returns them.
        scores: of single tokens.
        n_encoder: how many of these are the encoder's.
        joint_flow: solves for spans.
    """
    found = scores[:, [start for start, _, _ in words]]
    several = np.array([stop - start > 1 for start, stop, _ in words])
    if not several.any():
        return found
    masks: dict[str, Any] = {}
    asked: list[bool] = []
    bounds = {"encoder": (0, n_encoder), "decoder": (n_encoder, scores.shape[1])}
    for side, (first, last) in bounds.items():
        if first == last:
            continue
        joined = [
            (start - first, stop - first) for start, stop, _ in words if stop - start > 1 and first <= start < last
        ]
        # Of a stack whose words are tokens the first one is solved for, and passed over.
        masks[side] = span_masks(joined or [(0, 1)], last - first)
        asked += [True] * len(joined) or [False]
    found[:, several] = joint_flow(Spans(**masks))[:, asked]
    return found
