"""What an encoder-decoder read on one side, what it wrote step by step on the other, and what decided each step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxflow.explain import Explanation
from jaxflow.views._sentences import score_text

MOST = 3
HEADER = ("it wrote", "", "decided by, of what it read", "and of what it had written")


def are_steps(explanation: Explanation) -> bool:
    """Tell whether an explanation's outputs are steps of writing: each its own, with what was written there."""
    return bool(
        explanation.encoder_tokens
        and explanation.decoder_tokens
        and explanation.predictions
        and explanation.prediction_of() is not None
    )


def step_table(explanation: Explanation, *, rows: Sequence[int]) -> list[tuple[str, ...]]:
    """List the steps of writing, below a header.

    Args:
        explanation: of an encoder-decoder.
        rows: which of the explained outputs.

    Returns:
        Of each step what was written, its probability, and the inputs with the highest scores on either side, with their
        position among the tokens of that side.
    """
    n_read = len(explanation.encoder_tokens)
    table: list[tuple[str, ...]] = [HEADER]
    for row in rows:
        written = explanation.prediction_of(row)
        assert written is not None
        scores = explanation.scores[row]
        table.append(
            (
                written.label,
                f"{written.probability:.1%}",
                _most(explanation.encoder_tokens, scores[:n_read]),
                _most(explanation.decoder_tokens, scores[n_read:]),
            )
        )
    return table


def _most(tokens: Sequence[str], scores: Float[np.ndarray, " player"]) -> str:
    best = [i for i in np.argsort(-np.nan_to_num(scores), kind="stable")[:MOST] if scores[i] > 0]
    return ", ".join(f"{tokens[i]} ({i}) {score_text(scores[i])}" for i in best)
