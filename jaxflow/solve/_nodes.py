"""Checks of the nodes between which a flow is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from jaxflow._attention import AnyArray, AnyInt
from jaxflow.network import FlowNetwork
from jaxflow.solve._quantise import refuse_traced

# One end of a pair, or of each of many pairs; broadcast against the other end.
Ends = AnyInt | Int[AnyArray, "*#pair"]


def check_nodes(network: FlowNetwork, name: str, nodes: Any) -> Int[np.ndarray, " *node"]:
    """Return nodes as int64, in their shape.

    Args:
        network: one example's network.
        name: what an error calls the nodes, such as "source".
        nodes: a node or an array of nodes.

    Raises:
        ValueError: nodes that are traced, no integers, or not in the network.
    """
    refuse_traced(network, nodes)
    nodes = np.asarray(nodes)
    if not np.issubdtype(nodes.dtype, np.integer):
        raise ValueError(f"{name} has dtype {nodes.dtype}; expected nodes, which are integers.")
    if nodes.size and not 0 <= nodes.min() <= nodes.max() < network.n_nodes:
        wrong = nodes.min() if nodes.min() < 0 else nodes.max()
        raise ValueError(
            f"{name} is node {wrong}, which does not exist: the network has nodes 0 to {network.n_nodes - 1}. "
            "Inputs are network.inputs, outputs network.outputs."
        )
    return nodes.astype(np.int64)


def check_pairs(
    network: FlowNetwork, source: Any, sink: Any
) -> tuple[Int[np.ndarray, " *pair"], Int[np.ndarray, " *pair"]]:
    """Return sources and sinks of pairs, broadcast against one another.

    Raises:
        ValueError: as `check_nodes`; a pair whose nodes are the same; shapes that do not broadcast.
    """
    sources, sinks = np.broadcast_arrays(check_nodes(network, "source", source), check_nodes(network, "sink", sink))
    check_apart(sources[sources == sinks])
    return sources, sinks


def check_node_set(network: FlowNetwork, name: str, nodes: Any) -> Int[np.ndarray, " node"]:
    """Return a node, or nodes that act as one, as `[node]`.

    Raises:
        ValueError: as `check_nodes`; no nodes, nodes of two dimensions, or a node that is named twice.
    """
    shape = np.shape(nodes)
    if len(shape) > 1 or 0 in shape:
        raise ValueError(f"{name} has shape {shape}; expected a node, or [node] nodes that act as one.")
    nodes = np.atleast_1d(check_nodes(network, name, nodes))
    different, times = np.unique(nodes, return_counts=True)
    if (times > 1).any():
        raise ValueError(f"{name} is node {different[times > 1][0]} more than once; expected each node once.")
    return nodes


def check_sets(
    network: FlowNetwork, source: Any, sink: Any
) -> tuple[Int[np.ndarray, " source"], Int[np.ndarray, " sink"]]:
    """Return the nodes that act as source, and those that act as sink.

    Raises:
        ValueError: as `check_node_set`; a node that is both.
    """
    sources, sinks = check_node_set(network, "source", source), check_node_set(network, "sink", sink)
    check_apart(np.intersect1d(sources, sinks))
    return sources, sinks


def check_apart(both: Int[np.ndarray, " node"]) -> None:
    """Raise if there is a node that is a source and a sink."""
    if both.size:
        raise ValueError(f"source and sink are both node {both[0]}; expected two different nodes.")
