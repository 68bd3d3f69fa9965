"""plot_flow: tokens x layers, and between them the barrier-regularised flow, the capacities, and the cut that bounds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from jaxflow._attention import AnyInt
from jaxflow._palette import GHOST
from jaxflow.explain import ARC_KINDS, Explanation, FlowGraph
from jaxflow.views._layout import STYLES, Layout, dash_lengths, lay_out
from jaxflow.views._named_scores import cut, name_outputs
from jaxflow.views._tokens import visible_names
from jaxflow.views.plot._sizes import Size, check_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_ROWS = (
    32  # token positions of a stack; of longer inputs those of the strongest arcs are drawn, and the others counted
)
# In points.
EDGE, PAD, ROW, HEAD, LEGEND, WIDEST = 2.0, 5.0, 14.0, 26.0, 14.0, 7.0
NARROW = 320.0  # in figures up to this width the legend takes two lines
NAMED = {"cross": "cross", "feedback": "read back"}  # kinds of arcs that have a colour of their own


def plot_flow(
    given: Explanation | FlowGraph,
    *,
    row: int = 0,
    input: int | None = None,
    share: float = 0.95,
    tokens: Sequence[str] | None = None,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how attention flows to one output: a node for each token and layer, an arc's width its flow.

    The flow is the barrier-regularised one of all inputs, which is unique; behind it, in grey, is what each arc could carry.
    Arcs of the minimum cut are orange: their capacities sum to its value. Arcs of the residual stream are dashed, cross-attention
    is green, and arcs by which a decoder reads what it generated are pale and lead from the last layer back to the input. The
    encoder is left, the decoder right. Of each layer the strongest arcs that carry `share` of its flow are drawn; of more than 32
    positions, those that the strongest arcs join. The title states what share of the whole flow is drawn.

    Args:
        given: an `Explanation` by a flow, or a `FlowGraph`.
        row: which of the explained outputs.
        input: an input, whose own minimum cut is coloured; by default the joint cut of all inputs.
        share: of each layer's flow, in (0, 1].
        tokens: `[input]`, names of the inputs instead of those of the explanation, or instead of positions.
        size: "column" (3.25 in) or "page" (6.75 in, the default) wide, as high as it takes.
        ax: axes to draw into; by default those of a new figure (see `plot_tokens`).

    Returns:
        The axes. Of its `collections`, "capacity" and "flow" (by `get_label`) hold the arcs, "capacity" none of those that lead
        back: `get_linewidths()` are the numbers, times one factor.

    Raises:
        ValueError: an explanation without flow graphs, as by other methods; an output, input or share that does not exist; names
            that do not fit.
        ImportError: matplotlib is not installed.

    Source: the flow is that of GAF, Azarkhalili & Libbrecht 2025 (2502.15765).
    """
    graph = given if isinstance(given, FlowGraph) else given.flow_graph(row)
    names = _names(given, graph, tokens)
    in_cut = _cut(graph, input)
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; expected a part of each layer's flow, above 0 and at most 1.")
    width = check_width(size, ax)
    from jaxflow.views.plot import _drawing as drawing

    layout = lay_out(graph, n_encoder=_n_encoder(given, graph), max_rows=MAX_ROWS, share=share)
    arcs = layout.arcs(share)
    arcs = arcs[np.argsort(graph.flow[arcs], kind="stable")]  # the strongest on top
    x, y, end = layout.x, layout.y, _output_name(given, row)
    labels = [(int(node), name) for node, name in zip(graph.inputs, names, strict=True) if node >= 0]
    labels = [(node, name) for node, name in labels if layout.is_drawn[node]]
    if ax is None:
        left = EDGE + PAD + max(drawing.text_width(name) for _, name in labels)
        right = EDGE + PAD + max(map(drawing.text_width, (end, "0.000")))
        bottom = LEGEND if width > NARROW else 2 * LEGEND
        height = HEAD + ROW * layout.n_rows + bottom
        ax = drawing.new_axes(width, height, given if isinstance(given, Explanation) else None)
        ax.set_position((left / width, bottom / height, 1 - (left + right) / width, ROW * layout.n_rows / height))
    ax.set(xlim=(0, x.max()), ylim=(layout.n_rows - 0.5, -0.5))
    ax.axis("off")

    kinds = [ARC_KINDS[kind] for kind in graph.kind[arcs]]
    has_capacity = np.array([STYLES[kind].has_capacity for kind in kinds], bool)
    # One factor for all widths, by which nothing is wider than looks well.
    capacity = graph.capacity[arcs[has_capacity]]
    factor = min(WIDEST, 0.6 * drawing.size_of(ax)[1] / layout.n_rows) / capacity.max(initial=1e-12)
    curves = [_curve(layout, arc) for arc in arcs]
    colours = [drawing.CUT if in_cut[arc] else drawing.KINDS[kind] for arc, kind in zip(arcs, kinds, strict=True)]
    ghosts = np.where(in_cut[arcs[has_capacity]], drawing.CUT_GHOST, GHOST).tolist()
    ahead = [curves[arc] for arc in np.flatnonzero(has_capacity)]
    widths = factor * graph.flow[arcs]
    dashes = [dash_lengths(wide) if STYLES[kind].is_dashed else None for wide, kind in zip(widths, kinds, strict=True)]
    drawing.draw_arcs(ax, ahead, factor * capacity, ghosts, label="capacity")
    drawing.draw_arcs(ax, curves, widths, colours, dashes=dashes, label="flow")
    joined = np.union1d(graph.senders[arcs], graph.receivers[arcs])
    drawing.draw_dots(ax, x[joined], y[joined])

    for node, name in labels:
        drawing.write_beside(ax, x[node], y[node], name, -PAD)
    for fold in layout.folds:
        text = f"⋮ {fold.n_positions}"
        drawing.write_beside(ax, fold.x, fold.y, text, -PAD, color=drawing.SOFT, fontsize=drawing.SMALL)
    drawing.write_beside(ax, x[graph.output], y[graph.output], f"{end}\n{graph.value:.3f}", PAD)
    for column in layout.columns:
        drawing.write_above(ax, column.x, column.name, PAD)
    drawing.write_title(ax, f"{layout.carried(arcs):.0%} of the flow to {end}", HEAD - 12)
    whose = "minimum cut" if input is None else f"cut of {cut(names[input], longest=12)}"
    legend = {"capacity": GHOST, "flow": drawing.FLOW}
    legend |= {name: drawing.KINDS[kind] for kind, name in NAMED.items() if kind in kinds}
    legend |= {whose: drawing.CUT} if in_cut[arcs].any() else {}
    drawing.explain_arcs(ax, legend, dashed="residual", wraps=drawing.width_of(ax.figure) <= NARROW)
    return ax


