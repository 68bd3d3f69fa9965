"""Runs of a model on one example, as methods ask for them: operation by operation, each once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxflow._attention import Attention
from jaxflow.attribute import Attribution, EmbeddingScore, Without, lost_without_each, shown_values
from jaxflow.capture import Contributions, Heads, Target, pull_contributions, pull_gradients, run_capture
from jaxflow.models import Model


class EagerRuns:
    """Runs a model when something is asked for, and keeps its outputs and its attention."""

    def __init__(self, model: Model, args: tuple, kwargs: dict[str, Any], targets: Sequence[Target]) -> None:
        """Run nothing yet."""
        self._model, self._args, self._kwargs = model, args, kwargs
        self._targets = targets
        self._forward: tuple[Any, Attention, Heads | None] | None = None
        self._pulled: tuple[Any, Attention, Any] | None = None
        self._frozen: tuple[Any, Attention, Any] | None = None
        self._shown: dict[int, Callable[[Bool[np.ndarray, "mask token"]], Float[np.ndarray, " mask"]]] = {}
        self.n_targets = len(targets)

    def forward(self, heads: Heads | None, *, needs: Collection[str] = ()) -> tuple[Any, Attention]:
        """Return outputs and attention; of the pass that gradients or contributions need, where they will be asked for."""
        if "gradients" in needs:
            return self._pull()[:2]
        if "contributions" in needs:
            return self._freeze()[:2]
        if self._forward is None or self._forward[2] is not heads:
            outputs, attention = run_capture(self._model, self._args, self._kwargs, heads=heads)
            self._forward = (outputs, attention, heads)
        return self._forward[:2]

    def attention(self, heads: Heads | None) -> Attention:
        """Return the attention of a forward pass, one head made of all if `heads` is given."""
        return self.forward(heads)[1]

    def gradients(self, row: int) -> tuple[Attention, Attention]:
        """Return the attention, and the gradients of target `row` by it: one backward pass."""
        _, attention, pull = self._pull()
        return attention, pull(row)

    def contributions(self, row: int) -> Contributions:
        """Return what each token gave to target `row`: one backward pass."""
        return self._freeze()[2](row)

    def by_embeddings(self, score: EmbeddingScore, row: int) -> Attribution:
        """Return what `score` makes of target `row`."""
        return score(self._model, self._args, self._kwargs, target=self._targets[row])

    def without_each(self, row: int, without: Without | None, tokens: Sequence[int] | None) -> Attribution:
        """Return what target `row` loses without each token, or each of `tokens`."""
        options: dict[str, Any] = {"target": self._targets[row], "without": without, "tokens": tokens}
        return lost_without_each(self._model, self._args, self._kwargs, **options)

    def shown(self, row: int, kept: Bool[np.ndarray, "mask token"]) -> Float[np.ndarray, " mask"]:
        """Return target `row` of the model that is shown the kept tokens alone: compiled, for many masks at once."""
        if row not in self._shown:
            self._shown[row] = shown_values(self._model, self._args, self._kwargs, target=self._targets[row])
        return self._shown[row](kept)

    def _freeze(self) -> tuple[Any, Attention, Any]:
        if self._frozen is None:
            self._frozen = pull_contributions(self._model, self._args, self._kwargs, targets=self._targets)
        return self._frozen

    def _pull(self) -> tuple[Any, Attention, Any]:
        if self._pulled is None:
            self._pulled = pull_gradients(self._model, self._args, self._kwargs, targets=self._targets)
        return self._pulled
