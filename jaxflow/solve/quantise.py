"""FlowNetwork -> integers, on the host: what solvers compute on exactly, since they accept anything in silence."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxflow.attention import is_traced
from jaxflow.network import FlowNetwork

# Capacities of a whole network add up to less than 2**BITS, so no solver can overflow int64.
BITS = 61


@dataclasses.dataclass(frozen=True)
class QuantisedNetwork:
    """The arcs that can carry anything, in whole quanta.

    Attributes:
        senders: `[arc]`.
        receivers: `[arc]`.
        capacity: `[arc]`, int64, at least 1.
        leaving: `[node]`, int64, capacity of all arcs that leave it.
        entering: `[node]`, int64, capacity of all arcs that enter it.
        quantum: a power of 2, in units of attention.
    """

    senders: Int[np.ndarray, " arc"]
    receivers: Int[np.ndarray, " arc"]
    capacity: Int[np.ndarray, " arc"]
    leaving: Int[np.ndarray, " node"]
    entering: Int[np.ndarray, " node"]
    quantum: float


def quantise(network: FlowNetwork) -> QuantisedNetwork:
    """Round capacities to whole quanta, as fine as int64 allows for the sum of all of them.

    The quantum is the power of 2 for which all capacities together come to between 2^60 / 1.5 and 2^61 / 1.5 quanta,
    whatever padding there is. Rounding moves the value of a flow by half a quantum per arc at most: with rows that sum to 1, by
    less than n_layers^2 * n_tokens^3 * 2^-60, which is 5e-10 at 6 layers and 242 tokens.

    Raises:
        ValueError: capacities that are traced, negative, NaN or infinite; nodes that do not exist.
    """
    refuse_traced(network)
    capacity = np.asarray(network.capacity, np.float64)
    senders, receivers = np.asarray(network.senders, np.int64), np.asarray(network.receivers, np.int64)
    if not senders.shape == receivers.shape == capacity.shape or capacity.ndim != 1:
        raise ValueError(
            f"senders {senders.shape}, receivers {receivers.shape} and capacity {capacity.shape} differ; expected [arc] each, "
            "of one example. Did you forget to take one example of a batch?"
        )
    if not (np.isfinite(capacity) & (capacity >= 0)).all():
        arc = int(np.flatnonzero(~(np.isfinite(capacity) & (capacity >= 0)))[0])
        raise ValueError(f"Arc {arc} has capacity {capacity[arc]}; expected finite capacities >= 0.")
    for name, nodes in (("senders", senders), ("receivers", receivers)):
        if nodes.size and not 0 <= nodes.min() <= nodes.max() < network.n_nodes:
            raise ValueError(
                f"{name} names nodes {nodes.min()} to {nodes.max()}; the network has 0 to {network.n_nodes - 1}."
            )
    arcs = np.flatnonzero(capacity)
    # Rows sum to 1, so totals lie near whole numbers: 1.5 keeps their last bit from deciding on the power of 2.
    with np.errstate(over="ignore"):
        total = 1.5 * capacity[arcs].sum()
    if not np.isfinite(total):
        raise ValueError(
            "Capacities add up to more than float64 can hold; expected a sum below 1e308. Scale them down."
        )
    exponent = int(np.frexp(total)[1])
    quantum = float(np.ldexp(1.0, max(exponent - BITS, np.finfo(np.float64).minexp)))
    quanta = np.rint(capacity[arcs] / quantum).astype(np.int64)
    senders, receivers, quanta = (values[quanta > 0] for values in (senders[arcs], receivers[arcs], quanta))
    leaving, entering = np.zeros((2, network.n_nodes), np.int64)
    np.add.at(leaving, senders, quanta)
    np.add.at(entering, receivers, quanta)
    return QuantisedNetwork(senders, receivers, quanta, leaving, entering, quantum)


def refuse_traced(*trees: Any) -> None:
    """Raise if some leaf has no value yet: inside `jit`, `vmap` or `grad`."""
    if is_traced(trees):
        raise ValueError(
            "A maximum flow is found on the host and needs values, but the network is being traced. Call it outside jit, "
            "vmap and grad; joint_capacities and flow_network may stay inside."
        )
