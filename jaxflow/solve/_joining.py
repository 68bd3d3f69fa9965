"""FlowNetwork -> FlowNetwork: sets of nodes as one source and one sink."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from jaxflow.network import FlowNetwork


def join_ends(
    network: FlowNetwork, sources: Int[np.ndarray, " source"], sinks: Int[np.ndarray, " sink"]
) -> FlowNetwork:
    """Add one node that sends to all `sources`, and one that receives from all `sinks`.

    The first is node 0 of the result, the second the last; node u of `network` is u + 1, so that nodes stay in topological
    order. New arcs follow the others. Each can carry twice what its end can, so it is never full and in no minimum cut.

    Args:
        network: one example's, checked.
        sources: nodes, each once.
        sinks: nodes, each once, none of them a source.
    """
    capacity = np.asarray(network.capacity, np.float64)
    leaving, entering = np.zeros((2, network.n_nodes))
    np.add.at(leaving, network.senders, capacity)
    np.add.at(entering, network.receivers, capacity)
    joined: Any = np.concatenate([capacity, 2 * leaving[sources], 2 * entering[sinks]])  # on the host, not in JAX
    n_nodes = network.n_nodes + 2
    return FlowNetwork(
        senders=np.concatenate([np.asarray(network.senders) + 1, np.zeros_like(sources), sinks + 1]),
        receivers=np.concatenate([np.asarray(network.receivers) + 1, sources + 1, np.full_like(sinks, n_nodes - 1)]),
        capacity=joined,
        # First and last also where nodes are sorted by stack, level and position.
        stack=np.concatenate([[-1], network.stack, [np.max(network.stack) + 1]]),
        level=np.concatenate([[0], network.level, [0]]),
        position=np.concatenate([[0], network.position, [0]]),
        encoder_inputs=None if network.encoder_inputs is None else network.encoder_inputs + 1,
        decoder_inputs=None if network.decoder_inputs is None else network.decoder_inputs + 1,
        outputs=np.asarray(network.outputs) + 1,
    )
