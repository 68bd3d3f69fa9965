"""Attention rollout and raw attention: methods that solve nothing."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from jaxflow._attention import AnyArray, AnyInt, Attention, SourceMask, TargetMask, is_traced, numpy_of
from jaxflow.attribute._attribution import Attribution, split_scores
from jaxflow.attribute._evidence import Evidence, capacities_by, needs_of
from jaxflow.attribute._together import attribute_together, can_be_together
from jaxflow.capture import Residual
from jaxflow.network import (
    Capacities,
    Heads,
    Positions,
    Weighting,
    as_capacities,
    batch_of,
    check_positions,
    lengths,
)


@dataclasses.dataclass(frozen=True)
class Rollout:
    """Attention rollout: the product of the capacities of all layers.

    Attributes:
        heads: how heads are reduced, as in `joint_capacities`.
        residual: the residual stream's share of each capacity, as in `joint_capacities`.
        weighting: "attention", "gradient" or "attention_gradient", as in `AttentionFlow`. With "attention_gradient" at the
            default residual, it is the relevance map of Chefer et al. 2021, the product of all `I + mean_h relu(A * G)`, divided
            by 2 for each layer (in encoders and decoder-only models; their rules for cross-attention differ).
        normalise: divide each output's scores by their sum over all inputs.

    Source: Abnar & Zuidema 2020 (2005.00928), section 3.1; with gradients Chefer et al. 2021 (2103.15679), equations 5 and 6.
    """

    heads: Heads = "mean"
    residual: Residual = 0.5
    weighting: Weighting = "attention"
    normalise: bool = False

    name: ClassVar[str] = "rollout"
    adds_up: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[str]:
        """What it needs of a model."""
        return needs_of(self.weighting)

    def attribute(self, evidence: Evidence) -> Attribution:
        """Score the inputs of one example for its explained positions; with gradients, each position by its own target."""

        def score(row: int, positions: Sequence[int] | None) -> Attribution:
            return rollout(evidence.capacities(self, row), positions=evidence.for_arrays(positions))

        return evidence.summed(score, by_target="gradients" in self.needs, normalise=self.normalise)

    def attribute_each(self, evidences: Sequence[Evidence]) -> list[Attribution]:
        """Do what `attribute` does for several examples: those of similar length are multiplied together."""
        if type(self) is not Rollout or self.weighting != "attention" or not can_be_together(evidences):
            return [self.attribute(evidence) for evidence in evidences]
        return attribute_together(self, evidences, lambda batch: self(batch.capacities))

    def __call__(self, attention: Any, *, positions: Positions | None = None) -> Attribution:
        """Score arrays: `rollout` with the options of this method; heads and residual are those of `Capacities` already made."""
        return rollout(capacities_by(self, attention), positions=positions, normalise=self.normalise)


@dataclasses.dataclass(frozen=True)
class RawAttention:
    """The attention of one layer, without the residual stream.

    Attributes:
        layer: which layer; the last by default, as Abnar & Zuidema.
        heads: how heads are reduced, as in `joint_capacities`.
        normalise: divide each output's scores by their sum over all inputs.

    Source: Abnar & Zuidema 2020 (2005.00928), section 2.
    """

    layer: AnyInt = -1
    heads: Heads = "mean"
    normalise: bool = False

    name: ClassVar[str] = "raw"
    adds_up: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"attention"})
    residual: ClassVar[float] = 0.0
    weighting: ClassVar[Weighting] = "attention"

    def attribute(self, evidence: Evidence) -> Attribution:
        """Score the inputs of one example for its explained positions."""

        def score(row: int, positions: Sequence[int] | None) -> Attribution:
            return raw_attention(
                evidence.capacities(self, row), layer=self.layer, positions=evidence.for_arrays(positions)
            )

        return evidence.summed(score, by_target=False, normalise=self.normalise)

    def attribute_each(self, evidences: Sequence[Evidence]) -> list[Attribution]:
        """Do what `attribute` does for several examples at once."""
        if type(self) is not RawAttention or not can_be_together(evidences):
            return [self.attribute(evidence) for evidence in evidences]
        return attribute_together(self, evidences, lambda batch: self(batch.capacities))

    def __call__(self, attention: Any, *, positions: Positions | None = None) -> Attribution:
        """Score arrays: `raw_attention` with the options of this method; heads are those of `Capacities` already made."""
        capacities = capacities_by(self, attention)
        return raw_attention(capacities, layer=self.layer, positions=positions, normalise=self.normalise)


def rollout(
    attention: Attention | Capacities | Float[ArrayLike, "*batch layer head source source"] | Iterator[Any],
    *,
    positions: Positions | None = None,
    heads: Heads | None = None,
    residual: Residual | None = None,
    encoder_mask: SourceMask | None = None,
    decoder_mask: TargetMask | None = None,
    normalise: bool = False,
) -> Attribution:
    """Multiply the capacities of all layers: `rollout = C_L ... C_2 C_1`.

    A decoder layer with cross-attention maps what its positions hold, D, to `r C_self D + C_cross E`, E being what the
    encoder's last layer holds ("sublayers" in `flow_network`). One of the maximum flows from all inputs at once, so
    `rollout[p, i] <= attention_flow[p, i]`, and rows sum to 1.
    Pure: goes through `jit`, `vmap` and `grad`. O(n_layers * n_tokens^3).

    Args:
        attention: as in `attention_flow`.
        positions: outputs to explain; None for all.
        heads: as in `joint_capacities`; "mean" if None.
        residual: as in `joint_capacities`; 0.5 if None.
        encoder_mask: `[*batch, source]`, False where padded.
        decoder_mask: `[*batch, target]`, likewise.
        normalise: divide each output's scores by their sum.

    Returns:
        `Attribution` in [0, 1], without certificate: JAX arrays, or NumPy's for `Capacities` of these.

    Raises:
        ValueError: as `attention_flow`.

    Example:
        >>> layer = jnp.array([[0.75, 0.25], [0.5, 0.5]])
        >>> rollout(jnp.stack([layer, layer])[:, None], residual=0.0).encoder
        Array([[0.6875, 0.3125],
               [0.625 , 0.375 ]], dtype=float32)

    Source: `attention rollout` of Abnar & Zuidema 2020 (2005.00928), section 3.1.
    """
    capacities = as_capacities(
        attention, heads=heads, residual=residual, encoder_mask=encoder_mask, decoder_mask=decoder_mask
    )
    if capacities.cross is not None and capacities.residual is None:
        raise ValueError(
            "Rollout through a decoder with cross-attention needs the residual: set Capacities(residual=...)."
        )
    return _apply(_rollout, capacities, positions, normalise)


def raw_attention(
    attention: Attention | Capacities | Float[ArrayLike, "*batch layer head source source"] | Iterator[Any],
    *,
    layer: AnyInt = -1,
    positions: Positions | None = None,
    heads: Heads | None = None,
    encoder_mask: SourceMask | None = None,
    decoder_mask: TargetMask | None = None,
    normalise: bool = False,
) -> Attribution:
    """Take the attention of one layer, heads reduced, without the residual stream: `raw = A_layer`.

    In a decoder with cross-attention, that is its cross-attention for the source and its self-attention for the target.
    Pure: goes through `jit`, `vmap` and `grad`.

    Args:
        attention: as in `attention_flow`; `Capacities` are taken as they are, with the residual they were made with.
        layer: which layer; the last by default, as Abnar & Zuidema.
        positions: outputs to explain; None for all.
        heads: as in `joint_capacities`; "mean" if None.
        encoder_mask: `[*batch, source]`, False where padded.
        decoder_mask: `[*batch, target]`, likewise.
        normalise: divide each output's scores by their sum.

    Returns:
        `Attribution` of JAX arrays in [0, 1], without certificate.

    Raises:
        ValueError: as `attention_flow`; a layer that does not exist.

    Source: `raw attention` of Abnar & Zuidema 2020 (2005.00928), section 2.
    """
    residual = None if isinstance(attention, Capacities) else 0.0
    capacities = as_capacities(
        attention, heads=heads, residual=residual, encoder_mask=encoder_mask, decoder_mask=decoder_mask
    )
    stack = capacities.encoder if capacities.decoder is None else capacities.decoder
    n_layers = 0 if stack is None else stack.shape[-3]
    if not -n_layers <= layer < n_layers:
        raise ValueError(
            f"Layer {layer} does not exist: there are {n_layers}, 0 to {n_layers - 1} (or -1 for the last)."
        )
    return _apply(functools.partial(_one_layer, layer=layer), capacities, positions, normalise)


def _one_layer(capacities: Capacities, *, layer: AnyInt) -> Float[AnyArray, "*batch output player"]:
    stacks = (capacities.cross, capacities.decoder) if capacities.decoder is not None else (capacities.encoder,)
    return numpy_of(capacities).concatenate([stack[..., layer, :, :] for stack in stacks if stack is not None], axis=-1)


def _rollout(capacities: Capacities) -> Float[AnyArray, "*batch output player"]:
    """Follow what every position holds of each player, layer by layer: compiled, or in NumPy what is on the host."""
    return _follow(capacities, np) if numpy_of(capacities) is np else _compiled_follow(capacities)


def _follow(capacities: Capacities, numpy: Any) -> Float[AnyArray, "*batch output player"]:
    n_source, n_target = lengths(capacities)
    stacks = [leaf for leaf in (capacities.encoder, capacities.decoder) if leaf is not None]
    held = numpy.eye(n_source + n_target, dtype=jnp.result_type(*stacks))
    source, target = held[:n_source], held[n_source:]
    source = _over_layers(numpy, lambda held, layer: _times(numpy, layer, held), source, capacities.encoder)
    if capacities.decoder is None:
        return source
    if capacities.cross is None:
        return _over_layers(numpy, lambda held, layer: _times(numpy, layer, held), target, capacities.decoder)
    residual = numpy.asarray(capacities.residual)[..., None, None]

    def layer(target: AnyArray, both: tuple[AnyArray, AnyArray]) -> AnyArray:
        decoder, cross = both
        return residual * _times(numpy, decoder, target) + _times(numpy, cross, source)

    return _over_layers(numpy, layer, target, (capacities.decoder, capacities.cross))


def _over_layers(numpy: Any, step: Callable[[AnyArray, Any], AnyArray], held: AnyArray, layers: Any) -> AnyArray:
    """Apply a step for each layer; `layers` is an array `[*batch, layer, query, key]`, a tuple of them, or None for none."""
    if layers is None:
        return held
    if numpy is np:
        for number in range(jax.tree.leaves(layers)[0].shape[-3]):
            held = step(held, jax.tree.map(lambda leaf, number=number: leaf[..., number, :, :], layers))
        return held
    return jax.lax.scan(lambda held, layer: (step(held, layer), None), held, jax.tree.map(jnp.asarray, layers))[0]


_compiled_follow = jax.jit(functools.partial(_follow, numpy=jnp))


def _times(
    numpy: Any, layer: Float[AnyArray, "... query key"], held: Float[AnyArray, "... key player"]
) -> Float[AnyArray, "... query player"]:
    return np.matmul(layer, held) if numpy is np else jnp.matmul(layer, held, precision="highest")


def _apply(
    scores_of: Callable[[Capacities], AnyArray],
    capacities: Capacities,
    positions: Positions | None,
    normalise: bool,
) -> Attribution:
    """Apply a function of capacities to every example; of those on a device, to each by `vmap`."""
    n_source, n_target = lengths(capacities)
    batch = batch_of(capacities)
    mask = capacities.decoder_mask if n_target else capacities.encoder_mask
    known = mask is not None and not is_traced(mask)
    chosen = check_positions(positions, np.asarray(mask) if known else np.ones((*batch, n_target or n_source), bool))
    if numpy_of(capacities) is not np:
        capacities = jax.tree.map(jnp.asarray, capacities)
        scores_of = functools.reduce(lambda f, _: jax.vmap(f), batch, scores_of)
    scores = scores_of(capacities)[..., chosen, :]
    return split_scores(scores, n_source, positions=chosen, normalise=normalise)
