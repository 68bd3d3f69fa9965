"""FlowNetwork -> minimum cuts: the arcs that bound a flow, and the layers they lie in. Leaves JAX: on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from flax import struct
from jaxtyping import Float, Int, Real

from jaxflow._attention import AnyArray, AnyInt
from jaxflow.network import ENCODER, MIDDLE, FlowNetwork
from jaxflow.solve._max_flow import Solver, check_options
from jaxflow.solve._nearest_cuts import layers_of_cuts, nearest_cuts
from jaxflow.solve._nodes import Ends, check_pairs, check_sets
from jaxflow.solve._quantise import QuantisedNetwork, check_arcs
from jaxflow.solve._super_nodes import add_super_nodes

Nearest = Literal["source", "sink"]

# What an arc of a cut stands for, see `MinCut.stack`.
CUT_STACKS = ("encoder", "decoder", "cross", "residual")


@struct.dataclass
class MinCut:
    """The arcs of a minimum cut. Their capacity is the value of the maximum flow, so the cut is its own proof.

    Without these arcs nothing flows; without one of them the flow is less by the capacity of that arc.

    Attributes:
        arc: `[arc]`, index of the network's arc.
        stack: `[arc]`, index into `CUT_STACKS`: self-attention of the encoder or the decoder, cross-attention, or the
            residual stream past a cross-attention ("sublayers").
        layer: `[arc]`, as `network.layer`: counted from 1 over the encoder's layers and then the decoder's.
        query: `[arc]`, position that reads.
        key: `[arc]`, position that is read, in the encoder for cross-attention.
        capacity: `[arc]`, float64, in units of attention, rounded to quanta.
        value: sum of `capacity`, equal to the maximum flow.
        quantum: unit that capacities were rounded to, as in `MaxFlow`.
        share: `[layer]`, share of each layer in `value`. Sums to 1; all 0 where nothing flows.
        is_all_sent: whether these are all arcs that leave the source: what comes after makes no difference then.
        is_all_taken: whether these are all arcs that enter the sink: what comes before makes no difference then.
        n_encoder: number of the encoder's layers.
    """

    arc: Int[np.ndarray, " arc"]
    stack: Int[np.ndarray, " arc"]
    layer: Int[np.ndarray, " arc"]
    query: Int[np.ndarray, " arc"]
    key: Int[np.ndarray, " arc"]
    capacity: Float[np.ndarray, " arc"]
    value: float
    quantum: float
    share: Float[np.ndarray, " layer"]
    is_all_sent: bool
    is_all_taken: bool
    n_encoder: int = struct.field(pytree_node=False)


def min_cut(
    network: FlowNetwork,
    source: AnyInt | Int[AnyArray, " source"],
    sink: AnyInt | Int[AnyArray, " sink"],
    *,
    nearest: Nearest = "source",
    solver: Solver = "certified",
) -> MinCut:
    """Find a minimum cut: the arcs that bound what `source` can send to `sink`.

    Several nodes act as one: `min_cut(network, network.encoder_inputs, network.outputs[0])` bounds the joint flow of all inputs
    to one output. Minimum cuts are not unique, but the one nearest the source (with the smallest source side) and the one
    nearest the sink are. Cost: one solve.

    Args:
        network: one example's network.
        source: node, or nodes that act as one (a super source).
        sink: node, or nodes that act as one (a super sink).
        nearest: which of the two cuts to return.
        solver: whose quanta capacities are rounded to, as in `max_flow`. Between two nodes the cut's capacity equals the
            value of `max_flow` with the same solver, to the last bit.

    Returns:
        `MinCut`; without arcs where nothing flows.

    Raises:
        ValueError: as `max_flow`; a node that is named twice; `nearest` that is neither end.

    Example:
        >>> from jaxflow.network import Capacities, flow_network
        >>> layer = np.array([[0.75, 0.25], [0.5, 0.5]])
        >>> network = flow_network(Capacities(encoder=np.stack([layer, layer])))
        >>> cut = min_cut(network, network.encoder_inputs[1], network.outputs[1])
        >>> cut.layer.tolist(), cut.query.tolist(), cut.key.tolist(), cut.value
        ([1, 1], [0, 1], [1, 1], 0.75)
        >>> min_cut(network, network.encoder_inputs, network.outputs[1]).value
        1.0

    Source: Ford & Fulkerson 1956; Picard & Queyranne 1980 for the nearest cuts.
    """
    sources, sinks = check_sets(network, source, sink)
    if sources.size == sinks.size == 1:
        return next(min_cuts(network, sources, sinks, nearest=nearest, solver=solver))
    _check_options(nearest, solver)
    check_arcs(network)
    joined = add_super_nodes(network, sources, sinks)
    ends = np.zeros(1, np.int64), np.full(1, joined.n_nodes - 1)
    quantised, cuts = nearest_cuts(joined, *ends, nearest=nearest, solver=solver)
    return _describe(network, quantised, next(cuts), sources, sinks, shift=1)


def min_cuts(
    network: FlowNetwork,
    source: Ends,
    sink: Ends,
    *,
    nearest: Nearest = "source",
    solver: Solver = "certified",
    on_solved: Callable[[], object] | None = None,
) -> Iterator[MinCut]:
    """Find the minimum cut of each pair of nodes.

    Args:
        network: one example's network.
        source: node or array of nodes.
        sink: node or array of nodes; broadcast against `source`.
        nearest: as in `min_cut`.
        solver: as in `min_cut`.
        on_solved: called after each pair, for progress.

    Returns:
        Iterator of `MinCut`, one for each pair, in row-major order.

    Raises:
        ValueError: as `max_flow`; `nearest` that is neither end.
    """
    sources, sinks = (nodes.ravel() for nodes in check_pairs(network, source, sink))
    _check_options(nearest, solver)
    quantised, cuts = nearest_cuts(network, sources, sinks, nearest=nearest, solver=solver, on_solved=on_solved)
    return (_describe(network, quantised, *found) for found in zip(cuts, sources[:, None], sinks[:, None], strict=True))


def cut_capacities(
    network: FlowNetwork,
    source: Ends,
    sink: Ends,
    *,
    solver: Solver = "certified",
    on_solved: Callable[[], object] | None = None,
) -> Float[np.ndarray, "*pair layer"]:
    """Find how much of each pair's minimum cut lies in each layer.

    Args:
        network: one example's network.
        source: node or array of nodes.
        sink: node or array of nodes; broadcast against `source`.
        solver: as in `min_cut`.
        on_solved: called after each pair, for progress.

    Returns:
        `[*pair, layer]`, float64, in units of attention: capacity in each layer of the cut nearest the source. The sum over
        layers is the value of the pair's maximum flow.

    Raises:
        ValueError: as `max_flow`.
    """
    sources, sinks = check_pairs(network, source, sink)
    check_options(solver)
    quanta, quantum = layers_of_cuts(network, sources.ravel(), sinks.ravel(), solver=solver, on_solved=on_solved)
    return quanta.reshape(*sources.shape, network.n_layers) * quantum


def bottleneck(
    network: FlowNetwork,
    sources: Ends,
    sinks: Ends,
    *,
    solver: Solver = "certified",
    on_solved: Callable[[], object] | None = None,
) -> Float[np.ndarray, " layer"]:
    """Find the share of each layer in the minimum cuts of all pairs: where their flows are bounded.

    Args:
        network: one example's network.
        sources: node or array of nodes.
        sinks: node or array of nodes; broadcast against `sources`. Pairs whose sink comes before the source have no path, and
            are not solved.
        solver: as in `min_cut`.
        on_solved: called after each pair that is solved, for progress.

    Returns:
        `[layer]`, in [0, 1]: sums to 1, or all 0 where nothing flows.

    Raises:
        ValueError: as `max_flow`.

    Example:
        >>> from jaxflow.network import Capacities, flow_network
        >>> network = flow_network(Capacities(encoder=np.stack([np.full((2, 2), 0.5), np.full((2, 2), 0.25)])))
        >>> bottleneck(network, network.inputs, network.outputs[0])
        array([0., 1.])
    """
    sources, sinks = check_pairs(network, sources, sinks)
    ahead = sources < sinks  # nodes are in topological order
    return layer_share(cut_capacities(network, sources[ahead], sinks[ahead], solver=solver, on_solved=on_solved))


def layer_share(capacity: Real[np.ndarray, "*pair layer"]) -> Float[np.ndarray, " layer"]:
    """Turn what `cut_capacities` found into the share of each layer in the sum over all pairs; all 0 where that is 0."""
    total = np.reshape(capacity, (-1, np.shape(capacity)[-1])).sum(0)
    return total / max(total.sum(), np.finfo(np.float64).tiny)


def _describe(
    network: FlowNetwork,
    quantised: QuantisedNetwork,
    cut: Int[np.ndarray, " arc"],
    sources: Int[np.ndarray, " source"],
    sinks: Int[np.ndarray, " sink"],
    *,
    shift: int = 0,
) -> MinCut:
    """Describe a cut, given by arcs of the quantised network, whose node u + `shift` is node u of the network."""
    arc = quantised.arcs[cut]
    senders, receivers = np.asarray(network.senders)[arc], np.asarray(network.receivers)[arc]
    stack, position, layer = np.asarray(network.stack), np.asarray(network.position), network.layer
    quanta = quantised.capacity[cut]
    value = quanta.sum()
    capacity = quanta * quantised.quantum
    return MinCut(
        arc=arc,
        stack=np.select(
            [stack[receivers] == ENCODER, stack[senders] == ENCODER, stack[senders] == MIDDLE], [0, 2, 3], default=1
        ),
        layer=layer[receivers],
        query=position[receivers],
        key=position[senders],
        capacity=capacity,
        value=float(value * quantised.quantum),
        quantum=quantised.quantum,
        share=layer_share(np.bincount(layer[receivers], capacity, layer.max() + 1)[1:]),
        is_all_sent=_is_all(value, quantised.leaving[sources + shift], network, network.senders, sources),
        is_all_taken=_is_all(value, quantised.entering[sinks + shift], network, network.receivers, sinks),
        n_encoder=int(layer[stack == ENCODER].max(initial=0)),
    )


def _is_all(
    value: AnyInt,
    quanta: Int[np.ndarray, " node"],
    network: FlowNetwork,
    ends: Int[np.ndarray, " arc"],
    nodes: Int[np.ndarray, " node"],
) -> bool:
    """Say whether a cut is as large as all arcs at these nodes together, which have so many quanta.

    Where nothing flows between any of the pairs the quantum is arbitrary, and capacities are compared before rounding.
    """
    if value or quanta.any():
        return bool(value == quanta.sum())
    return not np.asarray(network.capacity)[np.isin(ends, nodes)].any()


def _check_options(nearest: Nearest, solver: Solver) -> None:
    if nearest not in ("source", "sink"):
        raise ValueError(f"nearest is {nearest!r}; expected 'source' or 'sink'.")
    check_options(solver)
