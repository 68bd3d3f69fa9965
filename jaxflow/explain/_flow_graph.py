"""FlowNetwork -> FlowGraph: what a picture of one output's flow is drawn from. On the host.

A solver's maximum flow is one of many, and so is a picture of it. What is here is unique: the barrier-regularised flow of all
inputs together, capacities, the minimum cut nearest the inputs, and that of each input alone. Views draw it, and compute nothing.
"""

from __future__ import annotations

import numpy as np
from flax import struct
from jaxtyping import Bool, Float, Int, Real

from jaxflow._attention import AnyArray, AnyInt
from jaxflow.network import ENCODER, FlowNetwork
from jaxflow.solve import Solver, barrier_flow, layer_share, min_cut, min_cuts

# What an arc stands for: reading another position, or a span of them; the residual stream, with what a position reads of
# itself; a decoder that reads the encoder; a token that was written and is read again ("unrolled").
ARC_KINDS = ("attention", "residual", "cross", "feedback")
# Arcs that are kept of longer inputs, the strongest of each layer.
MAX_ARCS = 1024


@struct.dataclass
class FlowGraph:
    """The joint flow of all inputs to one output, layer by layer, folded to the strongest arcs.

    Arcs of a layer are ordered by their flow. To draw a share s of each layer's flow, draw the arcs for which `stronger < s`:
    they are the fewest that carry as much. The strongest arc of each layer comes first, then the second of each, and so on; where
    there are too many the last are left out, so every layer keeps as many.

    Attributes:
        stack: `[node]`, 0 in the encoder, 1 in the decoder, 2 in the middle of a decoder layer. Nodes on a path from an
            input to the output, and no others.
        level: `[node]`, 0 for inputs, l for what layer l of its stack computes.
        position: `[node]`, token position in its stack, of the first token for an input that is a span.
        through: `[node]`, flow that enters it, or leaves it if it is an input; along all arcs, kept or not.
        inputs: `[input]`, node of each input, those of the encoder first; -1 for one from which no path leads.
        output: node of the output.
        senders: `[arc]`, node that each kept arc leaves.
        receivers: `[arc]`, node that it enters.
        kind: `[arc]`, int8, index into `ARC_KINDS`.
        capacity: `[arc]`, in units of attention.
        flow: `[arc]`, the one barrier-regularised flow; unique.
        stronger: `[arc]`, in [0, 1), share of its layer's flow that stronger arcs carry.
        in_cut: `[arc]`, whether it is in the minimum cut between all inputs together and the output, the one nearest the
            inputs.
        own_cut: `[entry]`, kept arcs in the minimum cut of one input alone, the one nearest it; of each input after the other.
        own_cut_start: `[input + 1]`, where each input's entries start.
        layer_capacity: `[layer]`, of all arcs on a path, by the layer they lead to (the encoder's layers, then the decoder's).
        layer_flow: `[layer]`, of all arcs, likewise.
        layer_cut: `[input, layer]`, capacity of each input's own minimum cut in each layer; sums to its score.
        value: the flow that arrives.
        maximum: the maximum flow of all inputs together, which is the capacity of the arcs in its minimum cut.
        gap: how near the optimum the flow is, as in `BarrierFlow`.
        mu: weight of the barrier.
        share: of the flow of all arcs, on those that are kept.
        n_arcs: how many arcs lie on a path.
        n_encoder: number of the encoder's layers.
    """

    stack: Int[np.ndarray, " node"]
    level: Int[np.ndarray, " node"]
    position: Int[np.ndarray, " node"]
    through: Real[np.ndarray, " node"]
    inputs: Int[np.ndarray, " input"]
    output: int
    senders: Int[np.ndarray, " arc"]
    receivers: Int[np.ndarray, " arc"]
    kind: Int[np.ndarray, " arc"]
    capacity: Real[np.ndarray, " arc"]
    flow: Real[np.ndarray, " arc"]
    stronger: Real[np.ndarray, " arc"]
    in_cut: Bool[np.ndarray, " arc"]
    own_cut: Int[np.ndarray, " entry"]
    own_cut_start: Int[np.ndarray, " input+1"]
    layer_capacity: Real[np.ndarray, " layer"]
    layer_flow: Real[np.ndarray, " layer"]
    layer_cut: Float[np.ndarray, "input layer"]
    value: float
    maximum: float
    gap: float
    mu: float
    share: float
    n_arcs: int
    n_encoder: int

    @property
    def cut_share(self) -> Float[np.ndarray, " layer"]:
        """`[layer]`, share of each layer in the capacity of the inputs' own minimum cuts; all 0 where nothing flows."""
        return layer_share(self.layer_cut)


