"""A minimum cut as explanation: the arcs that bound what some inputs can send to some outputs, and a sentence of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from flax import struct
from jaxtyping import Float, Int

from jaxflow.network import DECODER, ENCODER, MIDDLE, FlowNetwork
from jaxflow.solve import _ortools as ortools
from jaxflow.solve._joining import join_ends
from jaxflow.solve._quantise import check_arcs, quantise

# What an arc of the network stands for.
KINDS = ("encoder", "decoder", "cross", "residual")
# A share of a cut below this is not worth a word.
WORTH_SAYING = 0.05


@struct.dataclass
class CutExplanation:
    """The arcs of a minimum cut between a set of inputs and a set of outputs; their capacity is the flow's value.

    Without these arcs nothing flows, and without one of them less flows by just its capacity: the explanation certifies
    itself.

    Attributes:
        arc: `[arc]`, which of the network's arcs.
        layer: `[arc]`, counted from 1 at the input, over the encoder's layers and then the decoder's.
        kind: `[arc]`, index into `KINDS`: self-attention of the encoder or the decoder, cross-attention, or the residual
            stream past a cross-attention ("sublayers").
        query: `[arc]`, position that reads.
        key: `[arc]`, position that is read; in the encoder for cross-attention.
        capacity: `[arc]`, float64, quantised.
        value: their sum, the maximum flow.
        share: `[layer]`, of the cut's capacity, in each layer; sums to 1, or is all 0 where nothing flows.
        is_all_sent: whether these are all arcs that leave the inputs: what comes after does not matter then.
        is_all_taken: whether these are all arcs that enter the outputs: what comes before does not matter then.
        n_encoder: number of the encoder's layers.
    """

    arc: Int[np.ndarray, " arc"]
    layer: Int[np.ndarray, " arc"]
    kind: Int[np.ndarray, " arc"]
    query: Int[np.ndarray, " arc"]
    key: Int[np.ndarray, " arc"]
    capacity: Float[np.ndarray, " arc"]
    value: float
    share: Float[np.ndarray, " layer"]
    is_all_sent: bool
    is_all_taken: bool
    n_encoder: int = struct.field(pytree_node=False)


def explain_cut(
    network: FlowNetwork,
    sources: int | Int[np.ndarray, " source"],
    sinks: int | Int[np.ndarray, " sink"],
    *,
    nearest: Literal["source", "sink"] = "source",
) -> CutExplanation:
    """Find what bounds the flow from all `sources` together to all `sinks` together.

    Minimum cuts are not unique; the one nearest the inputs and the one nearest the outputs are. Where both are the same
    there is no other. Cost: one OR-Tools solve.

    Args:
        network: one example's network.
        sources: node or nodes, such as `network.encoder_inputs[[1, 2]]`.
        sinks: node or nodes, such as `network.outputs[0]`.
        nearest: which end's cut to return.

    Raises:
        ValueError: nodes that do not exist, are given twice or are at both ends; `nearest` that is neither end; as `max_flow`.

    Example:
        >>> from jaxflow.capacities import Capacities
        >>> from jaxflow.network import flow_network
        >>> layer = np.array([[0.75, 0.25], [0.5, 0.5]])
        >>> network = flow_network(Capacities(encoder=np.stack([layer, layer])))
        >>> cut = explain_cut(network, network.encoder_inputs[1], network.outputs[1])
        >>> print(cut_sentence(cut, encoder_tokens=["the", "keys"]))
        Layer 1 is the bottleneck: all of the cut (0.75), all of it read from position 1 (keys). It is all that the input \
