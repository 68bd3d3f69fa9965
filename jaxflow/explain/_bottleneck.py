"""Where the flow to explained outputs is bound, and how it runs: one example's network -> flow graphs, share of each layer."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jaxflow._progress import progress_bar
from jaxflow.explain._flow_graph import FlowGraph, flow_graph
from jaxflow.network import FlowNetwork, Selection, selected_networks
from jaxflow.solve import Solver, cut_layers

# Flow graphs are found unasked while outputs x arcs are no more than this, which takes about 2 s.
CHEAP_ARCS = 2**19


def find_bottleneck(
    network: FlowNetwork, selection: Selection, *, graphs: bool | None, solver: Solver, progress: bool
) -> tuple[tuple[FlowGraph, ...], Float[np.ndarray, " layer"]]:
    """Find how the flow runs to explained outputs, and which layers hold the minimum cuts to the first of them.

    Args:
        network: one example's, before spans are joined.
        selection: its inputs and outputs.
        graphs: True: a graph for each output; False: for none. None: for each while that is cheap, else for the first while one
            is, else for none.
        solver: as in `min_cut`.
        progress: show a bar.

    Returns:
        The graphs, of as many of the first outputs; and `[layer]`, share in the capacity of the minimum cuts from all inputs.
    """
    n_graphs = _n_graphs(graphs, len(network.senders), len(selection.outputs))
    found: list[FlowGraph] = []
    with progress_bar(n_graphs, "flow graph", unit="output", shown=progress) as bar:
        for joined, outputs, _ in selected_networks(network, selection, ()):
            for output in outputs[: n_graphs - len(found)]:
                found.append(flow_graph(joined, output, inputs=selection.inputs, solver=solver))
                bar.update()
    if found:
        return tuple(found), found[0].cut_share
    joined, outputs, _ = next(selected_networks(network, selection, ()))
    # Nodes are numbered in topological order: nothing flows to a lower number.
    inputs = joined.inputs[selection.inputs & (joined.inputs < outputs[0])]
    with progress_bar(len(inputs), "min-cut", shown=progress) as bar:
        capacity = cut_layers(joined, inputs, outputs[0], solver=solver, on_solved=bar.update).sum(0)
    return (), capacity / max(capacity.sum(), np.finfo(np.float64).tiny)


def _n_graphs(wanted: bool | None, n_arcs: int, n_outputs: int) -> int:
    """Say for how many outputs a flow graph is found."""
    if wanted is not None:
        return n_outputs if wanted else 0
    return n_outputs if n_outputs * n_arcs <= CHEAP_ARCS else int(n_arcs <= CHEAP_ARCS)
