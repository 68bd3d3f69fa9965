"""What each token did give to a target, and through where: a model -> its contributions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from jaxflow import _display
from jaxflow._attention import STACKS, AnyArray, Attention, is_traced, numpy_of
from jaxflow.capture._differentiate import differentiate
from jaxflow.capture._frozen import Pulled
from jaxflow.capture._mixing import listed
from jaxflow.capture._targets import Target
from jaxflow.models import DEFAULT_NAME, Model, Role, as_model, check_token_ids


@struct.dataclass
class Contributions:
    """What went from each key to each query for one target, in the target's unit, and what stayed: a flow that is conserved.

    What positions hold at any level sums to the target. All may be negative: evidence against.

    Attributes:
        encoder: `[*batch, layer, source, source]`, arcs: what query q took from key k, summed over heads.
        decoder: `[*batch, layer, target, target]`.
        cross: `[*batch, layer, target, source]`.
        encoder_stay: `[*batch, layer, source]`, what came to a position past the attention, by the residual stream.
        decoder_stay: `[*batch, layer, target]`.
        outputs: `[*batch, token]`, what the positions of the last layer give to the target: of the decoder if there is one.
        value: `[*batch]`, the target.

    Source: gates held at their values, as in DecompX, Modarressi et al. 2023 (2306.02873).
    """

    encoder: Float[AnyArray, "*batch layer source source"] | None = None
    decoder: Float[AnyArray, "*batch layer target target"] | None = None
    cross: Float[AnyArray, "*batch layer target source"] | None = None
    encoder_stay: Float[AnyArray, "*batch layer source"] | None = None
    decoder_stay: Float[AnyArray, "*batch layer target"] | None = None
    outputs: Float[AnyArray, "*batch token"] | None = None
    value: Float[AnyArray, " *batch"] | None = None

    @property
    def levels(self) -> dict[str, Float[AnyArray, "*batch level token"]]:
        """What each position holds, by stack: level 0 are the inputs, level l what layer l computes."""
        found, numpy = {}, numpy_of(self)
        for name in ("encoder", "decoder"):
            arcs, stay = getattr(self, name), getattr(self, f"{name}_stay")
            if arcs is not None:
                left = stay + arcs.sum(-2)
                taken = stay + arcs.sum(-1)
                if name == "decoder" and self.cross is not None:
                    taken = taken + self.cross.sum(-1)
                found[name] = numpy.concatenate([left, taken[..., -1:, :]], axis=-2)
        if self.encoder is None and self.cross is not None:  # the source comes from outside of the model
            found["encoder"] = self.cross.sum((-2, -3))[..., None, :]
        return found

    @property
    def inputs(self) -> dict[str, Float[AnyArray, "*batch token"]]:
        """What the input tokens gave, by stack; all together the target."""
        return {name: levels[..., 0, :] for name, levels in self.levels.items()}

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        return _display.arrays(self, path, subtree_renderer, axes=("layer", "query", "key"))


def capture_contributions(
    model: Any,
    *args: Any,
    target: Target,
    variables: Mapping | None = None,
    sown: str = DEFAULT_NAME,
    roles: Mapping[str, Role] | None = None,
    **kwargs: Any,
) -> tuple[Any, Attention, Contributions]:
    """Run a model once forwards, and its frozen program once backwards: what each token did give to a target.

    Every gate is held at the value that it took: attention weights, divisors of norms, factors such as the sigmoid of a gated
    unit; an activation keeps the ratio of its result to its argument. What remains is linear, so it can be said what each
    query took from each key, and what stayed at each position. Feed-forward layers, biases and positions count as of the token
    at whose position they act. At each level the parts sum to the target. Pure: goes through `jit`, `vmap` and `grad`.

    Args:
        model: what `capture` takes.
        *args: what the model is called with.
        target: y: a function of the model's outputs that returns one number per example, `[*batch]`. `logit`,
            `log_probability` and `contrast` make some. It may read several positions, or a pooled output. Examples must not
            depend on each other.
        variables: as in `capture`.
        sown: as in `capture`.
        roles: as in `capture`.
        **kwargs: what the model is called with.

    Returns:
        What the model returns, to the last bit where its operations run one by one (a scan, and what `jit` compiles, rounds as it
        is fused); its attention; and `Contributions`, float32 at least.

    Raises:
        TypeError: as `capture`.
        ValueError: as `attention_gradients`; operations of which it is not known what is to be held; a target that reads several
            positions of which it cannot be told what each gives.

    Cost: about a forward and a backward pass, without gradients by parameters. The model is traced, then run operation by
        operation; put `jax.jit` around to compile it.

    Example:
        >>> from jaxflow import contrast, load_model
        >>> model, tokenizer = load_model("agreement")
        >>> inputs = tokenizer(["the keys to the cabinet"])
        >>> _, _, contributions = capture_contributions(model, target=contrast(1, 0), **inputs)
        >>> contributions.inputs["encoder"].shape
        (1, 6)

    Source: DecompX, Modarressi et al. 2023 (2306.02873), and DePass (2510.18462) decompose forwards; AttnLRP, Achtibat et al.
    2024 (2402.05602), propagates backwards by rules.
    """
    adapted = as_model(model, variables=variables, sown=sown, roles=roles)
    check_token_ids(adapted, args, kwargs)
    outputs, attention, pull = pull_contributions(adapted, args, kwargs, targets=[target])
    return outputs, attention, pull(0)


def pull_contributions(
    model: Model, args: tuple, kwargs: Mapping[str, Any], *, targets: Sequence[Target]
) -> tuple[Any, Attention, Callable[[int], Contributions]]:
    """Run a model once forwards for several targets: each is one backward pass, when it is asked for.

    Args:
        model: the model.
        args: what it is called with.
        kwargs: what it is called with.
        targets: as in `capture_contributions`.

    Returns:
        What the model returns, its attention, and `pull(i)`, the contributions to target i.

    Raises:
        ValueError: as `capture_contributions`.
    """
    differentiable = differentiate(model, args, kwargs)
    if differentiable.mixing:
        raise ValueError(
            f"The contributions of {model.name} cannot be told, since tokens are mixed by something other than attention:\n"
            f"{listed(differentiable.mixing)}\nWhat stays at a token is what attention did not take from it, and here it may "
            "have gone elsewhere. Expected a model whose attention alone moves anything between tokens; use a method that asks "
            "the model itself, such as LeaveOneOut() or IntegratedGradients()."
        )
    outputs, attention, backwards = differentiable.freeze().run()

    def pull(i: int) -> Contributions:
        pulled = backwards(targets[i])
        gradients = differentiable.arrange(pulled.gradients)
        arcs = {
            name: _arcs(weights, getattr(gradients, name))
            for name in STACKS
            if (weights := getattr(attention, name)) is not None
        }
        return _conserve(arcs, _top(model.name, pulled, gradients), pulled.value)

    return outputs, attention, pull


def _arcs(weights: Array, gradients: Array) -> Array:
    """Return what moved along each arc, heads summed up; exactly 0 where nothing depends on it, whatever the weight."""
    wide = jnp.promote_types(weights.dtype, jnp.float32)
    gradients = gradients.astype(wide)
    return jnp.where(gradients == 0, 0, weights.astype(wide) * gradients).sum(-3)


def _top(name: str, pulled: Pulled, gradients: Attention) -> Array:
    """Return what each position of the last layer gives to the target, `[*batch, token]`.

    What belongs to no position, such as the bias of a head, is shared by those that are read, by the size of what they give.

    Raises:
        ValueError: several are read, and it cannot be told what each gives.
    """
    stack = gradients.decoder if gradients.decoder is not None else gradients.encoder
    assert stack is not None
    value = pulled.value[..., None]
    if stack.shape[-1] == 1:  # there is no other
        return value
    if pulled.given is None:
        read = (stack[..., -1, :, :, :] != 0).any((-3, -1))
        if is_traced(read) or bool((read.sum(-1) != 1).any()):
            raise ValueError(
                f"The target reads several positions of {name}, and it cannot be told what each gives, since it could not be "
                "followed where they are put together. Expected outputs per position, [*batch, token, ...], one position that is "
                "picked, or a sum over positions: return the last hidden states, and let the target put them together."
            )
        return jnp.where(read, value, 0)
    given = pulled.given.astype(value.dtype)
    size = jnp.abs(given)
    total = size.sum(-1, keepdims=True)
    n_read = jnp.maximum((size > 0).sum(-1, keepdims=True), 1)
    share = jnp.where(
        total > 0, size / jnp.where(total > 0, total, 1), jnp.where(size > 0, 1 / n_read, 1 / size.shape[-1])
    )
    return given + (value - given.sum(-1, keepdims=True)) * share


def _conserve(arcs: Mapping[str, Array], top: Array, value: Array) -> Contributions:
    """Walk down from the last layer: what a position holds came from the keys that it read, and the rest stayed."""
    stays: dict[str, Array] = {}
    crossing = arcs.get("cross")
    for name, level in (("decoder", top), ("encoder", top if crossing is None else crossing.sum((-2, -3)))):
        if name not in arcs:
            continue
        taken = arcs[name].sum(-1)
        if name == "decoder" and crossing is not None:
            taken = taken + crossing.sum(-1)
        rises = jnp.flip(jnp.cumsum(jnp.flip(arcs[name].sum(-2) - taken, -2), -2), -2)
        above = level[..., None, :] + jnp.concatenate([rises[..., 1:, :], jnp.zeros_like(rises[..., :1, :])], -2)
        stays[f"{name}_stay"] = above - taken
    return Contributions(**arcs, **stays, outputs=top, value=value)
