"""How many passes through the model a method takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from jaxflow._attention import Attention
from jaxflow.attribute import Attribution, EmbeddingScore, Runs, Without
from jaxflow.capture import Contributions, Heads


class CountedRuns:
    """Runs of a model that count what one method asks of them, as if it had no others to share them with.

    Attributes:
        n_targets: as in `Runs`.
    """

    def __init__(self, runs: Runs, n_hidden: int) -> None:
        """Count nothing yet; `n_hidden` tokens can be left out one by one."""
        self._runs, self._n_hidden = runs, n_hidden
        self._asked: dict[Any, tuple[int, int]] = {}
        self.n_targets = runs.n_targets

    @property
    def passes(self) -> Int[np.ndarray, " way"]:
        """`[way]`: forward passes, and backward passes."""
        asked = dict(self._asked)
        if "attention" in asked and ("gradients" in asked or "contributions" in asked):
            del asked["attention"]  # the forward pass of the others has it
        return np.array([*asked.values()], int).reshape(-1, 2).sum(0)

    def attention(self, heads: Heads | None) -> Attention:
        """Return the attention: a forward pass."""
        self._asked["attention"] = (1, 0)
        return self._runs.attention(heads)

    def gradients(self, row: int) -> tuple[Attention, Attention]:
        """Return attention and its gradients: a forward and a backward pass."""
        self._asked["gradients"] = (1, 1)
        return self._runs.gradients(row)

    def contributions(self, row: int) -> Contributions:
        """Return the contributions: a forward and a backward pass."""
        self._asked["contributions"] = (1, 1)
        return self._runs.contributions(row)

    def by_embeddings(self, score: EmbeddingScore, row: int) -> Attribution:
        """Return what a score makes of the embeddings: a forward and a backward pass for each of its steps."""
        n_steps = int(getattr(getattr(score, "__self__", None), "steps", 1))
        self._asked["embeddings"] = (n_steps, n_steps)
        return self._runs.by_embeddings(score, row)

    def without_each(self, row: int, without: Without | None) -> Attribution:
        """Return what the target loses without each token: a forward pass for each, and one for all."""
        self._asked["without"] = (self._n_hidden + 1, 0)
        return self._runs.without_each(row, without)
