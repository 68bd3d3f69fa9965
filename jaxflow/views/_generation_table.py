"""A generation as a table: each token that an encoder-decoder generated, and the inputs that decided it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxflow._printable import visible
from jaxflow.explain import Explanation
from jaxflow.views._sentences import score_text

MOST = 3
HEADER = ("it wrote", "", "decided by, of what it read", "and of what it had written")
GIVEN_HEADER = ("it wrote", "", "given by, of what it read", "and of what it had written")


def is_generation(explanation: Explanation) -> bool:
    """Tell whether each explained output generated a token, by a model that reads by an encoder."""
    return bool(
        explanation.encoder_tokens
        and explanation.decoder_tokens
        and explanation.predictions
        and explanation.prediction_of() is not None
    )


def generation_table(explanation: Explanation, *, rows: Sequence[int]) -> list[tuple[str, ...]]:
    """List the tokens that were generated, below a header.

    Args:
        explanation: one that `is_generation`.
        rows: which of the explained outputs.

    Returns:
        The header and a line per output: the generated token, its probability, and the encoder's and the decoder's inputs
        with the largest absolute scores, each with its position; of contributions, if they are known.
    """
    n_read = len(explanation.encoder_tokens)
    given = explanation.contributions
    table: list[tuple[str, ...]] = [HEADER if given is None else GIVEN_HEADER]
    for row in rows:
        generated = explanation.prediction_of(row)
        assert generated is not None
        scores = (explanation if given is None else given).scores[row]
        table.append(
            (
                visible(generated.label),
                f"{generated.probability:.1%}",
                _most(explanation.encoder_tokens, scores[:n_read]),
                _most(explanation.decoder_tokens, scores[n_read:]),
            )
        )
    return table


def _most(tokens: Sequence[str], scores: Float[np.ndarray, " input"]) -> str:
    sizes = np.abs(np.nan_to_num(scores))
    best = [i for i in np.argsort(-sizes, kind="stable")[:MOST] if sizes[i] > 0]
    return ", ".join(f"{visible(tokens[i])} ({i}) {score_text(scores[i])}" for i in best)
