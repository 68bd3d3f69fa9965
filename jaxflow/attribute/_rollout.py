"""Methods that cost no solve, in the same result type: rollout, with gradients too, raw attention, and chance."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from jaxflow._attention import Attention, is_traced
from jaxflow.attribute._attribution import Attribution, split_scores
from jaxflow.network import Capacities, Heads, as_capacities, batch_of, check_outputs, joint_capacities, lengths


def rollout(
    attention: Attention | Capacities | Float[ArrayLike, "*batch layer head source source"] | Iterator[Any],
    *,
    outputs: int | Sequence[int] | None = None,
    heads: Heads | None = None,
    residual: float | None = None,
    encoder_mask: Bool[ArrayLike, "*batch source"] | None = None,
    decoder_mask: Bool[ArrayLike, "*batch target"] | None = None,
    normalise: bool = False,
) -> Attribution:
    """Multiply the capacities of all layers: `rollout = C_L ... C_2 C_1`.

    A decoder layer with cross-attention maps what its positions hold, D, to `r C_self D + C_cross E`, E being what the
    encoder's last layer holds ("sublayers" in `flow_network`). One of the maximum flows from all inputs at once, so
    `rollout[p, i] <= attention_flow[p, i]`, and rows sum to 1.
    Pure: goes through `jit`, `vmap` and `grad`. O(n_layers * n_tokens^3).

    Args:
        attention: as in `attention_flow`.
        outputs: positions to explain; None for all.
        heads: as in `joint_capacities`; "mean" if None.
        residual: as in `joint_capacities`; 0.5 if None.
        encoder_mask: `[*batch, source]`, False where padded.
        decoder_mask: `[*batch, target]`, likewise.
        normalise: divide each output's scores by their sum.

    Returns:
        `Attribution` of JAX arrays in [0, 1], without certificate.

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
    return _attribute(_rollout, capacities, outputs, normalise)


