"""plot_flow: tokens x layers, and between them the one flow that is unique, what could flow, and the cut that bounds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxflow.explain import ARC_KINDS, Explanation, FlowGraph
from jaxflow.network import ENCODER, MIDDLE
from jaxflow.views._named_scores import cut, name_outputs
from jaxflow.views._tokens import shown_tokens
from jaxflow.views.plot._sizes import Size, check_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_ROWS = (
    32  # token positions of a stack; of longer inputs those of the strongest arcs are drawn, and the others counted
)
# In points.
EDGE, PAD, ROW, HEAD, LEGEND, WIDEST = 2.0, 5.0, 14.0, 26.0, 14.0, 7.0
NARROW = 320.0  # in figures up to this width the legend takes two lines
BLOCK = 1.6  # between encoder and decoder, in layers
FOLD = 0.6  # what stands for rows that are left out, in rows


def plot_flow(
    given: Explanation | FlowGraph,
    *,
    row: int = 0,
    player: int | None = None,
    share: float = 0.95,
    tokens: Sequence[str] | None = None,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how attention flows to one output: a node for each token and layer, an arc's width its flow.

    The flow is the barrier-regularised one of all inputs together, which is unique; behind it, in grey, is what each arc could
    carry. Arcs of the minimum cut are orange: their capacities sum to its value. Arcs of the residual stream are dashed, and
    those by which a decoder reads the encoder green, and those by which it reads what it wrote pale, from the last layer back
    to the input. The encoder is left, the decoder right. Of each layer the strongest arcs
    that carry `share` of its flow are drawn; of more than 32 positions, those that the strongest arcs join. The title states what
    share is drawn.

    Args:
        given: an `Explanation` that has flow graphs (`explain(flow_graph=True)`), or a `FlowGraph`.
        row: which of the explained outputs.
        player: an input, whose own minimum cut is coloured; by default the cut of all inputs together.
        share: of each layer's flow, in (0, 1].
        tokens: `[input]`, names of the inputs instead of those of the explanation, or instead of positions.
        size: "column" (3.25 in) or "page" (6.75 in, the default) wide, as high as it takes.
        ax: axes to draw into; by default those of a new figure (see `plot_tokens`).

    Returns:
        The axes. Of its `collections`, "capacity" and "flow" (by `get_label`) hold the arcs, "capacity" none of those that lead
        back: `get_linewidths()` are the numbers, times one factor.

    Raises:
        ValueError: an explanation without flow graphs, an output, input or share that does not exist, names that do not fit.
        ImportError: matplotlib is not installed.

    Source: the flow is that of GAF, Azarkhalili & Libbrecht 2025 (2502.15765).
    """
    graph = _graph(given, row)
    names = _names(given, graph, tokens)
    in_cut = _cut(graph, player)
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; expected a part of each layer's flow, above 0 and at most 1.")
    width = check_width(size, ax)
    from jaxflow.views.plot import _drawing as drawing

    rows = _rows(graph, np.flatnonzero(graph.stronger < share))
    arcs = np.flatnonzero((graph.stronger < share) & rows.shows[graph.senders] & rows.shows[graph.receivers])
    arcs = arcs[np.argsort(graph.flow[arcs], kind="stable")]  # the strongest on top
    x, y, end = _columns(graph), rows.y, _output_name(given, row)
    if ax is None:
        left = EDGE + PAD + max(drawing.text_width(name) for node, name in names.items() if rows.shows[node])
        right = EDGE + PAD + max(map(drawing.text_width, (end, "0.000")))
        bottom = LEGEND if width > NARROW else 2 * LEGEND
        height = HEAD + ROW * rows.n + bottom
        ax = drawing.new_axes(width, height, given if isinstance(given, Explanation) else None)
        ax.set_position((left / width, bottom / height, 1 - (left + right) / width, ROW * rows.n / height))
    ax.set(xlim=(0, x.max()), ylim=(rows.n - 0.5, -0.5))
    ax.axis("off")

    is_cross, is_residual, is_back = (
        graph.kind[arcs] == ARC_KINDS.index(kind) for kind in ("cross", "residual", "feedback")
    )
    # One factor for all widths, by which nothing is wider than looks well.
    capacity = graph.capacity[arcs[~is_back]]  # of what is read back whole, capacities bound nothing
    factor = min(WIDEST, 0.6 * drawing.size_of(ax)[1] / rows.n) / capacity.max(initial=1e-12)
    ends = zip(graph.senders[arcs], graph.receivers[arcs], strict=True)
    curves = [_curve(x[sender], y[sender], x[receiver], y[receiver]) for sender, receiver in ends]
    kinds = [in_cut[arcs], is_cross, is_back]
    colours = np.select(kinds, [drawing.CUT, drawing.CROSS, drawing.BACK], default=drawing.FLOW).tolist()
    ghosts = np.where(in_cut[arcs[~is_back]], drawing.CUT_GHOST, drawing.GHOST).tolist()
    ahead = [curves[arc] for arc in np.flatnonzero(~is_back)]
    drawing.draw_arcs(ax, ahead, factor * capacity, ghosts, label="capacity")
    drawing.draw_arcs(ax, curves, factor * graph.flow[arcs], colours, dashed=is_residual, label="flow")
    joined = np.union1d(graph.senders[arcs], graph.receivers[arcs])
    drawing.draw_dots(ax, x[joined], y[joined])

    for node, name in names.items():
        if rows.shows[node]:
            drawing.write_beside(ax, x[node], y[node], name, -PAD)
    for column, place, count in rows.folds:
        drawing.write_beside(ax, column, place, f"⋮ {count}", -PAD, color=drawing.FAINT, fontsize=drawing.SMALL)
    drawing.write_beside(ax, x[graph.output], y[graph.output], f"{end}\n{graph.value:.3f}", PAD)
    for column, name in _heads(graph, x).items():
        drawing.write_above(ax, column, name, PAD)
    drawn = graph.share * graph.flow[arcs].sum() / graph.flow.sum()
    drawing.write_title(ax, f"{drawn:.0%} of the flow to {end}", HEAD - 12)
    whose = "minimum cut"
    if player is not None:
        whose = f"cut of {cut(names.get(int(graph.inputs[player]), str(player)), longest=12)}"
    legend = {"capacity": drawing.GHOST, "flow": drawing.FLOW}
    legend |= {"cross": drawing.CROSS} if is_cross.any() else {}
    legend |= {"read back": drawing.BACK} if is_back.any() else {}
    legend |= {whose: drawing.CUT} if in_cut[arcs].any() else {}
    drawing.explain_arcs(ax, legend, dashed="residual", wraps=drawing.width_of(ax.figure) <= NARROW)
    return ax


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Where nodes lie from top to bottom, which are shown, how many rows that takes; x, y and number of what is folded."""

    y: Float[np.ndarray, " node"]
    shows: Bool[np.ndarray, " node"]
    n: float
    folds: list[tuple[float, float, int]]


def _graph(given: Explanation | FlowGraph, row: int) -> FlowGraph:
    if isinstance(given, FlowGraph):
        return given
    n_graphs = len(given.flow_graphs)
    if not n_graphs:
        raise ValueError("The explanation has no flow graph: make it with explain(flow_graph=True), for method='flow'.")
    if not 0 <= row < n_graphs:
        raise ValueError(
            f"row is {row}, but the explanation has flow graphs of {n_graphs} of its outputs; expected 0 to {n_graphs - 1}. "
            "explain(flow_graph=True) finds one for each explained output."
        )
    return given.flow_graphs[row]


def _names(given: Explanation | FlowGraph, graph: FlowGraph, tokens: Sequence[str] | None) -> dict[int, str]:
    """Name the nodes of inputs."""
    n_players = len(graph.inputs)
    if tokens is None:
        tokens = given.tokens if isinstance(given, Explanation) else [str(i) for i in range(n_players)]
    if len(tokens) != n_players:
        raise ValueError(f"tokens holds {len(tokens)} names; expected {n_players}, one for each input.")
    n_encoder = len(given.encoder_tokens) if isinstance(given, Explanation) else n_players
    words = [word.text for stack in (tokens[:n_encoder], tokens[n_encoder:]) for word in shown_tokens(stack)]
    return {int(node): cut(word) for node, word in zip(graph.inputs, words, strict=True) if node >= 0}


def _output_name(given: Explanation | FlowGraph, row: int) -> str:
    return cut(name_outputs(given)[row], longest=40) if isinstance(given, Explanation) else "the output"


def _cut(graph: FlowGraph, player: int | None) -> Bool[np.ndarray, " arc"]:
    if player is None:
        return np.asarray(graph.in_cut)
    if not 0 <= player < len(graph.inputs):
        raise ValueError(
            f"player is {player}; expected an input, 0 to {len(graph.inputs) - 1}, or None for all together."
        )
    entries = graph.own_cut[graph.own_cut_start[player] : graph.own_cut_start[player + 1]]
    return np.isin(np.arange(len(graph.senders)), entries)


def _columns(graph: FlowGraph) -> Float[np.ndarray, " node"]:
    """Place nodes from left to right: the encoder's layers, then the decoder's, the middle of a layer before its end."""
    is_encoder = graph.stack == ENCODER
    start = graph.n_encoder + BLOCK if is_encoder.any() else 0.0
    return graph.level - 0.5 * (graph.stack == MIDDLE) + np.where(is_encoder, 0.0, start)


def _rows(graph: FlowGraph, arcs: Int[np.ndarray, " arc"]) -> _Rows:
    """Place positions from top to bottom, each stack from the top; of many, those that the first of the arcs join."""
    y, shows = np.zeros(len(graph.level)), np.zeros(len(graph.level), bool)
    x = _columns(graph)
    met = np.stack([graph.receivers[arcs], graph.senders[arcs]], axis=-1).ravel()
    folds: list[tuple[float, float, int]] = []
    n = 0.0
    for of_stack in (graph.stack == ENCODER, graph.stack != ENCODER):
        if not of_stack.any():
            continue
        positions = np.unique(graph.position[of_stack])
        if len(positions) > MAX_ROWS:
            first, when = np.unique(graph.position[met[of_stack[met]]], return_index=True)
            kept = np.sort(first[np.argsort(when)][:MAX_ROWS])
        else:
            kept = positions
        column, place = float(x[of_stack].min()), 0.0
        edges = np.searchsorted(positions, kept)
        for position, n_folded in zip(kept, np.diff(edges, prepend=-1) - 1, strict=True):
            if n_folded:
                folds.append((column, place - 0.2, int(n_folded)))
                place += FOLD
            here = of_stack & (graph.position == position)
            y[here], shows[here] = place, True
            place += 1
        if edges[-1] < len(positions) - 1:
            folds.append((column, place - 0.2, len(positions) - 1 - int(edges[-1])))
            place += FOLD
        n = max(n, place)
    return _Rows(y, shows, n, folds)


def _curve(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    """Give the four points of a curve that leaves and enters level, to the right, also where it leads back to the left."""
    bend = (x1 - x0) / 2 if x1 > x0 else 0.3
    return [(x0, y0), (x0 + bend, y0), (x1 - bend, y1), (x1, y1)]


def _heads(graph: FlowGraph, x: Float[np.ndarray, " node"]) -> dict[float, str]:
    """Name the columns: inputs, and each layer by its number, counted over the encoder's and then the decoder's."""
    heads: dict[float, str] = {}
    for level, stack, place in zip(graph.level.tolist(), graph.stack.tolist(), x.tolist(), strict=True):
        if stack != MIDDLE:
            heads[place] = str(level + (graph.n_encoder if stack != ENCODER else 0)) if level else "input"
    return heads
