"""How many passes through the model a method takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from jaxflow._attention import Attention
from jaxflow.attribute import Attribution, EmbeddingScore, Runs, Without
from jaxflow.capture import Contributions, Heads


class CountedRuns:
    """Runs of a model that count what one method asks of them, as if it had no others to share them with.

    What `Evidence` keeps counts once, however often it is asked for.

    Attributes:
        n_targets: as in `Runs`.
    """

    def __init__(self, runs: Runs, n_hidden: int) -> None:
        """Count nothing yet; `n_hidden` tokens can be left out one by one."""
        self._runs, self._n_hidden = runs, n_hidden
        self._kept: dict[str, tuple[int, int]] = {}  # by what was asked for
        self._more: list[tuple[float, float]] = []
        self.n_targets = runs.n_targets

    @property
    def passes(self) -> Float[np.ndarray, " way"]:
        """Forward passes, and backward passes; NaN where a score of the embeddings does not say how many it takes."""
        kept = dict(self._kept)
        if "gradients" in kept or "contributions" in kept:
            kept.pop("attention", None)  # the forward pass of the others has it
        return np.array([*kept.values(), *self._more], float).reshape(-1, 2).sum(0)

    def attention(self, heads: Heads | None) -> Attention:
        """Return the attention: a forward pass."""
        self._kept["attention"] = (1, 0)
        return self._runs.attention(heads)

    def gradients(self, row: int) -> tuple[Attention, Attention]:
        """Return attention and its gradients: a forward and a backward pass."""
        self._kept["gradients"] = (1, 1)
        return self._runs.gradients(row)

    def contributions(self, row: int) -> Contributions:
        """Return the contributions: a forward and a backward pass."""
        self._kept["contributions"] = (1, 1)
        return self._runs.contributions(row)

    def by_embeddings(self, score: EmbeddingScore, row: int) -> Attribution:
        """Return what a score makes of the embeddings: as many passes as it says, or the object whose method it is."""
        forwards, backwards = getattr(getattr(score, "__self__", score), "passes", (np.nan, np.nan))
        self._more.append((forwards, backwards))
        return self._runs.by_embeddings(score, row)

    def without_each(self, row: int, without: Without | None, tokens: Sequence[int] | None) -> Attribution:
        """Return what the target loses without each token: a forward pass for each, and one for all."""
        self._more.append(((self._n_hidden if tokens is None else len(tokens)) + 1, 0))
        return self._runs.without_each(row, without, tokens)

    def shown(self, row: int, kept: Bool[np.ndarray, "mask token"]) -> Float[np.ndarray, " mask"]:
        """Return the target where tokens are hidden: a forward pass for each mask."""
        self._more.append((len(kept), 0))
        return self._runs.shown(row, kept)