def _n_encoder(given: Explanation | FlowGraph, graph: FlowGraph) -> int:
    """Return how many inputs are an encoder's; all of a graph alone, whose names are those of one stack."""
    return len(given.encoder_tokens) if isinstance(given, Explanation) else len(graph.inputs)


def _names(given: Explanation | FlowGraph, graph: FlowGraph, tokens: Sequence[str] | None) -> list[str]:
    """Name the inputs."""
    n_inputs = len(graph.inputs)
    if tokens is None:
        tokens = given.tokens if isinstance(given, Explanation) else [str(i) for i in range(n_inputs)]
    if len(tokens) != n_inputs:
        raise ValueError(f"tokens holds {len(tokens)} names; expected {n_inputs}, one for each input.")
    return [cut(name) for name in visible_names(tokens)]


def _output_name(given: Explanation | FlowGraph, row: int) -> str:
    return cut(name_outputs(given)[row], longest=40) if isinstance(given, Explanation) else "the output"


def _cut(graph: FlowGraph, number: int | None) -> Bool[np.ndarray, " arc"]:
    """Mark the arcs of the joint minimum cut, or of one input's own."""
    if number is None:
        return np.asarray(graph.in_cut)
    if not 0 <= number < len(graph.inputs):
        raise ValueError(
            f"input is {number}; expected an input, 0 to {len(graph.inputs) - 1}, or None for the joint cut of all."
        )
    entries = graph.own_cut[graph.own_cut_start[number] : graph.own_cut_start[number + 1]]
    return np.isin(np.arange(len(graph.senders)), entries)


def _curve(layout: Layout, arc: AnyInt) -> list[tuple[float, float]]:
    """Return the four points of an arc between the middles of its nodes, where a figure has a dot."""
    sender, receiver = layout.graph.senders[arc], layout.graph.receivers[arc]
    (x0, x1), (y0, y1) = layout.x[[sender, receiver]], layout.y[[sender, receiver]]
    bend = STYLES[ARC_KINDS[layout.graph.kind[arc]]].bend(x1 - x0)
    return [(x0, y0), (x0 + bend, y0), (x1 - bend, y1), (x1, y1)]