def flow_graph(
    network: FlowNetwork,
    output: AnyInt,
    *,
    inputs: Bool[AnyArray, " input"] | None = None,
    mu: float = 1e-6,
    max_arcs: int = MAX_ARCS,
    solver: Solver = "certified",
) -> FlowGraph:
    """Find the flow of all inputs to one output, and the cuts that bound it, for a picture.

    Cost: `barrier_flow` of one sink, about 25 times O(arcs) and a Cholesky factorisation per layer; a minimum cut per input.

    Args:
        network: one example's network.
        output: the node that is explained, one of `network.outputs`.
        inputs: which of the network's inputs send; all by default. What was padded or written ("unrolled") does not.
        mu: weight of the barrier, as in `barrier_flow`.
        max_arcs: how many arcs are kept.
        solver: of the inputs' own minimum cuts, as in `min_cut`.

    Returns:
        `FlowGraph`. Where the flow did not come as near the optimum as was asked, `gap` says so.

    Raises:
        ValueError: as `barrier_flow`; inputs of another shape, or none; max_arcs below 1.

    Example:
        >>> from jaxflow.network import Capacities, flow_network
        >>> layer = np.array([[0.75, 0.25], [0.5, 0.5]])
        >>> network = flow_network(Capacities(encoder=np.stack([layer, layer])))
        >>> graph = flow_graph(network, network.outputs[0])
        >>> graph.flow[graph.receivers == graph.output].round(3), graph.maximum
        (array([0.75, 0.25]), 1.0)

    Source: the flow is that of GAF, Azarkhalili & Libbrecht 2025 (2502.15765); the cuts are those of Picard & Queyranne 1980.
    """
    sends = np.ones(len(network.inputs), bool) if inputs is None else np.asarray(inputs, bool)
    if sends.shape != network.inputs.shape or not sends.any():
        raise ValueError(
            f"inputs has shape {sends.shape} and {sends.sum()} of them; expected one or more of {len(network.inputs)} inputs."
        )
    if max_arcs < 1:
        raise ValueError(f"max_arcs is {max_arcs}; expected 1 or more.")
    sources, sink = network.inputs[sends], int(output)
    barrier = barrier_flow(network, sources, sink, mu=mu)
    # In the finer quanta of OR-Tools, which tell nearly equal cuts apart.
    joint = min_cut(network, sources, sink, solver="ortools")
    senders, receivers, arc_of, (flow, capacity, copies) = _merged(network, barrier.flow)
    order, stronger = _by_strength(network, receivers, flow)
    kept = order[:max_arcs]
    place = np.full(len(flow) + 1, -1)  # of an arc among those kept; the last is that of arcs on no path
    place[kept] = np.arange(len(kept))

    on_path = np.unique(np.concatenate([senders, receivers, [sink]]))
    number = np.full(network.n_nodes, -1)
    number[on_path] = np.arange(len(on_path))
    entering, leaving = (np.bincount(ends, flow, network.n_nodes) for ends in (receivers, senders))
    own_cut, own_cut_start, layer_cut = _own_cuts(network, sends, sink, place[arc_of], solver)
    stack = np.asarray(network.stack)
    return FlowGraph(
        stack=stack[on_path],
        level=np.asarray(network.level)[on_path],
        position=np.asarray(network.position)[on_path],
        through=np.maximum(entering, leaving)[on_path],
        inputs=np.where(sends, number[network.inputs], -1),
        output=int(number[sink]),
        senders=number[senders[kept]],
        receivers=number[receivers[kept]],
        kind=_kinds(network, senders, receivers, copies)[kept],
        capacity=capacity[kept],
        flow=flow[kept],
        stronger=stronger[kept],
        in_cut=np.isin(np.arange(len(kept)), place[arc_of[joint.arc]]),
        own_cut=own_cut,
        own_cut_start=own_cut_start,
        layer_capacity=_by_layer(network, receivers, capacity),
        layer_flow=_by_layer(network, receivers, flow),
        layer_cut=layer_cut,
        value=float(barrier.value),
        maximum=joint.value,
        gap=float(barrier.gap),
        mu=barrier.mu,
        share=float(flow[kept].sum() / flow.sum()) if len(kept) < len(flow) else 1.0,
        n_arcs=len(flow),
        n_encoder=int(np.asarray(network.level)[stack == ENCODER].max(initial=0)),
    )


