"""The side of a minimum cut that belongs to the source, from one maximum flow. On the host, in integers, with NumPy alone."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from jaxflow.solve._quantise import QuantisedNetwork


def source_side(
    network: QuantisedNetwork,
    flow: Int[np.ndarray, " arc"],
    *,
    source: int,
    sink: int,
    nearest: Literal["source", "sink"],
) -> Bool[np.ndarray, " node"]:
    """Find the nodes on the source's side of the minimum cut nearest one end.

    Residual arcs of any maximum flow lead from the source to exactly the nodes on its side of the cut nearest the source; and
    to the sink from exactly the nodes on its side of the cut nearest the sink.
    """
    more, less = flow < network.capacity, flow > 0
    senders = np.concatenate([network.senders[more], network.receivers[less]])
    receivers = np.concatenate([network.receivers[more], network.senders[less]])
    if nearest == "source":
        return _reached(source, senders, receivers, len(network.leaving))
    return ~_reached(sink, receivers, senders, len(network.leaving))


def _reached(
    start: int, senders: Int[np.ndarray, " arc"], receivers: Int[np.ndarray, " arc"], n_nodes: int
) -> Bool[np.ndarray, " node"]:
    reached = np.zeros(n_nodes, bool)
    reached[start] = True
    n_reached = 0
    while n_reached < (n_reached := int(reached.sum())):
        reached[receivers[reached[senders]]] = True
    return reached
