"""FlowNetwork -> FlowNetwork: a super source for several sources, and a super sink for several sinks."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from jaxflow.network import FlowNetwork


def add_super_nodes(
    network: FlowNetwork, sources: Int[np.ndarray, " source"], sinks: Int[np.ndarray, " sink"]
) -> FlowNetwork:
    """Add a super source with an arc to each of `sources`, and a super sink with an arc from each of `sinks`.

    The super source is node 0 of the result and the super sink its last node; node u of `network` becomes u + 1, so nodes
    stay in topological order. The network's arcs keep their indices, and new arcs follow them. A new arc has four times the
    capacity of all arcs that leave its source, or enter its sink, so that it is never full, also after rounding to quanta,
    and in no minimum cut.

    Args:
        network: one example's network, checked.
        sources: `[source]`, different nodes.
        sinks: `[sink]`, different nodes, none of them a source; none for a super sink without arcs.

    Returns:
        The network with two more nodes; its inputs and outputs are those of `network`, renumbered.
    """
    capacity = np.asarray(network.capacity, np.float64)
    leaving, entering = np.zeros((2, network.n_nodes))
    np.add.at(leaving, network.senders, capacity)
    np.add.at(entering, network.receivers, capacity)
    joined: Any = np.concatenate([capacity, 4 * leaving[sources], 4 * entering[sinks]])  # on the host, not in JAX
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