def _merged(
    network: FlowNetwork, flow: Real[np.ndarray, " arc"]
) -> tuple[
    Int[np.ndarray, " merged"],
    Int[np.ndarray, " merged"],
    Int[np.ndarray, " arc"],
    tuple[Real[np.ndarray, " merged"], Real[np.ndarray, " merged"], Real[np.ndarray, " merged"]],
]:
    """Take the arcs with a flow, and make one of those that join the same two nodes, as the tokens of a span do.

    Returns:
        Senders and receivers; which of these each of the network's arcs became, one beyond the last where it carries nothing; and
        of each its flow, its capacity, and how many it was.
    """
    live = np.flatnonzero(flow)
    code = np.asarray(network.senders, np.int64)[live] * network.n_nodes + np.asarray(network.receivers)[live]
    ends, merged = np.unique(code, return_inverse=True)
    arc_of = np.full(len(flow), len(ends))
    arc_of[live] = merged
    of_each = (flow[live], np.asarray(network.capacity, np.float64)[live], np.ones(len(live)))
    flows, capacities, copies = (np.bincount(merged, values, len(ends)) for values in of_each)
    return ends // network.n_nodes, ends % network.n_nodes, arc_of, (flows, capacities, copies)


def _by_layer(
    network: FlowNetwork, receivers: Int[np.ndarray, " arc"], values: Real[np.ndarray, " arc"]
) -> Real[np.ndarray, " layer"]:
    """Add up over the arcs that lead to a layer; feedback leads to none."""
    return np.bincount(network.layer[receivers], values, network.n_layers + 1)[1:]


def _by_strength(
    network: FlowNetwork, receivers: Int[np.ndarray, " arc"], flow: Real[np.ndarray, " arc"]
) -> tuple[Int[np.ndarray, " arc"], Real[np.ndarray, " arc"]]:
    """Order arcs by their place in their layer, the strongest first; and say what share of its flow stronger ones carry."""
    stack, level = np.asarray(network.stack)[receivers], np.asarray(network.level)[receivers]
    stronger, place = np.zeros(len(flow)), np.zeros(len(flow), np.int64)
    for layer in np.unique(np.stack([stack, level]), axis=1).T:
        mine = np.flatnonzero((stack == layer[0]) & (level == layer[1]))
        mine = mine[np.argsort(-flow[mine], kind="stable")]
        total = np.cumsum(flow[mine])
        stronger[mine] = np.append(0, total[:-1]) / total[-1]
        place[mine] = np.arange(len(mine))
    return np.argsort(place, kind="stable"), stronger


def _own_cuts(
    network: FlowNetwork,
    sends: Bool[np.ndarray, " input"],
    sink: int,
    place: Int[np.ndarray, " arc"],
    solver: Solver,
) -> tuple[Int[np.ndarray, " entry"], Int[np.ndarray, " input+1"], Float[np.ndarray, "input layer"]]:
    """Find the minimum cut nearest each input: which kept arcs it holds, and how much of it lies in each layer."""
    layers = np.zeros((len(sends), network.n_layers))
    entries: list[Int[np.ndarray, " entry"]] = [np.zeros(0, np.int64)] * len(sends)
    # Nodes are numbered in topological order: nothing flows to a lower number.
    asked = np.flatnonzero(sends & (np.asarray(network.inputs) < sink))
    if asked.size:
        for number, cut in zip(asked, min_cuts(network, network.inputs[asked], sink, solver=solver), strict=True):
            layers[number] = _by_layer(network, np.asarray(network.receivers)[cut.arc], cut.capacity)
            kept = np.unique(place[cut.arc])
            entries[number] = kept[kept >= 0]
    return np.concatenate(entries), np.cumsum([0, *map(len, entries)]), layers


def _kinds(
    network: FlowNetwork,
    senders: Int[np.ndarray, " arc"],
    receivers: Int[np.ndarray, " arc"],
    copies: Real[np.ndarray, " arc"],
) -> Int[np.ndarray, " arc"]:
    stack, position = np.asarray(network.stack), np.asarray(network.position)
    is_span = np.isin(senders, senders[copies > 1])  # several tokens have no one position to keep
    is_cross = (stack[senders] == ENCODER) & (stack[receivers] != ENCODER)
    is_feedback = np.asarray(network.level)[receivers] == 0
    is_residual = (position[senders] == position[receivers]) & ~is_span
    return np.select([is_feedback, is_cross, is_residual], [3, 2, 1], default=0).astype(np.int8)
