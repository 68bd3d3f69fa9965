"""The flow graph of a page's first output as SVG, for readers without the script."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from jaxflow.explain import ARC_KINDS
from jaxflow.views._layout import STYLES, dash_lengths
from jaxflow.views.html._frame import AXIS, GAP, LEAST_ARC, LEAST_NODE, NAME_CLASSES, NODE, PAD, SHARE, STEP, Frame
from jaxflow.views.html._templates import render


def flow_svg(frame: Frame, title: str) -> str:
    """Draw the first graph of a frame.

    Arcs of equal width and style are one path, which keeps the page small.

    Args:
        frame: what is drawn.
        title: what the graph is called for those who cannot see it.
    """
    layout = frame.layouts[0]
    graph, drawn = layout.graph, layout.arcs(SHARE)
    x, y = frame.left + GAP * layout.x, frame.down(layout.y)
    leaves, enters = (STEP * np.array(steps) for steps in frame.offsets(layout))
    ghosts: dict[str, list[str]] = defaultdict(list)
    flows: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for arc in drawn:
        style = STYLES[ARC_KINDS[graph.kind[arc]]]
        sender, receiver = graph.senders[arc], graph.receivers[arc]
        bend = GAP * style.bend(layout.x[receiver] - layout.x[sender])
        path = _path(x[sender], y[sender] + leaves[arc], x[receiver], y[receiver] + enters[arc], bend=bend)
        if style.has_capacity:
            ghosts[_width(graph.capacity[arc] * frame.scale)].append(path)
        css = " ".join(filter(None, ["cut" if graph.in_cut[arc] else "", style.css]))
        width = _width(graph.flow[arc] * frame.scale)
        dashes = " ".join(f"{length:.3g}" for length in dash_lengths(float(width))) if style.is_dashed else ""
        flows[css, dashes, width].append(path)
    nodes = np.unique(np.concatenate([graph.senders[drawn], graph.receivers[drawn], [graph.output]]))
    heights = np.maximum(graph.through[nodes] * frame.scale, LEAST_NODE)
    return render(
        "flow.svg",
        title=title,
        width=round(frame.left + GAP * layout.columns[-1].x + frame.right(0)),
        height=round(frame.height),
        axis=AXIS,
        columns=[(round(frame.left + GAP * column.x), column.name) for column in layout.columns],
        ghosts=[(width, "".join(paths)) for width, paths in ghosts.items()],
        flows=[(*key, "".join(paths)) for key, paths in flows.items()],
        node_width=NODE,
        nodes=[
            (f"{x[node] - NODE / 2:.1f}", f"{y[node] - tall / 2:.1f}", f"{tall:.1f}")
            for node, tall in zip(nodes, heights, strict=True)
        ],
        letters=frame.letters,
        names=[
            (
                NAME_CLASSES[label.sends],
                round(frame.left + GAP * label.x - PAD),
                f"{frame.down(label.y) + frame.baseline:.1f}",
                frame.names[label.input],
            )
            for label in layout.labels
        ],
        output=(round(x[graph.output] + PAD), f"{y[graph.output] + frame.baseline:.1f}", frame.outputs[0]),
    )


def _path(x0: float, y0: float, x1: float, y1: float, *, bend: float) -> str:
    """Leave and enter level, to the right, also where an arc leads back to the left."""
    return f"M{x0:.0f} {y0:.1f}c{bend:.0f} 0 {x1 - x0 - bend:.0f} {y1 - y0:.1f} {x1 - x0:.0f} {y1 - y0:.1f}"


def _width(pixels: float) -> str:
    """Round a width, so that arcs of nearly equal width are one path."""
    return f"{max(round(4 * pixels) / 4, LEAST_ARC):g}" if pixels < 4 else f"{round(2 * pixels) / 2:g}"
