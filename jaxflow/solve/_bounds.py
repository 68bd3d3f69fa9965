"""Upper bounds on maximum flows from all inputs to all outputs of a network, in JAX, on any device."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num

from jaxflow._attention import AnyArray
from jaxflow.network import Capacities, DecoderLayer, Feedback, batch_of, check_network, lengths


def flow_bounds(
    capacities: Capacities,
    *,
    decoder_layer: DecoderLayer = "sublayers",
    feedback: Feedback = "prefix",
    n_prompt: int | None = None,
) -> Num[Array, "*batch output input"]:
    """Find an upper bound on the maximum flow from every input to every output, without a solve.

    `u_0 = inf at the source, u_l[q] = sum_k min(C_l[q, k], u_{l-1}[k])` bounds what arrives at (l, q), since no more than
    `u_{l-1}[k]` arrives at (l-1, k). The same from the sink bounds what can leave each input. The smaller of both is
    returned; it never exceeds the trivial cuts, of the arcs that leave the source and those that enter the sink. The networks
    are those of `flow_network`.

    Exact for integers that do not overflow: int32 capacities whose rows and columns sum to less than 2^31. For floats it is a
    bound up to rounding: an estimate, not a proof. It equals the maximum flow for most pairs of real attention with residual
    (95 % and more from 80 tokens on).

    Cost: O(n_layers * n_tokens^3), and O(n_tokens^2) memory besides the result; "unrolled" O(n_layers * n_tokens^2), and
    one step per position and layer. Pure: goes through `jit` and `vmap`.

    Args:
        capacities: of any batch.
        decoder_layer: as in `flow_network`, like the next two.
        feedback: "prefix" or "unrolled".
        n_prompt: for "unrolled"; the same for all examples.

    Returns:
        `[*batch, output, input]`, in units of attention, of the capacities' dtype; the encoder's inputs, then the decoder's.
        With "unrolled", generated tokens are no inputs and have 0.

    Raises:
        ValueError: as `flow_network`.
        TypeError: anything but `Capacities`.

    Example:
        >>> layer = jnp.array([[0.75, 0.25], [0.5, 0.5]])
        >>> flow_bounds(Capacities(encoder=jnp.stack([layer, layer])))
        Array([[1.  , 0.5 ],
               [1.  , 0.75]], dtype=float32)

    Source: the dual of level-by-level saturation, as in Dinitz 1970.
    """
    if not isinstance(capacities, Capacities):
        raise TypeError(
            f"got {type(capacities).__name__}; expected Capacities, as joint_capacities makes them. An encoder's array "
            "[*batch, layer, query, key] becomes them by Capacities(encoder=array)."
        )
    batch = batch_of(capacities)
    first = jax.tree.map(lambda leaf: leaf[(0,) * len(batch)], capacities)
    check_network(first, decoder_layer, feedback, n_prompt)
    bound = functools.partial(_bound, decoder_layer=decoder_layer, n_prompt=n_prompt)
    batched = functools.reduce(lambda f, _: jax.vmap(f), batch, bound)
    return batched(jax.tree.map(jnp.asarray, capacities))


@functools.partial(jax.jit, static_argnames=("decoder_layer", "n_prompt"))
def _bound(capacities: Capacities, *, decoder_layer: DecoderLayer, n_prompt: int | None) -> Num[Array, "output input"]:
    """Bound one example's flows."""
    n_source, n_target = lengths(capacities)
    stack = capacities.encoder if capacities.decoder is None else capacities.decoder
    assert stack is not None
    unlimited = _unlimited(n_source + n_target, stack.dtype)
    source, target = unlimited[:n_source], unlimited[n_source:]
    if capacities.encoder is not None:
        # What arrives at the first layer is what its arcs carry.
        source = _through(capacities.encoder[1:], jnp.pad(capacities.encoder[0], ((0, 0), (0, n_target))))
    if capacities.decoder is None:
        forward = source
    elif n_prompt is None:
        forward = _through_decoder(capacities, source, target, decoder_layer)
    else:
        forward = _through_unrolled(capacities, source, target, decoder_layer, n_prompt)
        backward = _back_through_unrolled(capacities, decoder_layer, n_prompt)
    if n_prompt is None:
        backward = _back_through_all(capacities, decoder_layer)
    bound = jnp.minimum(forward, backward.T)
    if n_prompt is not None:
        bound = bound.at[:, n_source + n_prompt :].set(0)
    return bound


def _most(dtype: Any) -> Num[Array, ""]:
    return jnp.asarray(jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).max, dtype)


def _unlimited(n: int, dtype: Any) -> Num[Array, "node node"]:
    return jnp.where(jnp.eye(n, dtype=bool), _most(dtype), jnp.zeros((), dtype))


def _pass_on(layer: Num[AnyArray, "query key"], held: Num[Array, "key input"]) -> Num[Array, "query input"]:
    """Bound what arrives at each query from each input: `sum_k min(layer[q, k], held[k])`."""

    # Key by key, so that [query, key, input] never is; some keys a turn, so that the total is read and written less often.
    def add(key: Array, total: Array) -> Array:
        return total + jnp.minimum(layer[:, key, None], held[key][None, :])

    total = jnp.zeros((layer.shape[0], held.shape[1]), layer.dtype)
    return jax.lax.fori_loop(0, layer.shape[1], add, total, unroll=4)


def _through(layers: Num[AnyArray, "layer query key"], held: Num[Array, "key input"]) -> Num[Array, "query input"]:
    return jax.lax.scan(lambda held, layer: (_pass_on(layer, held), None), held, jnp.asarray(layers))[0]


