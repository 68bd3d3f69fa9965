"""Where a flow graph's nodes are drawn: tokens below one another, layers to the right, a decoder right of its encoder."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxflow.explain import FlowGraph
from jaxflow.network import DECODER, MIDDLE

BETWEEN = 1.7  # columns between an encoder's last layer and a decoder's inputs, whose words stand there
ROW_HEIGHTS = ((14, 34), (40, 24), (96, 18), (200, 14))  # up to so many rows, pixels
LOWEST_ROW = 9
FILLED = 0.86  # of a row by the node through which most flows
MOST_ARCS, FEWEST_ARCS, ALL_ARCS = 800, 60, 3600  # drawn at most: of one graph, of one of many, of all on a page


class Column(NamedTuple):
    """A layer of a stack: where it stands, and what it is called."""

    x: float
    name: str


class Layout(NamedTuple):
    """The frame that all graphs of an explanation are drawn in.

    Attributes:
        columns: of all layers.
        decoder_x: where the decoder's inputs stand; 0 where there is no encoder.
        n_rows: tokens below one another.
        row_height: in pixels.
        scale: pixels per unit of flow.
    """

    columns: tuple[Column, ...]
    decoder_x: float
    n_rows: int
    row_height: int
    scale: float


def lay_out(graphs: tuple[FlowGraph, ...], n_encoder: int, n_players: int) -> Layout:
    """Make one frame for all graphs of an explanation, so that nothing moves from step to step.

    Args:
        graphs: at least one.
        n_encoder: how many of the inputs are the encoder's.
        n_players: how many inputs there are.
    """
    decoder_x = graphs[0].n_encoder + BETWEEN if graphs[0].n_encoder and n_encoder < n_players else 0.0
    n_layers = len(graphs[0].layer_flow)
    n_rows = max([n_encoder, n_players - n_encoder, *(int(graph.position.max()) + 1 for graph in graphs)])
    row_height = next((height for most, height in ROW_HEIGHTS if n_rows <= most), LOWEST_ROW)
    widest = max(float(np.delete(graph.through, graph.output).max(initial=0)) for graph in graphs)
    columns = [Column(0.0, "encoder" if decoder_x else "input")]
    columns += [Column(float(i), str(i)) for i in range(1, (graphs[0].n_encoder or n_layers) + 1)]
    if decoder_x:
        columns += [Column(decoder_x, "decoder")]
        columns += [Column(decoder_x + i, str(i)) for i in range(1, n_layers - graphs[0].n_encoder + 1)]
    return Layout(tuple(columns), decoder_x, n_rows, row_height, FILLED * row_height / max(widest, 1e-9))


def node_columns(graph: FlowGraph, layout: Layout) -> Float[np.ndarray, " node"]:
    """`[node]`, the column that each node stands in; the middle of a decoder's layer between two."""
    in_decoder = np.isin(graph.stack, (DECODER, MIDDLE))
    return graph.level + in_decoder * layout.decoder_x - 0.45 * (graph.stack == MIDDLE)


def input_rows(graph: FlowGraph, n_encoder: int) -> Int[np.ndarray, " player"]:
    """`[player]`, the row of each input: where flow leaves it, or where it is the how-manieth of its stack otherwise."""
    places = np.arange(len(graph.inputs))
    known = graph.inputs >= 0
    rows = np.where(known, graph.position[graph.inputs], np.where(places < n_encoder, places, places - n_encoder))
    taken = set(rows[known & (places < n_encoder)].tolist()), set(rows[known & (places >= n_encoder)].tolist())
    # A span's place is not its number: one that nothing leaves has none that is free.
    lost = [not known[i] and int(rows[i]) in taken[int(i >= n_encoder)] for i in places]
    return np.where(lost, -1, rows)


def n_arcs_each(n_graphs: int) -> int:
    """Say how many arcs of each graph a page holds."""
    return int(np.clip(ALL_ARCS // n_graphs, FEWEST_ARCS, MOST_ARCS))


def layer_name(graph: FlowGraph, layer: int) -> str:
    """Name a layer; of an encoder-decoder by its stack too."""
    if not graph.n_encoder or graph.n_encoder == len(graph.layer_flow):
        return str(layer + 1)
    return f"encoder {layer + 1}" if layer < graph.n_encoder else f"decoder {layer + 1 - graph.n_encoder}"