sends: the score says nothing of what happens after.

    Source: Ford & Fulkerson 1956; Picard & Queyranne 1980 for the nearest ones.
    """
    if nearest not in ("source", "sink"):
        raise ValueError(f"nearest is {nearest!r}; expected 'source' or 'sink'.")
    check_arcs(network)
    sources, sinks = _check_nodes(network, "sources", sources), _check_nodes(network, "sinks", sinks)
    both = np.intersect1d(sources, sinks)
    if both.size:
        raise ValueError(f"Node {both[0]} is among sources and sinks; expected different nodes.")
    joined = join_ends(network, sources, sinks)
    quantised = quantise(joined)
    # Which of our arcs these are: quantise leaves out what rounds to 0. The arcs that were added are in no minimum cut.
    kept = np.flatnonzero(np.rint(np.asarray(joined.capacity) / quantised.quantum))
    source, sink = np.zeros(1, np.int64), np.full(1, joined.n_nodes - 1)
    ((quanta, cut),) = ortools.solve_pairs(quantised, source, sink, nearest=nearest)
    arc = kept[cut]
    senders, receivers = np.asarray(network.senders)[arc], np.asarray(network.receivers)[arc]
    capacity = quantised.capacity[cut] * quantised.quantum
    stack = np.asarray(network.stack)
    kind = np.select(
        [stack[receivers] == ENCODER, stack[senders] == ENCODER, stack[senders] == MIDDLE], [0, 2, 3], default=1
    )
    layer, value = network.layer[receivers], float(capacity.sum())
    total = np.bincount(layer - 1, capacity, network.n_layers) if arc.size else np.zeros(network.n_layers)
    return CutExplanation(
        arc=arc,
        layer=layer,
        kind=kind,
        query=np.asarray(network.position)[receivers],
        key=np.asarray(network.position)[senders],
        capacity=capacity,
        value=value,
        share=total / value if value else total,
        is_all_sent=bool(quanta == quantised.leaving[sources + 1].sum()),
        is_all_taken=bool(quanta == quantised.entering[sinks + 1].sum()),
        n_encoder=int(np.asarray(network.level)[stack == ENCODER].max(initial=0)) if (stack == DECODER).any() else 0,
    )


def cut_sentence(cut: CutExplanation, *, encoder_tokens: Sequence[str] = (), decoder_tokens: Sequence[str] = ()) -> str:
    """Say where the bottleneck is, and whose reading it is mostly.

    Args:
        cut: what `explain_cut` found.
        encoder_tokens: words that the encoder reads; positions alone if there are none.
        decoder_tokens: likewise.
    """
    if not cut.value:
        return "Nothing flows: no path leads from the inputs to the outputs."

    def place(position: int, *, encoder: bool) -> str:
        tokens = encoder_tokens if encoder else decoder_tokens
        return f"position {position} ({tokens[position]})" if position < len(tokens) else f"position {position}"

    def layer_name(layer: int) -> str:
        if not cut.n_encoder:
            return f"layer {layer}"
        stack, level = ("encoder", layer) if layer <= cut.n_encoder else ("decoder", layer - cut.n_encoder)
        return f"layer {level} of the {stack}"

    order = np.argsort(-cut.share, kind="stable")
    top = int(order[0]) + 1
    here = cut.layer == top
    kind, query, key, capacity = (values[here] for values in (cut.kind, cut.query, cut.key, cut.capacity))
    # Who holds most of it: one that reads, by any attention, or one that is read.
    from_encoder = np.isin(kind, [KINDS.index("encoder"), KINDS.index("cross")])
    readers = {int(q): capacity[query == q].sum() for q in query}
    read = {
        (int(k), bool(encoder)): capacity[(key == k) & (from_encoder == encoder)].sum()
        for k, encoder in zip(key, from_encoder, strict=True)
    }
    reader, most_read = max(readers, key=readers.__getitem__), max(read, key=read.__getitem__)
    if readers[reader] > read[most_read]:
        held, who = readers[reader], f"by {place(reader, encoder=not kind.any())}"
    else:
        held, who = read[most_read], f"from {place(most_read[0], encoder=most_read[1])}"
    part = held / capacity.sum()
    much = "all of it" if part > 0.995 else "most of it" if part >= 0.5 else f"{part:.0%} of it"
    share = cut.share[top - 1]
    size = f"all of the cut ({cut.value:.2f})" if share > 0.995 else f"{share:.0%} of the cut ({cut.value:.2f})"
    text = f"{layer_name(top)} is the bottleneck: {size}, {much} read {who}"
    others = [
        f"{layer_name(int(layer) + 1)} holds {cut.share[layer]:.0%}"
        for layer in order[1:]
        if cut.share[layer] >= WORTH_SAYING
    ]
    text = "; ".join([text, *others]) + "."
    if cut.is_all_sent:
        text += " It is all that the input sends: the score says nothing of what happens after."
    elif cut.is_all_taken:
        text += " It is all that the output takes: the score says nothing of what happens before."
    return text[0].upper() + text[1:]


def _check_nodes(network: FlowNetwork, name: str, nodes: int | Int[np.ndarray, " node"]) -> Int[np.ndarray, " node"]:
    given = np.atleast_1d(np.asarray(nodes))
    if given.ndim != 1 or not given.size or not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"{name} is {nodes!r}; expected a node, or nodes, such as network.encoder_inputs[[1, 2]].")
    if not 0 <= given.min() <= given.max() < network.n_nodes:
        wrong = given.min() if given.min() < 0 else given.max()
        raise ValueError(
            f"{name} names node {wrong}, which does not exist: the network has nodes 0 to {network.n_nodes - 1}."
        )
    if len(np.unique(given)) < len(given):
        raise ValueError(f"{name} names a node more than once: {given.tolist()}.")
    return given.astype(np.int64)
