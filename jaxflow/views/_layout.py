"""FlowGraph -> Layout: where the nodes, arcs and names of one output's flow lie. The page and the figure draw it.

Horizontal places are in columns, one per layer; vertical places are in rows, one per token; stacking is in units of flow. What
draws it chooses the size of a column, of a row and of a unit of flow.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxflow.explain import FlowGraph
from jaxflow.network import ENCODER, MIDDLE

BETWEEN = 1.7  # columns between an encoder's last layer and a decoder's inputs, whose names stand there
BEFORE = 0.45  # columns by which the middle of a decoder layer lies before the layer
FOLD = 0.6  # rows that stand for positions that are left out


class ArcStyle(NamedTuple):
    """How arcs of one kind are drawn.

    Attributes:
        css: CSS class on the page.
        is_dashed: whether the arc is dashed.
        has_capacity: whether its capacity is drawn behind its flow.
        level: how far the arc goes on level at both ends, as a share of its way to the right.
        beyond: what is added to that, in columns.
    """

    css: str = ""
    is_dashed: bool = False
    has_capacity: bool = True
    level: float = 0.5
    beyond: float = 0.0

    def bend(self, columns: float) -> float:
        """Return how many columns an arc that leads so many columns to the right goes on level at both ends."""
        return self.level * columns + self.beyond


# By the names of `ARC_KINDS`. A generated token is read as a whole: the capacity of a feedback arc bounds nothing.
STYLES = {
    "attention": ArcStyle(),
    "residual": ArcStyle(is_dashed=True),
    "cross": ArcStyle(),
    "feedback": ArcStyle("back", has_capacity=False, level=0.0, beyond=0.4),
}
# Lengths of a dash and of a gap, in the unit of the arc's width: what is constant, and what grows with the width.
DASH, DASH_GAP = (4.0, 0.35), (2.0, 0.12)


class Column(NamedTuple):
    """A layer of a stack, or its inputs: its place and its name."""

    x: float
    name: str


class InputLabel(NamedTuple):
    """The name of an input, left of its node.

    Attributes:
        input: which input, those of the encoder first.
        x: column.
        y: row.
        sends: whether any flow leaves it.
    """

    input: int
    x: float
    y: float
    sends: bool


class Fold(NamedTuple):
    """Positions that are left out: the place that stands for them, and how many they are."""

    x: float
    y: float
    n_positions: int


@dataclasses.dataclass(frozen=True)
class Layout:
    """The flow to one output, laid out.

    Attributes:
        graph: the flow.
        n_arcs: how many of the graph's arcs can be drawn, the first ones.
        columns: the layers of all stacks.
        x: `[node]`, in columns.
        y: `[node]`, in rows.
        is_drawn: `[node]`, False where its position is left out.
        column: `[node]`, index into `columns` of the node's layer.
        input: `[node]`, the input at the node's position; -1 where there is none, as inside a span.
        leaves: `[arc]`, offset of the arc from its sender, down, in units of flow.
        enters: `[arc]`, likewise from its receiver.
        labels: the inputs' names.
        n_rows: height, in rows.
        folds: positions that are left out.
    """

    graph: FlowGraph
    n_arcs: int
    columns: tuple[Column, ...]
    x: Float[np.ndarray, " node"]
    y: Float[np.ndarray, " node"]
    is_drawn: Bool[np.ndarray, " node"]
    column: Int[np.ndarray, " node"]
    input: Int[np.ndarray, " node"]
    leaves: Float[np.ndarray, " arc"]
    enters: Float[np.ndarray, " arc"]
    labels: tuple[InputLabel, ...]
    n_rows: float
    folds: tuple[Fold, ...]

    def arcs(self, share: float) -> Int[np.ndarray, " drawn"]:
        """List the arcs to draw so that `share` of each layer's flow is drawn: the fewest that carry as much."""
        graph, n = self.graph, self.n_arcs
        both_ends = self.is_drawn[graph.senders[:n]] & self.is_drawn[graph.receivers[:n]]
        return np.flatnonzero((graph.stronger[:n] < share) & both_ends)

    def carried(self, arcs: Int[np.ndarray, " drawn"]) -> float:
        """Return the share of the whole flow that arcs carry."""
        return float(self.graph.share * self.graph.flow[arcs].sum() / max(self.graph.flow.sum(), 1e-300))


def lay_out(
    graph: FlowGraph, *, n_encoder: int, max_arcs: int | None = None, max_rows: int | None = None, share: float = 1.0
) -> Layout:
    """Lay out the flow to one output.

    Args:
        graph: the flow.
        n_encoder: how many of the inputs are the encoder's.
        max_arcs: how many arcs can be drawn at most; all by default.
        max_rows: how many positions of a stack are drawn at most: those that the strongest arcs join, without gaps. By
            default all, each in the row of its number.
        share: of each layer's flow, whose arcs decide which positions are drawn.
    """
    n = len(graph.flow) if max_arcs is None else min(max_arcs, len(graph.flow))
    start = graph.n_encoder + BETWEEN if graph.n_encoder else 0.0
    in_decoder = graph.stack != ENCODER
    x = graph.level + np.where(in_decoder, start, 0.0) - BEFORE * (graph.stack == MIDDLE)
    labels = _labels(graph, n_encoder, start)
    if max_rows is None:
        y, is_drawn = graph.position.astype(float), np.ones(len(x), bool)
        folds: list[Fold] = []
        n_rows = float(max([y.max() + 1, n_encoder, len(graph.inputs) - n_encoder]))
    else:
        y, is_drawn, n_rows, folds = _fold(graph, x, max_rows, share)
    senders, receivers = graph.senders[:n], graph.receivers[:n]
    at = {(label.input >= n_encoder, label.y): label.input for label in labels}
    places = zip(((n_encoder == 0) | in_decoder).tolist(), graph.position.tolist(), strict=True)
    return Layout(
        graph=graph,
        n_arcs=n,
        columns=_columns(graph),
        x=x,
        y=y,
        is_drawn=is_drawn,
        column=graph.level + np.where(in_decoder & (graph.n_encoder > 0), graph.n_encoder + 1, 0),
        input=np.array([at.get(place, -1) for place in places]),
        leaves=_stacked(senders, receivers, graph.flow[:n], x, y),
        enters=_stacked(receivers, senders, graph.flow[:n], x, y),
        labels=tuple(labels),
        n_rows=n_rows,
        folds=tuple(folds),
    )