def raw_attention(
    attention: Attention | Capacities | Float[ArrayLike, "*batch layer head source source"] | Iterator[Any],
    *,
    layer: int = -1,
    outputs: int | Sequence[int] | None = None,
    heads: Heads | None = None,
    encoder_mask: Bool[ArrayLike, "*batch source"] | None = None,
    decoder_mask: Bool[ArrayLike, "*batch target"] | None = None,
    normalise: bool = False,
) -> Attribution:
    """Take the attention of one layer, heads reduced, without the residual stream: `raw = A_layer`.

    In a decoder with cross-attention, that is its cross-attention for the source and its self-attention for the target.
    Pure: goes through `jit`, `vmap` and `grad`.

    Args:
        attention: as in `attention_flow`; `Capacities` are taken as they are, with the residual they were made with.
        layer: which layer; the last by default, as Abnar & Zuidema.
        outputs: positions to explain; None for all.
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
    return _attribute(functools.partial(_one_layer, layer=layer), capacities, outputs, normalise)


def gradient_rollout(
    attention: Attention,
    gradients: Attention,
    *,
    outputs: int | Sequence[int] | None = None,
    heads: Heads = "mean",
    residual: float = 0.5,
    encoder_mask: Bool[ArrayLike, "*batch source"] | None = None,
    decoder_mask: Bool[ArrayLike, "*batch target"] | None = None,
    normalise: bool = False,
) -> Attribution:
    """Multiply layers of attention x gradient: rollout over the capacities of `relu(A * G)`.

    At the default residual it is the relevance map of Chefer et al. 2021, the product of all `I + mean_h relu(A * G)`, divided
    by 2 for each layer (in encoders and decoder-only models; their rules for cross-attention differ).

    Args:
        attention: A, as `attention_gradients` returns it.
        gradients: G, likewise.
        outputs: as in `rollout`; of positions other than those that the target was read from, rows mean little.
        heads: as in `joint_capacities`.
        residual: as in `joint_capacities`.
        encoder_mask: `[*batch, source]`, False where padded.
        decoder_mask: `[*batch, target]`, likewise.
        normalise: divide each output's scores by their sum.

    Returns:
        `Attribution` of JAX arrays >= 0, without certificate.

    Raises:
        ValueError: as `joint_capacities` and `rollout`.

    Source: Chefer et al. 2021 (2103.15679), equations 5 and 6.
    """
    capacities = joint_capacities(
        attention,
        weighting="attention_gradient",
        gradients=gradients,
        heads=heads,
        residual=residual,
        encoder_mask=encoder_mask,
        decoder_mask=decoder_mask,
    )
    return rollout(capacities, outputs=outputs, normalise=normalise)


def random_scores(
    like: Attribution,
    *,
    seed: int = 0,
    encoder_mask: Bool[ArrayLike, "*batch source"] | None = None,
    decoder_mask: Bool[ArrayLike, "*batch target"] | None = None,
) -> Attribution:
    """Draw a score for every output and token, uniformly from [0, 1): what a method must beat.

    Args:
        like: an attribution of the same stacks, shapes and outputs.
        seed: same seed, same scores.
        encoder_mask: `[*batch, source]`, False where padded: scores are 0 there.
        decoder_mask: `[*batch, target]`, likewise.

    Returns:
        `Attribution` of NumPy arrays, float64.
    """
    rng = np.random.default_rng(seed)

    def draw(scores: Any, mask: ArrayLike | None) -> np.ndarray | None:
        if scores is None:
            return None
        drawn = rng.random(np.shape(scores))
        return drawn if mask is None else np.where(np.asarray(mask, bool)[..., None, :], drawn, 0.0)

    return Attribution(
        encoder=draw(like.encoder, encoder_mask), decoder=draw(like.decoder, decoder_mask), outputs=like.outputs
    )


def add_up(
    attribution: Attribution,
    *,
    encoder_spans: Bool[np.ndarray, "span source"] | None = None,
    decoder_spans: Bool[np.ndarray, "span target"] | None = None,
    output_spans: Bool[np.ndarray, "span output"] | None = None,
    normalise: bool = False,
) -> Attribution:
    """Add up scores that are shares, of the tokens of each span; of flows the joint one is no sum (see `attention_flow`).

    Args:
        attribution: of single tokens and all outputs, where these are added up.
        encoder_spans: a mask over the encoder's tokens for each span.
        decoder_spans: likewise of the decoder's.
        output_spans: likewise of the outputs.
        normalise: divide each output's scores by their sum.

    Returns:
        `Attribution` with a score for each span.
    """
    parts = [
        scores if spans is None else scores @ spans.T.astype(scores.dtype)
        for scores, spans in ((attribution.encoder, encoder_spans), (attribution.decoder, decoder_spans))
        if scores is not None
    ]
    scores, outputs = np.concatenate(parts, axis=-1), attribution.outputs
    if output_spans is not None:
        scores, outputs = output_spans.astype(scores.dtype) @ scores, np.arange(len(output_spans))
    n_encoder = 0 if attribution.encoder is None else parts[0].shape[-1]
    return split_scores(scores, n_encoder, outputs=outputs, normalise=normalise)


def _one_layer(capacities: Capacities, *, layer: int) -> Float[Array, "output player"]:
    stacks = (capacities.cross, capacities.decoder) if capacities.decoder is not None else (capacities.encoder,)
    return jnp.concatenate([stack[layer] for stack in stacks if stack is not None], axis=-1)


def _rollout(capacities: Capacities) -> Float[Array, "output player"]:
    """Follow what every position holds of each player, layer by layer."""

    def after(layers: Array, held: Array) -> Array:
        return jax.lax.scan(lambda held, layer: (_times(layer, held), None), held, layers)[0]

    n_source, n_target = lengths(capacities)
    dtype = jnp.result_type(*(leaf for leaf in (capacities.encoder, capacities.decoder) if leaf is not None))
    held = jnp.eye(n_source + n_target, dtype=dtype)
    source, target = held[:n_source], held[n_source:]
    if capacities.encoder is not None:
        source = after(capacities.encoder, source)
    if capacities.decoder is None:
        return source
    if capacities.cross is None:
        return after(capacities.decoder, target)

    residual = jnp.asarray(capacities.residual)

    def layer(target: Array, both: tuple[Array, Array]) -> tuple[Array, None]:
        decoder, cross = both
        return residual * _times(decoder, target) + _times(cross, source), None

    return jax.lax.scan(layer, target, (capacities.decoder, capacities.cross))[0]


def _times(layer: Float[Array, "query key"], held: Float[Array, "key player"]) -> Float[Array, "query player"]:
    return jnp.matmul(layer, held, precision="highest")


def _attribute(
    scores_of: Callable[[Capacities], Array],
    capacities: Capacities,
    outputs: int | Sequence[int] | None,
    normalise: bool,
) -> Attribution:
    """Apply an unbatched function of one example's capacities to every example."""
    n_source, n_target = lengths(capacities)
    batch = batch_of(capacities)
    mask = capacities.decoder_mask if n_target else capacities.encoder_mask
    known = mask is not None and not is_traced(mask)
    positions = check_outputs(outputs, np.asarray(mask) if known else np.ones((*batch, n_target or n_source), bool))
    capacities = jax.tree.map(jnp.asarray, capacities)
    scores = functools.reduce(lambda f, _: jax.vmap(f), batch, scores_of)(capacities)[..., positions, :]
    return split_scores(scores, n_source, outputs=positions, normalise=normalise)
