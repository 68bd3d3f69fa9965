"""FlowNetwork -> QuantisedNetwork: checked arcs with integer capacities, on which solvers are exact. On the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxflow._attention import is_traced
from jaxflow.network import FlowNetwork

# Capacities of a whole network add up to less than 2**BITS, so no solver can overflow int64.
BITS = 61
SMALLEST = np.finfo(np.float64).minexp
INT32_MAX = 2**31 - 1
# The largest value that a flow may have, in int32 quanta: rounding may add half a quantum for each arc of a node.
MOST_QUANTA = 1.9 * 2**30
# Entries handled at a time where NumPy would copy all of them, since memory that was allocated once is rarely given back.
PART = 2**12


@dataclasses.dataclass(frozen=True)
class QuantisedNetwork:
    """The arcs with a capacity of at least one quantum.

    Attributes:
        arcs: `[arc]`, index of each arc in the network.
        senders: `[arc]`, nodes.
        receivers: `[arc]`, nodes.
        capacity: `[arc]`, int64, quanta, at least 1.
        leaving: `[node]`, int64, quanta: capacity of all arcs that leave the node.
        entering: `[node]`, int64, quanta: capacity of all arcs that enter the node.
        quantum: a power of 2, in units of attention.
    """

    arcs: Int[np.ndarray, " arc"]
    senders: Int[np.ndarray, " arc"]
    receivers: Int[np.ndarray, " arc"]
    capacity: Int[np.ndarray, " arc"]
    leaving: Int[np.ndarray, " node"]
    entering: Int[np.ndarray, " node"]
    quantum: float


def quantise(network: FlowNetwork) -> QuantisedNetwork:
    """Round capacities to quanta that are as fine as int64 allows for the sum of all capacities.

    The quantum is the power of 2 for which all capacities together come to between 2^60 / 1.5 and 2^61 / 1.5 quanta, with or
    without padding. Rounding changes the value of a flow by at most half a quantum per arc: with rows that sum to 1, by
    less than n_layers^2 * n_tokens^3 * 2^-60, which is 5e-10 at 6 layers and 242 tokens.

    Raises:
        ValueError: as `check_arcs`.
    """
    check_arcs(network)
    capacity = np.asarray(network.capacity, np.float64)
    # Rows sum to 1, so totals lie near whole numbers: 1.5 keeps their last bit from deciding on the power of 2.
    exponent = int(np.frexp(1.5 * capacity.sum())[1])
    return _round(network, capacity, float(np.ldexp(1.0, max(exponent - BITS, SMALLEST))))


def quantise_to_int32(
    network: FlowNetwork, sources: Int[np.ndarray, " pair"], sinks: Int[np.ndarray, " pair"]
) -> QuantisedNetwork:
    """Round capacities to the quanta of the certified solver, in which every value fits int32.

    Raises:
        ValueError: as `check_arcs`.
    """
    check_arcs(network)
    return _round(network, np.asarray(network.capacity), int32_quantum(network, sources, sinks), most=INT32_MAX)


def int32_quantum(network: FlowNetwork, sources: Int[np.ndarray, " pair"], sinks: Int[np.ndarray, " pair"]) -> float:
    """Choose the finest quantum, a power of 2, in which the values of all pairs fit in int32.

    Pairs of an input and an output count too, so that the quantum is the same whichever of them are solved. No flow exceeds
    what leaves its source or what enters its sink. The largest such bound comes to between 0.95 and 1.9 * 2^30 quanta, so every
    value fits in int32, and so does every capacity once it is cut off at 2^31 - 1 quanta, which changes no value.
    Rounding changes a value by at most half a quantum per arc of its cut: 2^-31 each where rows sum to 1.
    """
    capacity = np.asarray(network.capacity)
    starts, ends = np.zeros((2, network.n_nodes), bool)
    starts[network.inputs] = starts[sources] = ends[network.outputs] = ends[sinks] = True
    leaving, entering = np.zeros((2, network.n_nodes))
    for part in parts(len(capacity), least=network.n_nodes):  # since bincount copies what it adds to float64
        for nodes, wanted, sums in (
            (network.senders[part], starts, leaving),
            (network.receivers[part], ends, entering),
        ):
            here = wanted[nodes]
            sums += np.bincount(nodes[here], capacity[part][here], network.n_nodes)
    most = min(leaving[starts].max(initial=0.0), entering[ends].max(initial=0.0))
    fraction, exponent = np.frexp(most / MOST_QUANTA)
    return float(np.ldexp(1.0, max(int(exponent) - (fraction == 0.5), SMALLEST)))


def parts(size: int, *, least: int = 0) -> Iterator[slice]:
    """Cut `size` entries into slices of `PART` entries, or of `least` where that is more."""
    step = max(PART, least)
    return (slice(first, first + step) for first in range(0, size, step))


def check_arcs(network: FlowNetwork) -> None:
    """Check that arcs join nodes that exist, with capacities that a solver can add up; OR-Tools accepts any others in silence.

    Raises:
        ValueError: capacities that are traced, negative, NaN, infinite or too large; nodes that do not exist.
    """
    refuse_traced(network)
    capacity = np.asarray(network.capacity)
    if not np.shape(network.senders) == np.shape(network.receivers) == capacity.shape or capacity.ndim != 1:
        raise ValueError(
            f"senders {np.shape(network.senders)}, receivers {np.shape(network.receivers)} and capacity {capacity.shape} "
            "differ; expected [arc] each, of one example. Did you forget to take one example of a batch?"
        )
    check_arcs_of_each(network)


def check_arcs_of_each(networks: FlowNetwork) -> None:
    """Do what `check_arcs` does for networks of one structure, with capacities `[*example, arc]`."""
    refuse_traced(networks)
    capacity, n_nodes = np.asarray(networks.capacity), networks.n_nodes
    if not capacity.size:
        return
    # min and max of an array with a NaN are NaN; the arc is looked for only if there is one to name.
    if not (capacity.min() >= 0 and np.isfinite(capacity.max())):
        *example, arc = (int(i) for i in np.argwhere(~(np.isfinite(capacity) & (capacity >= 0)))[0])
        of_example = f" of example {example}" if example else ""
        raise ValueError(
            f"Arc {arc}{of_example} has capacity {capacity[*example, arc]}; expected finite capacities >= 0."
        )
    for name in ("senders", "receivers"):
        nodes = getattr(networks, name)
        if not 0 <= nodes.min() <= nodes.max() < n_nodes:
            raise ValueError(f"{name} names nodes {nodes.min()} to {nodes.max()}; the network has 0 to {n_nodes - 1}.")
    with np.errstate(over="ignore"):
        totals = 1.5 * capacity.sum(-1, dtype=np.float64)
    if not np.isfinite(totals).all():
        raise ValueError(
            "Capacities add up to more than float64 can hold; expected a sum below 1e308. Scale them down."
        )


def _round(
    network: FlowNetwork, capacity: Float[np.ndarray, " arc"], quantum: float, *, most: float = np.inf
) -> QuantisedNetwork:
    quanta = np.minimum(np.rint(np.asarray(capacity, np.float64) / quantum), most).astype(np.int64)
    arcs = np.flatnonzero(quanta)
    quanta = quanta[arcs]
    senders, receivers = (np.asarray(nodes, np.int64)[arcs] for nodes in (network.senders, network.receivers))
    leaving, entering = np.zeros((2, network.n_nodes), np.int64)
    np.add.at(leaving, senders, quanta)
    np.add.at(entering, receivers, quanta)
    return QuantisedNetwork(arcs, senders, receivers, quanta, leaving, entering, quantum)


def refuse_traced(*trees: Any) -> None:
    """Raise if a leaf is traced, inside `jit`, `vmap` or `grad`."""
    if is_traced(trees):
        raise ValueError(
            "A maximum flow is found on the host and needs values, but the network is being traced. Call it outside jit, "
            "vmap and grad; joint_capacities and flow_network may stay inside."
        )