def dash_lengths(width: float) -> tuple[float, float]:
    """Return the lengths of a dash and of a gap for an arc of this width, all in the unit of the width (pixels or points)."""
    return DASH[0] + DASH[1] * width, DASH_GAP[0] + DASH_GAP[1] * width


def layer_name(graph: FlowGraph, layer: int) -> str:
    """Name a layer by its number, from 1; of an encoder-decoder by its stack too."""
    if not graph.n_encoder or graph.n_encoder == len(graph.layer_flow):
        return str(layer + 1)
    return f"encoder {layer + 1}" if layer < graph.n_encoder else f"decoder {layer + 1 - graph.n_encoder}"


def _columns(graph: FlowGraph) -> tuple[Column, ...]:
    n_layers = len(graph.layer_flow)
    n_first = graph.n_encoder or n_layers
    columns = [Column(0.0, "input" if n_first == n_layers else "encoder")]
    columns += [Column(float(i), str(i)) for i in range(1, n_first + 1)]
    if n_first < n_layers:
        start = n_first + BETWEEN
        columns += [Column(start, "decoder"), *(Column(start + i, str(i)) for i in range(1, n_layers - n_first + 1))]
    return tuple(columns)


def _labels(graph: FlowGraph, n_encoder: int, start: float) -> list[InputLabel]:
    """Place inputs where flow leaves them; those that nothing leaves in the row of their number, if it is free."""
    labels = []
    numbers = np.arange(len(graph.inputs))
    sends = graph.inputs >= 0
    rows = np.where(sends, graph.position[graph.inputs], np.where(numbers < n_encoder, numbers, numbers - n_encoder))
    taken = {
        (i >= n_encoder, row) for i, row, known in zip(numbers.tolist(), rows.tolist(), sends, strict=True) if known
    }
    for i, row, known in zip(numbers.tolist(), rows.tolist(), sends.tolist(), strict=True):
        # The row of a span is not its number: one that nothing leaves may have no free row.
        if known or (i >= n_encoder, row) not in taken:
            labels.append(InputLabel(i, start if i >= n_encoder else 0.0, float(row), known))
    return labels


def _stacked(
    here: Int[np.ndarray, " arc"],
    there: Int[np.ndarray, " arc"],
    flow: Float[np.ndarray, " arc"],
    x: Float[np.ndarray, " node"],
    y: Float[np.ndarray, " node"],
) -> Float[np.ndarray, " arc"]:
    """Stack the arcs of each node below one another about its middle, those from above on top; return their middles."""
    order = np.lexsort((x[there], y[there], here))
    end = np.cumsum(flow[order])
    total = np.bincount(here, flow, len(x))
    before = np.cumsum(total) - total  # flow of all nodes before this one
    offset = np.zeros(len(flow))
    offset[order] = end - flow[order] / 2 - before[here[order]] - total[here[order]] / 2
    return offset


def _fold(
    graph: FlowGraph, x: Float[np.ndarray, " node"], max_rows: int, share: float
) -> tuple[Float[np.ndarray, " node"], Bool[np.ndarray, " node"], float, list[Fold]]:
    """Place positions from top to bottom, each stack from the top; of many, those that the strongest arcs join."""
    y, is_drawn = np.zeros(len(x)), np.zeros(len(x), bool)
    arcs = np.flatnonzero(graph.stronger < share)
    met = np.stack([graph.receivers[arcs], graph.senders[arcs]], axis=-1).ravel()
    folds: list[Fold] = []
    n_rows = 0.0
    for of_stack in (graph.stack == ENCODER, graph.stack != ENCODER):
        if not of_stack.any():
            continue
        positions = np.unique(graph.position[of_stack])
        kept = positions
        if len(positions) > max_rows:
            first, when = np.unique(graph.position[met[of_stack[met]]], return_index=True)
            kept = np.sort(first[np.argsort(when)][:max_rows])
        column, row = float(x[of_stack].min()), 0.0
        edges = np.searchsorted(positions, kept)
        for position, n_folded in zip(kept, np.diff(edges, prepend=-1) - 1, strict=True):
            if n_folded:
                folds.append(Fold(column, row - 0.2, int(n_folded)))
                row += FOLD
            here = of_stack & (graph.position == position)
            y[here], is_drawn[here] = row, True
            row += 1
        if edges[-1] < len(positions) - 1:
            folds.append(Fold(column, row - 0.2, len(positions) - 1 - int(edges[-1])))
            row += FOLD
        n_rows = max(n_rows, row)
    return y, is_drawn, n_rows, folds
