"""Capacities -> FlowNetwork: one example's nodes and arcs, from input tokens to outputs."""

from __future__ import annotations

import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from jaxflow.capacities import Capacities, check_capacities


@struct.dataclass
class FlowNetwork:
    """A directed acyclic network whose arcs run from input to output.

    A node is a token position at a level: level 0 are the inputs, level l what layer l computes. Arcs of layer l lead
    from level l - 1 to level l.

    Attributes:
        senders: `[arc]`, node each arc leaves.
        receivers: `[arc]`, node each arc enters.
        capacity: `[arc]`, not negative, in units of attention.
        level: `[node]`, 0 for inputs, l for the outputs of layer l.
        position: `[node]`, token position.
        encoder_players: `[source]`, node of each input token.
        outputs: `[output]`, node of each output position.

    Source: `attention flow` of Abnar & Zuidema 2020 (2005.00928), section 3.2; Metzger et al. 2022 (2205.15389).
    """

    senders: Int[np.ndarray, " arc"]
    receivers: Int[np.ndarray, " arc"]
    capacity: Float[Array, " arc"]
    level: Int[np.ndarray, " node"]
    position: Int[np.ndarray, " node"]
    encoder_players: Int[np.ndarray, " source"]
    outputs: Int[np.ndarray, " output"]

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return self.level.shape[-1]

    @property
    def n_layers(self) -> int:
        """Number of layers, which is the level of the outputs."""
        return int(self.level[-1])


def flow_network(capacities: Capacities) -> FlowNetwork:
    """Join the capacities of all layers into one network: `(l-1, k) -> (l, q)` with capacity `C_l[q, k]`.

    Structure depends on shapes alone, so arcs of capacity 0 are kept (solvers skip them) and the function goes through
    `jit`, `vmap` and `grad`. It holds n_layers * n_tokens^2 arcs.

    Args:
        capacities: one example's, `[layer, query, key]`.

    Returns:
        `FlowNetwork`; node of position p at level l is `l * n_tokens + p`.

    Raises:
        ValueError: capacities that are none, or more than one example's.

    Example:
        >>> import jax.numpy as jnp
        >>> network = flow_network(Capacities(encoder=jnp.eye(2)[None]))
        >>> network.senders, network.receivers, network.capacity
        (array([0, 1, 0, 1]), array([2, 2, 3, 3]), Array([1., 0., 0., 1.], dtype=float32))
    """
    check_capacities(capacities)
    if capacities.encoder is None or capacities.decoder is not None or capacities.cross is not None:
        raise ValueError(
            "flow_network builds encoder-only networks so far: expected Capacities with `encoder` alone. "
            "Decoders are not supported yet."
        )
    if capacities.encoder.ndim != 3:
        raise ValueError(
            f"Capacities.encoder has shape {tuple(capacities.encoder.shape)}; flow_network takes one example, [layer, query, "
            "key]. Did you forget vmap? attention_flow takes whole batches."
        )
    n_layers, n_tokens, _ = capacities.encoder.shape
    layer, query, key = np.indices((n_layers, n_tokens, n_tokens)).reshape(3, -1)
    nodes = np.arange((n_layers + 1) * n_tokens)
    return FlowNetwork(
        senders=layer * n_tokens + key,
        receivers=(layer + 1) * n_tokens + query,
        capacity=capacities.encoder.reshape(-1),
        level=nodes // n_tokens,
        position=nodes % n_tokens,
        encoder_players=nodes[:n_tokens],
        outputs=nodes[-n_tokens:],
    )