def _back_through(layers: Num[AnyArray, "layer query key"], wanted: Num[Array, "query out"]) -> Num[Array, "key out"]:
    """Bound what each key can send to each output."""
    return jax.lax.scan(
        lambda wanted, layer: (_pass_on(layer.T, wanted), None), wanted, jnp.asarray(layers), reverse=True
    )[0]


def _carries(capacities: Capacities, decoder_layer: DecoderLayer) -> Num[Array, "layer query 1"]:
    """What the middle of each decoder layer can pass on, as in `flow_network`: anything, where there is none."""
    decoder = capacities.decoder
    assert decoder is not None
    full = (decoder.sum(-1, dtype=decoder.dtype) > 0)[..., None]
    has_middle = capacities.cross is not None and decoder_layer == "sublayers"
    carried = jnp.asarray(capacities.residual, decoder.dtype) if has_middle else _most(decoder.dtype)
    return jnp.where(full, carried, jnp.zeros((), decoder.dtype))


def _through_decoder(
    capacities: Capacities, source: Array, target: Array, decoder_layer: DecoderLayer
) -> Num[Array, "target input"]:
    assert capacities.decoder is not None
    if capacities.cross is None:
        return _through(capacities.decoder[1:], capacities.decoder[0])

    def step(held: Array, layer: tuple[AnyArray, AnyArray, Array]) -> tuple[Array, None]:
        decoder, cross, carries = layer
        return jnp.minimum(_pass_on(decoder, held), carries) + _pass_on(cross, source), None

    layers = (capacities.decoder, capacities.cross, _carries(capacities, decoder_layer))
    return jax.lax.scan(step, target, layers)[0]


def _back_through_all(capacities: Capacities, decoder_layer: DecoderLayer) -> Num[Array, "input output"]:
    """Bound what each input can send to each output, layer by layer from the outputs."""
    encoder, decoder, cross = capacities.encoder, capacities.decoder, capacities.cross
    n_source, n_target = lengths(capacities)
    if decoder is None:
        assert encoder is not None
        return _back_through(encoder[:-1], encoder[-1].T)
    if cross is None:
        return _back_through(decoder[:-1], decoder[-1].T)
    wanted = _unlimited(n_target, decoder.dtype)

    def step(state: tuple[Array, Array], layer: tuple[AnyArray, AnyArray, Array]) -> tuple[tuple[Array, Array], None]:
        wanted, source = state
        decoder, cross, carries = layer
        return (_pass_on(decoder.T, jnp.minimum(wanted, carries)), source + _pass_on(cross.T, wanted)), None

    nothing = jnp.zeros((n_source, n_target), decoder.dtype)
    layers = (decoder, cross, _carries(capacities, decoder_layer))
    (target, source), _ = jax.lax.scan(step, (wanted, nothing), layers, reverse=True)
    return jnp.concatenate([source if encoder is None else _back_through(encoder, source), target])


def _through_unrolled(
    capacities: Capacities, source: Array, target: Array, decoder_layer: DecoderLayer, n_prompt: int
) -> Num[Array, "target input"]:
    """Position by position, since what a position's output got is what the next one's input holds."""
    decoder, cross = capacities.decoder, capacities.cross
    assert decoder is not None
    n_layers, n_target, _ = decoder.shape
    carries = _carries(capacities, decoder_layer)
    from_source = jnp.zeros((n_layers, n_target, target.shape[1]), decoder.dtype)
    if cross is not None:
        from_source = jax.lax.map(lambda layer: _pass_on(layer, source), cross)

    def position(p: Array, held: Array) -> Array:
        held = held.at[0, p].set(jnp.where(p < n_prompt, target[p], held[-1, p - 1]))
        for layer in range(n_layers):
            arrived = jnp.minimum(decoder[layer, p][:, None], held[layer]).sum(0, dtype=decoder.dtype)
            held = held.at[layer + 1, p].set(jnp.minimum(arrived, carries[layer, p]) + from_source[layer, p])
        return held

    held = jnp.zeros((n_layers + 1, n_target, target.shape[1]), decoder.dtype)
    return jax.lax.fori_loop(0, n_target, position, held)[-1]


def _back_through_unrolled(
    capacities: Capacities, decoder_layer: DecoderLayer, n_prompt: int
) -> Num[Array, "input output"]:
    """From the last position to the first: all of a position's readers are known before it."""
    encoder, decoder, cross = capacities.encoder, capacities.decoder, capacities.cross
    assert decoder is not None
    n_layers, n_target, _ = decoder.shape
    carries = _carries(capacities, decoder_layer)
    own = _unlimited(n_target, decoder.dtype)

    def position(step: Array, wanted: Array) -> Array:
        p = n_target - 1 - step
        is_fed_back = (p + 1 >= n_prompt) & (p + 1 < n_target)
        fed = jnp.where(is_fed_back, wanted[0, jnp.minimum(p + 1, n_target - 1)], jnp.zeros((), decoder.dtype))
        wanted = wanted.at[-1, p].set(jnp.maximum(own[p], fed))
        for layer in reversed(range(n_layers)):
            through = jnp.minimum(wanted[layer + 1], carries[layer])
            wanted = wanted.at[layer, p].set(
                jnp.minimum(decoder[layer, :, p][:, None], through).sum(0, dtype=decoder.dtype)
            )
        return wanted

    wanted = jnp.zeros((n_layers + 1, n_target, n_target), decoder.dtype)
    wanted = jax.lax.fori_loop(0, n_target, position, wanted)
    if cross is None:
        return wanted[0]
    sent = jax.lax.map(lambda layer: _pass_on(layer[0].T, layer[1]), (cross, wanted[1:]))
    source = sent.sum(0, dtype=decoder.dtype)
    return jnp.concatenate([source if encoder is None else _back_through(encoder, source), wanted[0]])
