"""Scores by gradients with respect to token embeddings."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jaxflow._attention import at_least_float32
from jaxflow.attribute._attribution import Attribution
from jaxflow.attribute._evidence import Evidence
from jaxflow.capture import Target, evaluate_target
from jaxflow.models import Model, as_model, run_embedded

# Of one stack or two: `[*batch, token, width]` each.
Embeddings = dict[str, Float[Array, "*batch _token _width"]]


@dataclasses.dataclass(frozen=True)
class GradientNorm:
    """Score a token by how steeply the target depends on its embedding: `||dy/de_i||_2`.

    Attributes:
        embedding: a fragment of the path of the model's token embedding, such as "/tokens/", where it is not found by itself.

    Source: Simonyan et al. 2014 (1312.6034), per token as in Li et al. 2016 (1506.01066).
    """

    embedding: str | None = None

    name: ClassVar[str] = "gradient"
    needs: ClassVar[frozenset[str]] = frozenset({"embeddings"})
    passes: ClassVar[tuple[int, int]] = (1, 1)  # forwards, backwards

    def attribute(self, evidence: Evidence) -> Attribution:
        """Score the inputs of one example for each explained position, by its target."""
        return evidence.of_target(functools.partial(evidence.by_embeddings, self.score), adds_up=False)

    def score(self, model: Model, args: tuple, kwargs: Mapping, *, target: Target) -> Attribution:
        """Return `[*batch, 1, token]`, >= 0. Padding that no token attends to scores exactly 0."""
        value, embeddings = _differentiable(model, args, kwargs, target, self.embedding)
        gradients = jax.grad(lambda added: value(added).sum())(_zeros(embeddings))
        return _attribution({stack: jnp.linalg.norm(g, axis=-1) for stack, g in gradients.items()})


@dataclasses.dataclass(frozen=True)
class InputXGradient:
    """Score a token by the first-order effect of its embedding: `e_i . dy/de_i`. Scores below 0 speak against the target.

    Attributes:
        embedding: as in `GradientNorm`.

    Source: Denil et al. 2014 (1412.6815); Shrikumar et al. 2017 (1704.02685).
    """

    embedding: str | None = None

    name: ClassVar[str] = "input_x_gradient"
    adds_up: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"embeddings"})
    passes: ClassVar[tuple[int, int]] = (1, 1)  # forwards, backwards

    def attribute(self, evidence: Evidence) -> Attribution:
        """Score the inputs of one example for each explained position, by its target."""
        return evidence.of_target(functools.partial(evidence.by_embeddings, self.score), adds_up=True)

    def score(self, model: Model, args: tuple, kwargs: Mapping, *, target: Target) -> Attribution:
        """Return `[*batch, 1, token]`, signed."""
        value, embeddings = _differentiable(model, args, kwargs, target, self.embedding)
        gradients = jax.grad(lambda added: value(added).sum())(_zeros(embeddings))
        return _attribution({stack: _dot(embeddings[stack], g) for stack, g in gradients.items()})


@dataclasses.dataclass(frozen=True, eq=False)
class IntegratedGradients:
    """Score a token by its share of what the target gains from a baseline: `(e_i - b) . mean_k dy/de_i(b + a_k (e - b))`.

    `a_k = (k + 1/2) / steps`. All tokens move at once. Scores would add up to `y(e) - y(b)` with infinitely many steps; what is
    missing is `completeness_gap`, which tells whether there were enough. One forward and backward pass per step, and two
    forward passes for the gap.

    Attributes:
        steps: how many points of the path, 1 or more.
        baseline: b, an embedding `[width]` or what broadcasts to `[*batch, token, width]`; 0 by default.
        embedding: as in `GradientNorm`.

    Source: Sundararajan et al. 2017 (1703.01365), equation 3, by the midpoint rule.
    """

    steps: int = 16
    baseline: Float[ArrayLike, " ..."] | None = None
    embedding: str | None = None

    name: ClassVar[str] = "integrated_gradients"
    adds_up: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"embeddings"})

    def __post_init__(self) -> None:
        """Refuse a path without points."""
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; expected 1 or more.")

    @property
    def passes(self) -> tuple[int, int]:
        """Passes forwards and backwards: both for each step, and two forwards for what is gained on the whole way."""
        return self.steps + 2, self.steps

    def attribute(self, evidence: Evidence) -> Attribution:
        """Score the inputs of one example for each explained position, by its target."""
        return evidence.of_target(functools.partial(evidence.by_embeddings, self.score), adds_up=True)

    def score(self, model: Model, args: tuple, kwargs: Mapping, *, target: Target) -> Attribution:
        """Return `[*batch, 1, token]`, signed, with `completeness_gap` `[*batch]`: `y(e) - y(b) - sum of scores`."""
        value, embeddings = _differentiable(model, args, kwargs, target, self.embedding)
        way = {stack: _from_baseline(e, self.baseline) for stack, e in embeddings.items()}

        def at(fraction: Float[Array, ""]) -> Float[Array, "*batch"]:
            return value({stack: (fraction.astype(w.dtype) - 1) * w for stack, w in way.items()})

        def gradients_at(fraction: Float[Array, ""]) -> Embeddings:
            return jax.grad(lambda added: value(added).sum())(
                {stack: (fraction.astype(w.dtype) - 1) * w for stack, w in way.items()}
            )

        def add(total: Embeddings, fraction: Float[Array, ""]) -> tuple[Embeddings, None]:
            return jax.tree.map(lambda t, g: t + g.astype(t.dtype) / self.steps, total, gradients_at(fraction)), None

        nothing = jax.tree.map(lambda w: jnp.zeros(w.shape, at_least_float32(w).dtype), way)
        total, _ = jax.lax.scan(add, nothing, (jnp.arange(self.steps, dtype=jnp.float32) + 0.5) / self.steps)
        scores = {stack: _dot(way[stack], gradient) for stack, gradient in total.items()}
        gained = at(jnp.ones(())) - at(jnp.zeros(()))
        batch = next(iter(scores.values())).shape[:-1]
        if gained.shape != batch:
            raise ValueError(
                f"target returned one number for {batch} examples; expected one for each, or their gaps cannot be told."
            )
        gap = gained - sum(score.sum(-1) for score in scores.values())
        return dataclasses.replace(_attribution(scores), completeness_gap=gap)


def gradient_norm(
    model: Any,
    *args: Any,
    target: Target,
    variables: Mapping | None = None,
    embedding: str | None = None,
    **kwargs: Any,
) -> Attribution:
    """Apply `GradientNorm` to a whole batch: `score[i] = ||dy/de_i||_2`, e_i the token's embedding.

    Token embeddings alone are differentiated by, not those of positions. Pure: goes through `jit`. One forward and one backward
    pass.

    Args:
        model: a Flax class of transformers 4, a `flax.linen` module, bound or with `variables`, or a `flax.nnx` module.
        *args: what the model is called with.
        target: the number to explain, as in `attention_gradients`.
        variables: those of an unbound linen module.
        embedding: a fragment of the path of the `nn.Embed` or `nnx.Embed` of tokens, such as "/tokens/", where it is not found by
            itself: in transformers it is as large as the vocabulary, in other modules it is called with an input of the model.
        **kwargs: what the model is called with.

    Returns:
        `Attribution` of JAX arrays >= 0 with one row, of the encoder's tokens, the decoder's or both.

    Raises:
        TypeError: a model that is not supported here.
        ValueError: no token embedding is found; a target that is no one number per example.
    """
    return GradientNorm(embedding).score(as_model(model, variables=variables), args, kwargs, target=target)


def input_x_gradient(
    model: Any,
    *args: Any,
    target: Target,
    variables: Mapping | None = None,
    embedding: str | None = None,
    **kwargs: Any,
) -> Attribution:
    """Apply `InputXGradient` to a whole batch: `score[i] = e_i . dy/de_i`. Arguments and errors are those of `gradient_norm`.

    Returns:
        `Attribution` of JAX arrays with one row, signed.
    """
    return InputXGradient(embedding).score(as_model(model, variables=variables), args, kwargs, target=target)


def integrated_gradients(
    model: Any,
    *args: Any,
    target: Target,
    steps: int = 16,
    baseline: Float[ArrayLike, " ..."] | None = None,
    variables: Mapping | None = None,
    embedding: str | None = None,
    **kwargs: Any,
) -> Attribution:
    """Apply `IntegratedGradients` to a whole batch; `steps` and `baseline` are explained there, all else in `gradient_norm`.

    Returns:
        `Attribution` of JAX arrays with one row, and its `completeness_gap`, `[*batch]`: `y(e) - y(b) - sum of scores`.

    Raises:
        TypeError: a model that is not supported here.
        ValueError: as `gradient_norm`; fewer steps than one; a target that is not one number per example; a baseline that
            does not fit.
    """
    method = IntegratedGradients(steps=steps, baseline=baseline, embedding=embedding)
    return method.score(as_model(model, variables=variables), args, kwargs, target=target)


def _differentiable(
    model: Model, args: tuple, kwargs: Mapping, target: Target, embedding: str | None
) -> tuple[Callable[[Embeddings], Array], Embeddings]:
    """Return the target as a function of what is added to the embeddings, and the embeddings."""

    def value(added: Embeddings) -> Array:
        outputs, found = run_embedded(model, args, kwargs, embedding=embedding, added=added)
        return evaluate_target(target, outputs, next(iter(found.values())).shape[:-2])

    _, embeddings = run_embedded(model, args, kwargs, embedding=embedding)
    return value, embeddings


def _zeros(embeddings: Embeddings) -> Embeddings:
    return jax.tree.map(jnp.zeros_like, embeddings)


def _from_baseline(embedding: Array, baseline: ArrayLike | None) -> Array:
    if baseline is None:
        return embedding
    try:
        return embedding - jnp.broadcast_to(jnp.asarray(baseline, embedding.dtype), embedding.shape)
    except ValueError:
        raise ValueError(
            f"baseline has shape {np.shape(baseline)}; expected [width] or what broadcasts to the embeddings, {embedding.shape}."
        ) from None


def _dot(a: Array, b: Array) -> Array:
    return (at_least_float32(a) * at_least_float32(b)).sum(-1)


def _attribution(scores: dict[str, Float[Array, "*batch _token"]]) -> Attribution:
    rows = {stack: at_least_float32(score)[..., None, :] for stack, score in scores.items()}
    return Attribution(encoder=rows.get("encoder"), decoder=rows.get("decoder"), positions=np.array([0]))
