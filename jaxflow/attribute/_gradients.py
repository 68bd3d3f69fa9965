"""Scores by gradients with respect to token embeddings: what attention flow is compared with, in the same result type."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jaxflow._attention import at_least_float32
from jaxflow.attribute._attribution import Attribution
from jaxflow.capture import Target, evaluate, run_embedded

# Of one stack or two: `[*batch, token, width]` each.
Embeddings = dict[str, Float[Array, "*batch token width"]]


def gradient_norm(
    model: Any,
    *args: Any,
    target: Target,
    output: int = 0,
    variables: Mapping | None = None,
    embedding: str | None = None,
    **kwargs: Any,
) -> Attribution:
    """Score each token by how steeply the target depends on it: `score[i] = ||dy/de_i||_2`, e_i its embedding.

    Token embeddings alone are differentiated by, not those of positions. Padding that no token attends to scores exactly 0. One
    forward and one backward pass.

    Args:
        model: a Flax class of transformers 4, a `flax.linen` module, bound or with `variables`, or a `flax.nnx` module.
        *args: what the model is called with.
        target: the number to explain, as in `attention_gradients`.
        output: the position that the target is about; it names the row of the result, and changes no score.
        variables: those of an unbound linen module.
        embedding: a fragment of the path of the `nn.Embed` or `nnx.Embed` of tokens, such as "/tokens/", where it is not found by
            itself: in transformers it is as large as the vocabulary, in other modules it is called with an input of the model.
        **kwargs: what the model is called with.

    Returns:
        `Attribution` of JAX arrays >= 0 with one row, of the encoder's tokens, the decoder's or both.

    Raises:
        TypeError: a model that is not supported here.
        ValueError: no token embedding is found; a target that is no one number per example.

    Source: the sensitivity maps of Simonyan et al. 2014 (1312.6034), per token as in Li et al. 2016 (1506.01066).
    """
    value, embeddings = _differentiable(model, args, kwargs, target, variables, embedding)
    gradients = jax.grad(lambda added: value(added).sum())(_zeros(embeddings))
    return _attribution({stack: jnp.linalg.norm(g, axis=-1) for stack, g in gradients.items()}, output)


def input_x_gradient(
    model: Any,
    *args: Any,
    target: Target,
    output: int = 0,
    variables: Mapping | None = None,
    embedding: str | None = None,
    **kwargs: Any,
) -> Attribution:
    """Score each token by the first-order effect of its embedding: `score[i] = e_i . dy/de_i`.

    Arguments as in `gradient_norm`. Scores have a sign: those below 0 speak against the target.

    Returns:
        `Attribution` of JAX arrays with one row.

    Raises:
        TypeError: a model that is not supported here.
        ValueError: as `gradient_norm`.

    Source: Denil et al. 2014 (1412.6815); Shrikumar et al. 2017 (1704.02685).
    """
    value, embeddings = _differentiable(model, args, kwargs, target, variables, embedding)
    gradients = jax.grad(lambda added: value(added).sum())(_zeros(embeddings))
    return _attribution({stack: _dot(embeddings[stack], g) for stack, g in gradients.items()}, output)


def integrated_gradients(
    model: Any,
    *args: Any,
    target: Target,
    output: int = 0,
    steps: int = 32,
    baseline: Float[ArrayLike, ...] | None = None,
    variables: Mapping | None = None,
    embedding: str | None = None,
    **kwargs: Any,
) -> Attribution:
    """Score each token by its share of what the target gains from a baseline: `(e_i - b) . mean_k dy/de_i(b + a_k (e - b))`.

    `a_k = (k + 1/2) / steps`. All tokens move at once. Scores would add up to `y(e) - y(b)` with infinitely many steps; what is
    missing is `completeness_gap`, which tells whether there were enough. One forward and backward pass per step, compiled once.

    Args:
        model: as in `gradient_norm`.
        *args: what the model is called with.
        target: as in `gradient_norm`.
        output: as in `gradient_norm`.
        steps: how many points of the path, 1 or more.
        baseline: b, an embedding `[width]` or anything that broadcasts to `[*batch, token, width]`; 0 by default.
        variables: as in `gradient_norm`.
        embedding: as in `gradient_norm`.
        **kwargs: what the model is called with.

    Returns:
        `Attribution` of JAX arrays with one row, and its `completeness_gap`, `[*batch]`: `y(e) - y(b) - sum of scores`.

    Raises:
        TypeError: a model that is not supported here.
        ValueError: as `gradient_norm`; fewer steps than one; a target that is not one number per example; a baseline that
            does not fit.

    Source: Sundararajan et al. 2017 (1703.01365), equation 3, by the midpoint rule.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; expected 1 or more.")
    value, embeddings = _differentiable(model, args, kwargs, target, variables, embedding)
    way = {stack: _from_baseline(e, baseline) for stack, e in embeddings.items()}

    def at(fraction: Float[Array, ""]) -> Float[Array, "*batch"]:
        return value({stack: (fraction.astype(w.dtype) - 1) * w for stack, w in way.items()})

    def gradients_at(fraction: Float[Array, ""]) -> Embeddings:
        return jax.grad(lambda added: value(added).sum())(
            {stack: (fraction.astype(w.dtype) - 1) * w for stack, w in way.items()}
        )

    def add(total: Embeddings, fraction: Float[Array, ""]) -> tuple[Embeddings, None]:
        return jax.tree.map(lambda t, g: t + g.astype(t.dtype) / steps, total, gradients_at(fraction)), None

    nothing = jax.tree.map(lambda w: jnp.zeros(w.shape, at_least_float32(w).dtype), way)
    total, _ = jax.lax.scan(add, nothing, (jnp.arange(steps, dtype=jnp.float32) + 0.5) / steps)
    scores = {stack: _dot(way[stack], gradient) for stack, gradient in total.items()}
    gained = at(jnp.ones(())) - at(jnp.zeros(()))
    batch = next(iter(scores.values())).shape[:-1]
    if gained.shape != batch:
        raise ValueError(
            f"target returned one number for {batch} examples; expected one for each, or their gaps cannot be told."
        )
    gap = gained - sum(score.sum(-1) for score in scores.values())
    return dataclasses.replace(_attribution(scores, output), completeness_gap=gap)


def _differentiable(
    model: Any, args: tuple, kwargs: dict, target: Target, variables: Mapping | None, embedding: str | None
) -> tuple[Callable[[Embeddings], Array], Embeddings]:
    """Return the target as a function of what is added to the embeddings, and the embeddings."""

    def value(added: Embeddings) -> Array:
        outputs, found = run_embedded(model, args, kwargs, variables=variables, embedding=embedding, added=added)
        return evaluate(target, outputs, next(iter(found.values())).shape[:-2])

    _, embeddings = run_embedded(model, args, kwargs, variables=variables, embedding=embedding)
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


def _attribution(scores: dict[str, Float[Array, "*batch token"]], output: int) -> Attribution:
    rows = {stack: at_least_float32(score)[..., None, :] for stack, score in scores.items()}
    return Attribution(encoder=rows.get("encoder"), decoder=rows.get("decoder"), outputs=np.array([output]))
