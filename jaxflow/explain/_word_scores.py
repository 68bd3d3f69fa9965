"""Scores of whole words, beside those of the tokens they are made of: what a word's tokens can send together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxflow.attribute import Attribution, attention_flow, attribution_scores
from jaxflow.explain._explanation import Method
from jaxflow.explain._words import Span, cover
from jaxflow.network import Capacities, span_masks

Word = tuple[int, int, str]


def score_words(
    words: Mapping[str, Sequence[Span]],
    names: Mapping[str, Sequence[str]],
    attribution: Attribution,
    capacities: Capacities,
    *,
    method: Method,
    **options: Any,
) -> tuple[tuple[Word, ...], Float[np.ndarray, "output word"]]:
    """Score words: of a flow by the joint flow of their tokens, which is solved for those of several; of shares by their sum.

    Args:
        words: of the encoder, the decoder or both, in tokens of that stack.
        names: of the tokens of each stack.
        attribution: what the tokens score, neither corrected nor normalised if it is a flow.
        capacities: one example's.
        method: "flow", "rollout" or "raw".
        options: of `attention_flow`: outputs, structure and solver.

    Returns:
        Words in the order of all inputs, `(start, stop, word)`, tokens of none alone; and their scores.
    """
    scores = attribution_scores(attribution)
    stacks = {side: cover(words.get(side, ()), names[side]) for side in ("encoder", "decoder")}
    n_encoder = len(names["encoder"])
    every = stacks["encoder"] + [(start + n_encoder, stop + n_encoder, word) for start, stop, word in stacks["decoder"]]
    starts = [start for start, _, _ in every]
    if method != "flow":
        return tuple(every), np.add.reduceat(scores, starts, axis=1)
    found = scores[:, starts]
    several = np.array([stop - start > 1 for start, stop, _ in every])
    if several.any():
        masks: dict[str, Any] = {}
        asked: list[bool] = []
        for side, spans in stacks.items():
            joined = [(start, stop) for start, stop, _ in spans if stop - start > 1]
            if names[side]:  # of a stack whose words are tokens the first one plays, and is passed over
                masks[f"{side}_spans"] = span_masks(joined or [(0, 1)], len(names[side]))
                asked += [True] * len(joined) or [False]
        joint = attention_flow(capacities, **masks, **options)
        found[:, several] = attribution_scores(joint)[:, asked]
    return tuple(every), found
