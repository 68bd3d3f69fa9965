"""Gradients of a target by every attention weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxflow._attention import STACKS, Attention
from jaxflow.capture._differentiate import differentiate
from jaxflow.capture._targets import Target, evaluate_target
from jaxflow.models import DEFAULT_NAME, Model, Role, as_model, check_token_ids


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
    adapted = as_model(model, variables=variables, sown=sown, roles=roles)
    check_token_ids(adapted, args, kwargs)
    outputs, attention, pull = pull_gradients(adapted, args, kwargs, targets=[target])
    return outputs, attention, pull(0)


def pull_gradients(
    model: Model, args: tuple, kwargs: Mapping[str, Any], *, targets: Sequence[Target]
) -> tuple[Any, Attention, Callable[[int], Attention]]:
    """Run a model once forwards for several targets: each is one backward pass, when it is asked for.

    Args:
        model: the model.
        args: what it is called with.
        kwargs: what it is called with.
        targets: as in `attention_gradients`.

    Returns:
        What the model returns, its attention, and `pull(i)`, the gradients of target i, of the attention's shapes and dtypes.

    Raises:
        ValueError: as `attention_gradients`.
    """
    differentiable = differentiate(model, args, kwargs)

    def values(added: dict[str, Array]) -> tuple[list[Array], tuple[Any, Attention]]:
        outputs, attention = differentiable.run(added)
        stacks = (getattr(attention, name) for name in STACKS)
        batch = next(stack.shape[:-4] for stack in stacks if stack is not None)
        return [evaluate_target(target, outputs, batch).sum() for target in targets], (outputs, attention)

    numbers, backwards, (outputs, attention) = jax.vjp(values, differentiable.zeros(), has_aux=True)

    def pull(i: int) -> Attention:
        (by_name,) = backwards([jnp.full_like(number, i == j) for j, number in enumerate(numbers)])
        return jax.tree.map(lambda g, a: g.astype(a.dtype), differentiable.arrange(by_name), attention)

    return outputs, attention, pull
