"""The layered flow graph as SVG, as it stands in a page whose script does not run; the script draws the same."""

from __future__ import annotations

from collections import defaultdict
from html import escape

import numpy as np

from jaxflow.explain import ARC_KINDS, FlowGraph
from jaxflow.views._tokens import Shown
from jaxflow.views.html._layout import Layout, input_rows, n_arcs_each, node_columns

SHARE = 0.8  # of each layer's flow that is drawn at first
LABEL, GAP, TOP, RIGHT = 128, 104, 34, 150  # pixels: input words, a column, the numbers of layers, the output's word
LONGEST = 16  # letters of a word beside the graph
STYLES = {"residual": ["dash"], "feedback": ["back"]}


def flow_svg(
    graph: FlowGraph, layout: Layout, tokens: list[Shown], *, n_encoder: int, title: str, n_graphs: int = 1
) -> str:
    """Draw one graph.

    Args:
        graph: what is drawn.
        layout: its frame.
        tokens: the inputs.
        n_encoder: how many of them are the encoder's.
        title: what the output is called.
        n_graphs: how many graphs share the page.
    """
    drawn = np.flatnonzero(graph.stronger[: n_arcs_each(n_graphs)] < SHARE)
    x = LABEL + GAP * node_columns(graph, layout)
    y = TOP + layout.row_height * (graph.position + 0.5)
    height = TOP + layout.row_height * layout.n_rows + 6
    width = LABEL + GAP * layout.columns[-1].x + RIGHT
    leaves, enters = _stacked(graph, drawn, x, y, layout.scale)
    ghosts: dict[str, list[str]] = defaultdict(list)
    flows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for place, arc in enumerate(drawn):
        kind = ARC_KINDS[graph.kind[arc]]
        path = _path(x[graph.senders[arc]], leaves[place], x[graph.receivers[arc]], enters[place])
        style = " ".join(["cut"] * bool(graph.in_cut[arc]) + STYLES.get(kind, []))
        if kind != "feedback":  # what is written is read as a whole: capacities of these arcs bound nothing
            ghosts[_width(graph.capacity[arc] * layout.scale)].append(path)
        flows[style, _width(graph.flow[arc] * layout.scale)].append(path)
    parts = [
        (
            f'<svg class="flow" role="img" width="{width:.0f}" height="{height}" viewBox="0 0 {width:.0f} {height}" '
            f'aria-label="Layered flow graph: {escape(title)}">'
        ),
        *(
            f'<text class="axis" text-anchor="middle" x="{LABEL + GAP * column.x:.0f}" y="14">{column.name}</text>'
            for column in layout.columns
        ),
        '<g class="ghosts">',
        *(f'<path stroke-width="{wide}" d="{"".join(paths)}"/>' for wide, paths in ghosts.items()),
        '</g><g class="flows">',
        *(
            f'<path class="{style}"{_dashes(style, wide)} stroke-width="{wide}" d="{"".join(paths)}"/>'
            for (style, wide), paths in flows.items()
        ),
        "</g><g>",
        *(
            f'<rect class="node" x="{x[node] - 1:.1f}" y="{y[node] - tall / 2:.1f}" width="2" height="{tall:.1f}"/>'
            for node in np.unique(np.concatenate([graph.senders[drawn], graph.receivers[drawn], [graph.output]]))
            for tall in [max(graph.through[node] * layout.scale, 1.5)]
        ),
        "</g>",
        *_labels(graph, layout, tokens, n_encoder),
        f'<text class="halo" x="{x[graph.output] + 8:.0f}" y="{y[graph.output] + 4:.0f}">{escape(_cut(title))}</text></svg>',
    ]
    return "".join(parts)


def _labels(graph: FlowGraph, layout: Layout, tokens: list[Shown], n_encoder: int) -> list[str]:
    """Write the inputs' words left of where they enter."""
    size = min(13, layout.row_height - 1)
    labels = []
    for player, row in enumerate(input_rows(graph, n_encoder)):
        if row < 0:
            continue
        off = "" if graph.inputs[player] >= 0 else " off"
        left = LABEL + GAP * (layout.decoder_x if player >= n_encoder else 0)
        labels.append(
            f'<text class="halo{off}" text-anchor="end" font-size="{size}" x="{left - 8:.0f}" '
            f'y="{TOP + layout.row_height * (row + 0.5) + size * 0.33:.1f}">{escape(_cut(tokens[player].text))}</text>'
        )
    return labels


def _stacked(
    graph: FlowGraph, drawn: np.ndarray, x: np.ndarray, y: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Let the drawn arcs of a node leave and enter it one below the other, those that come from above on top."""
    ends = []
    for here, there in ((graph.senders[drawn], graph.receivers[drawn]), (graph.receivers[drawn], graph.senders[drawn])):
        wide = graph.flow[drawn] * scale
        at = np.zeros(len(drawn))
        filled = np.bincount(here, wide, len(y)) / -2
        for arc in np.lexsort((x[there], y[there])):
            at[arc] = y[here[arc]] + filled[here[arc]] + wide[arc] / 2
            filled[here[arc]] += wide[arc]
        ends.append(at)
    return ends[0], ends[1]


def _path(x0: float, y0: float, x1: float, y1: float) -> str:
    """Leave and enter level, to the right, also where an arc leads back to the left."""
    bend = (x1 - x0) / 2 if x1 > x0 else GAP / 2
    return f"M{x0:.0f} {y0:.1f}c{bend:.0f} 0 {x1 - x0 - bend:.0f} {y1 - y0:.1f} {x1 - x0:.0f} {y1 - y0:.1f}"


def _width(pixels: float) -> str:
    """Round a width, so that arcs of equal width are one path."""
    return f"{max(round(4 * pixels) / 4, 0.25):g}" if pixels < 4 else f"{round(2 * pixels) / 2:g}"


def _dashes(style: str, width: str) -> str:
    """Write the dashes of the residual stream, longer ones for wider arcs."""
    return f' stroke-dasharray="{4 + 0.35 * float(width):.3g} {2 + 0.12 * float(width):.3g}"' if "dash" in style else ""


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
