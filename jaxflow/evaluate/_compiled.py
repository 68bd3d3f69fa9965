"""A model as compiled functions of its parameters, of inputs by name, and of what it decided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxflow._attention import Attention
from jaxflow.attribute import Attribution, EmbeddingScore, hide
from jaxflow.capture import Contributions, Target, attention_gradients, evaluate_target, knock_out, pull_contributions
from jaxflow.evaluate._decisions import Decided, Decision
from jaxflow.models import Model


class CompiledModel:
    """Programs of one model and one kind of decision; each is compiled once for each length of input.

    Attributes:
        model: the model.
        parameters: those of the trained model.
        predict: `(parameters, inputs)` -> what the decision reads.
        contribute: `(parameters, inputs, decided)` -> contributions to the target.
        attend: `(parameters, inputs, decided)` -> attention, and gradients of the target by it.
        without_arcs: `(parameters, inputs, decided, arcs)` -> the target without the attention of each set of arcs.
        numbers: `(parameters, inputs, decided, kept [mask, token])` -> value and target for each mask.
    """

    def __init__(self, model: Model, decision: Decision, replacement: int | None = None) -> None:
        """Compile nothing yet. Hidden tokens are replaced by the token `replacement`, or masked."""
        self.model, self.decision, self.parameters = model, decision, model.parameters
        self._replacement = replacement
        self.predict = jax.jit(self._predict)
        self.attend = jax.jit(self._attend)
        self.contribute = jax.jit(self._contribute)
        self.numbers = jax.jit(self._numbers)
        self.without_arcs = jax.jit(self._without_arcs)
        self._scores: dict[Any, Callable[..., Attribution]] = {}

    def target_of(self, inputs: dict[str, Any], decided: Decided) -> Target:
        """Return the target as a function of the model's outputs."""
        return lambda outputs: self.decision.target(decided)(self.decision.read(outputs, inputs))

    def by_embeddings(self, score: EmbeddingScore) -> Callable[..., Attribution]:
        """Return `(parameters, inputs, decided)` -> what `score` makes of the target."""
        if score not in self._scores:

            def scored(parameters: Any, inputs: dict[str, Any], decided: Decided) -> Attribution:
                target = self.target_of(inputs, decided)
                return score(self.model.bind(parameters), (), inputs, target=target)

            self._scores[score] = jax.jit(scored)
        return self._scores[score]

    def _predict(self, parameters: Any, inputs: dict[str, Any]) -> Any:
        return self.decision.read(self.model.bind(parameters).call(**inputs), inputs)

    def _attend(self, parameters: Any, inputs: dict[str, Any], decided: Decided) -> tuple[Attention, Attention]:
        bound = self.model.bind(parameters)
        return attention_gradients(bound, target=self.target_of(inputs, decided), **inputs)[1:]

    def _contribute(self, parameters: Any, inputs: dict[str, Any], decided: Decided) -> Contributions:
        bound = self.model.bind(parameters)
        return pull_contributions(bound, (), inputs, targets=[self.target_of(inputs, decided)])[2](0)

    def _without_arcs(self, parameters: Any, inputs: dict[str, Any], decided: Decided, arcs: Any) -> Any:
        n_sets = next(iter(arcs.values())).shape[0]
        repeated: dict[str, Any] = {
            name: jnp.broadcast_to(value, (n_sets, *value.shape[1:])) for name, value in inputs.items()
        }
        outputs, _ = knock_out(self.model.bind(parameters), arcs=arcs, **repeated)
        return evaluate_target(self.target_of(repeated, decided), outputs, (n_sets,))

    def _numbers(self, parameters: Any, inputs: dict[str, Any], decided: Decided, kept: Any) -> tuple[Any, Any]:
        found, batch = self._predict(parameters, hide(inputs, kept, replacement=self._replacement)), (len(kept),)
        value, target = self.decision.value(decided), self.decision.target(decided)
        return evaluate_target(value, found, batch), evaluate_target(target, found, batch)
