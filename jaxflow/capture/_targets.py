"""What is explained: one number of a model's outputs, and its gradient with respect to every attention weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from jaxflow._attention import STACKS, Attention, at_least_float32
from jaxflow.capture._linen import DEFAULT_NAME
from jaxflow.capture._perturbing import perturbable_model
from jaxflow.capture._roles import Role

# A model's outputs -> one number per example, `[*batch]`, or their sum.
Target = Callable[[Any], Float[Array, "..."]]


def attention_gradients(
    model: Any,
    *args: Any,
    target: Target,
    variables: Mapping | None = None,
    sown: str = DEFAULT_NAME,
    roles: Mapping[str, Role] | None = None,
    **kwargs: Any,
) -> tuple[Any, Attention, Attention]:
    """Run a model once forwards and once backwards: `G = dy/dA` for every attention weight A.

    G says by how much the target y would change if a weight, after the softmax, were another one and the rest of the model
    went on from there: row sums are not kept, and later layers' attention changes with it. Pure: goes through `jit` and `vmap`.

    Args:
        model: what `capture` takes.
        *args: what the model is called with.
        target: y: a function of the model's outputs that returns one number per example, `[*batch]`, or their sum. `logit`,
            `log_probability` and `contrast` make some. Examples must not depend on each other.
        variables: as in `capture`.
        sown: as in `capture`.
        roles: as in `capture`.
        **kwargs: what the model is called with.

    Returns:
        What the model returns, its attention, and the gradients, of the same shapes and dtypes as the attention: what
        `joint_capacities(attention, weighting=..., gradients=...)` takes.

    Raises:
        TypeError: as `capture`.
        ValueError: as `capture`; a target that is no one number per example; attention that is sown as a copy, or computed
            inside an `nn.vmap` or a `while` loop; in a trace, weights that are changed after dropout, or that never are an
            array of their own and are used in several ways.

    Cost: the model is traced, then run operation by operation (put `jax.jit` around to compile it); a backward pass costs
    about two forward ones, and the memory of its activations (`jax.checkpoint` around attention has no effect here).

    Example:
        >>> import flax.linen as nn
        >>> model = nn.MultiHeadDotProductAttention(num_heads=2)
        >>> x = jax.random.normal(jax.random.key(0), (1, 5, 8))
        >>> variables = model.init(jax.random.key(1), x)
        >>> _, attention, gradients = attention_gradients(
        ...     model, x, variables=variables, target=lambda outputs: outputs[:, 0, 3]
        ... )
        >>> gradients.encoder.shape, bool((gradients.encoder[0, 0, :, 1:] == 0).all())
        ((1, 1, 2, 5, 5), True)

    Source: the gradients of attention maps in Chefer et al. 2021 (2103.15679), and of Generalized Attention Flow,
    Azarkhalili & Libbrecht 2025 (2502.15765).
    """
    model_outputs, attention, pull = pull_gradients(
        model, args, kwargs, targets=[target], variables=variables, sown=sown, roles=roles
    )
    return model_outputs, attention, pull(0)


def pull_gradients(
    model: Any,
    args: tuple,
    kwargs: dict,
    *,
    targets: Sequence[Target],
    variables: Mapping | None = None,
    sown: str = DEFAULT_NAME,
    roles: Mapping[str, Role] | None = None,
) -> tuple[Any, Attention, Callable[[int], Attention]]:
    """Run a model once forwards for several targets: each is one backward pass, when it is asked for.

    Args:
        model: as in `attention_gradients`, like all that is not named here.
        args: what the model is called with.
        kwargs: what the model is called with.
        targets: the numbers to explain.
        variables: as in `capture`.
        sown: as in `capture`.
        roles: as in `capture`.

    Returns:
        What the model returns, its attention, and `pull(i)`, the gradients of target i.
    """
    perturbable = perturbable_model(model, args, kwargs, variables=variables, sown=sown, roles=roles)

    def values(added: dict[str, Array]) -> tuple[list[Array], tuple[Any, Attention]]:
        outputs, attention = perturbable.run(added)
        stacks = (getattr(attention, name) for name in STACKS)
        batch = next(stack.shape[:-4] for stack in stacks if stack is not None)
        return [evaluate(target, outputs, batch).sum() for target in targets], (outputs, attention)

    nothing = {name: jnp.zeros(shape.shape, shape.dtype) for name, shape in perturbable.shapes().items()}
    numbers, backwards, (outputs, attention) = jax.vjp(values, nothing, has_aux=True)

    def pull(i: int) -> Attention:
        (by_name,) = backwards([jnp.full_like(number, i == j) for j, number in enumerate(numbers)])
        return jax.tree.map(lambda g, a: g.astype(a.dtype), perturbable.join(by_name), attention)

    return outputs, attention, pull


def evaluate(target: Target, outputs: Any, batch: tuple[int, ...]) -> Float[Array, ...]:
    """Return `target(outputs)`, one number per example of `batch` or one for all, float32 at least.

    Raises:
        ValueError: it is something else.
    """
    value = target(outputs)
    shape = getattr(value, "shape", None)
    if shape not in ((), tuple(batch)) or not jnp.issubdtype(value.dtype, jnp.floating):
        got = type(value).__name__ if shape is None else f"shape {tuple(shape)} and dtype {value.dtype}"
        raise ValueError(
            f"target returned {got}; expected one number per example, shape {tuple(batch)}, or one for all, shape (). Of logits "
            "per position, [*batch, token, label], say which: logit(label, position=0)."
        )
    return at_least_float32(value)


def logit(label: int | Int[ArrayLike, " *batch"], *, position: int | Int[ArrayLike, " *batch"] | None = None) -> Target:
    """Make the target `y = logits[label]`.

    Args:
        label: number of the label or token; one, or one per example.
        position: of which position, where logits are per position, `[*batch, token, label]`; None where they are of the
            whole sequence. Position p of a decoder predicts the token at p + 1. Negative ones count from the end.

    Returns:
        A function of the model's outputs: logits, or an object whose field `logits` they are.

    Example:
        >>> logit(1, position=-1)(jnp.array([[[1.0, 2.0], [3.0, 4.0]]]))
        Array([4.], dtype=float32)
    """
    return lambda outputs: _pick(logits_of(outputs, position), label)


def log_probability(
    label: int | Int[ArrayLike, " *batch"], *, position: int | Int[ArrayLike, " *batch"] | None = None
) -> Target:
    """Make the target `y = log softmax(logits)[label]`; arguments as in `logit`.

    Example:
        >>> log_probability(1)(jnp.array([[2.0, 2.0]]))
        Array([-0.6931472], dtype=float32)
    """
    return lambda outputs: _pick(jax.nn.log_softmax(logits_of(outputs, position)), label)


def contrast(
    label: int | Int[ArrayLike, " *batch"],
    other: int | Int[ArrayLike, " *batch"],
    *,
    position: int | Int[ArrayLike, " *batch"] | None = None,
) -> Target:
    """Make the target `y = logits[label] - logits[other]`: why this and not that. Arguments as in `logit`.

    Example:
        >>> contrast(1, 0)(jnp.array([[1.0, 4.0]]))
        Array([3.], dtype=float32)

    Source: contrastive explanations of Yin & Neubig 2022 (2202.10419).
    """

    def value(outputs: Any) -> Array:
        logits = logits_of(outputs, position)
        return _pick(logits, label) - _pick(logits, other)

    return value


def logits_of(
    outputs: Any, position: int | Int[ArrayLike, " *batch"] | None = None
) -> Float[Array, "*batch label"] | Float[Array, "*batch token label"]:
    """Return a model's logits, those of one position if it is given, float32 at least.

    Raises:
        ValueError: outputs without logits; a position that does not exist, or of logits that are not per position.
    """
    logits = getattr(outputs, "logits", outputs)
    if not hasattr(logits, "dtype") or not logits.ndim:
        raise ValueError(
            f"the model returned {type(outputs).__name__}, which neither is an array of logits nor has a field logits: pass a "
            "function of the outputs as target."
        )
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(
            f"the model returned {logits.dtype} of shape {jnp.shape(logits)}; expected logits, of a floating dtype."
        )
    logits = at_least_float32(jnp.asarray(logits))
    if position is None:
        return logits
    if logits.ndim < 2:
        raise ValueError(f"position is given, but logits have shape {logits.shape}: expected [*batch, token, label].")
    return jnp.moveaxis(_pick(jnp.moveaxis(logits, -1, 0), position), 0, -1)


def _pick(values: Float[Array, "*batch choice"], index: int | Int[ArrayLike, " *batch"]) -> Float[Array, "*batch"]:
    """Take one of the last axis."""
    n_choices = values.shape[-1]
    if not isinstance(index, jax.core.Tracer):
        with jax.ensure_compile_time_eval():
            if not ((-n_choices <= jnp.asarray(index)) & (jnp.asarray(index) < n_choices)).all():
                raise ValueError(f"{index} does not exist: there are {n_choices}, 0 to {n_choices - 1}.")
    index = jnp.broadcast_to(jnp.asarray(index), values.shape[:-1])
    return jnp.take_along_axis(values, index[..., None], axis=-1)[..., 0]
