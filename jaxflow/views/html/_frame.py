"""The sizes of a page's flow graph in pixels. The static drawing and the script take them, with the layouts, from here.

Only the distance between columns is left to the script, since it depends on the page's width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float, Real, Shaped

from jaxflow.explain import ARC_KINDS, FlowGraph
from jaxflow.views._layout import DASH, DASH_GAP, STYLES, Layout, lay_out
from jaxflow.views._named_scores import cut

SHARE = 0.8  # of each layer's flow that is drawn at first
MOST_ARCS, FEWEST_ARCS, ALL_ARCS = 800, 60, 3600  # held at most: of one graph, of one of many, of all on a page
LONGEST = 16  # letters of a name beside the graph
NAME_CLASSES = ("halo off", "halo")  # of inputs that send nothing, and of those that send
# In pixels.
NARROWEST, GAP, WIDEST = 44, 104, 260  # columns' distance: at least, without the script, at most
TOP, BOTTOM, AXIS = 34, 6, 14  # above the first row, below the last one; where the columns' names stand
PAD = 8  # between a node and its name
LETTER, ROOM, MOST_LEFT, MOST_RIGHT = 7.4, 24, 140, 150  # of names: a letter, what is added, the widest on either side
ROW_HEIGHTS, LOWEST_ROW = ((14, 34), (40, 24), (96, 18), (200, 14)), 9  # up to so many rows, and of more
FILLED = 0.86  # of a row by the node through which most flows
LARGEST_LETTERS = 13
STEP = 0.1  # of the offsets of stacked arcs
NODE, LEAST_NODE, LEAST_ARC, LEAST_CUT = 2, 1.5, 0.3, 0.6  # width and least height of a node, least widths of arcs


@dataclasses.dataclass(frozen=True)
class Frame:
    """What all graphs of a page have in common, so that nothing moves from output to output.

    Attributes:
        layouts: one for each graph.
        names: the inputs' names, cut.
        outputs: the graphs' outputs' names, cut.
        n_rows: rows of the highest layout.
        row_height: in pixels.
        scale: pixels per unit of flow.
    """

    layouts: tuple[Layout, ...]
    names: tuple[str, ...]
    outputs: tuple[str, ...]
    n_rows: float
    row_height: int
    scale: float

    @property
    def left(self) -> float:
        """Pixels left of the first column."""
        return min(MOST_LEFT, ROOM + LETTER * max(map(len, self.names)))

    def right(self, number: int) -> float:
        """Return the pixels right of the last column of a graph."""
        return min(MOST_RIGHT, ROOM + LETTER * len(self.outputs[number]))

    @property
    def height(self) -> float:
        """Pixels from top to bottom."""
        return TOP + self.row_height * self.n_rows + BOTTOM

    @property
    def letters(self) -> int:
        """Size of the inputs' names, in pixels."""
        return min(LARGEST_LETTERS, self.row_height - 1)

    @property
    def baseline(self) -> float:
        """Pixels from the middle of a row down to the line that the letters of a name stand on."""
        return round(self.letters / 3, 1)

    def down(self, rows: Real[ArrayLike, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return how many pixels below the top the middle of rows is."""
        return np.asarray(TOP + self.row_height * (np.asarray(rows) + 0.5))

    def offsets(self, layout: Layout) -> tuple[list[int], list[int]]:
        """Return how far below the middles of its sender and of its receiver each arc ends, in steps of `STEP` pixels."""
        return whole(layout.leaves, self.scale / STEP), whole(layout.enters, self.scale / STEP)

    def record(self, unit: float) -> dict[str, Any]:
        """Gather the sizes for the script, for flows in units of `1 / unit`."""
        return {
            "columns": [[round(column.x, 2), column.name] for column in self.layouts[0].columns],
            "styles": [STYLES[kind]._asdict() for kind in ARC_KINDS],
            "share": SHARE,
            "scale": self.scale / unit,
            "left": self.left,
            "height": self.height,
            "rows": [float(self.down(0)), self.row_height],
            "baseline": self.baseline,
            "letters": self.letters,
            "gaps": [NARROWEST, GAP, WIDEST],
            "axis": AXIS,
            "step": STEP,
            "dash": [DASH, DASH_GAP],
            "pad": PAD,
            "node": NODE,
            "least": {"node": LEAST_NODE, "arc": LEAST_ARC, "cut": LEAST_CUT},
            "names": self.names,
            "nameClasses": NAME_CLASSES,
        }

    def layout_record(self, number: int, unit: float) -> dict[str, Any]:
        """Gather one graph's layout for the script: nodes that arcs of the page join, renumbered, and those arcs."""
        layout = self.layouts[number]
        graph, n = layout.graph, layout.n_arcs
        senders, receivers = graph.senders[:n], graph.receivers[:n]
        used = np.unique(np.concatenate([senders, receivers, graph.inputs[graph.inputs >= 0], [graph.output]]))
        place = np.full(len(graph.stack) + 1, -1)
        place[used] = np.arange(len(used))
        leaves, enters = self.offsets(layout)
        return {
            "x": np.round(layout.x[used], 2).tolist(),
            "y": graph.position[used].tolist(),
            "column": layout.column[used].tolist(),
            "input": layout.input[used].tolist(),
            "through": whole(graph.through[used], unit),
            "inputs": place[graph.inputs].tolist(),
            "output": int(place[graph.output]),
            "outputName": self.outputs[number],
            "right": self.right(number),
            "names": [[label.input, round(label.x, 2), int(label.y), int(label.sends)] for label in layout.labels],
            "from": place[senders].tolist(),
            "to": place[receivers].tolist(),
            "leaves": leaves,
            "enters": enters,
            "kind": graph.kind[:n].tolist(),
            "cut": np.flatnonzero(graph.in_cut[:n]).tolist(),
            "capacity": whole(graph.capacity[:n], unit),
            "flow": whole(graph.flow[:n], unit),
            "stronger": whole(graph.stronger[:n], unit),
            "drawn": share_sentence(layout),
        }


def frame_of(graphs: tuple[FlowGraph, ...], names: Sequence[str], outputs: Sequence[str], *, n_encoder: int) -> Frame:
    """Lay out all graphs of an explanation in one frame.

    Args:
        graphs: at least one.
        names: of the inputs, those of the encoder first.
        outputs: of the explained outputs, of which the first ones have graphs.
        n_encoder: how many of the inputs are the encoder's.
    """
    most = int(np.clip(ALL_ARCS // len(graphs), FEWEST_ARCS, MOST_ARCS))
    layouts = tuple(lay_out(graph, n_encoder=n_encoder, max_arcs=most) for graph in graphs)
    n_rows = max(layout.n_rows for layout in layouts)
    row_height = next((height for rows, height in ROW_HEIGHTS if n_rows <= rows), LOWEST_ROW)
    widest = max(float(np.delete(graph.through, graph.output).max(initial=0)) for graph in graphs)
    return Frame(
        layouts=layouts,
        names=tuple(cut(name, longest=LONGEST) for name in names),
        outputs=tuple(cut(name, longest=LONGEST) for name in outputs[: len(graphs)]),
        n_rows=n_rows,
        row_height=row_height,
        scale=FILLED * row_height / max(widest, 1e-9),
    )


def share_sentence(layout: Layout) -> str:
    """Say how much is drawn, with `{share}` and `{arcs}` in the place of the numbers that depend on the slider."""
    n_all = layout.graph.n_arcs
    folded = f"; this page holds the {layout.n_arcs} strongest" if layout.n_arcs < n_all else ""
    return f"Drawn: {{share}} of the flow, {{arcs}} of {n_all} arcs{folded}."


def whole(values: Shaped[ArrayLike, " number"], unit: float) -> list[int]:
    """Write numbers as multiples of `1 / unit`."""
    return np.rint(np.asarray(values) * unit).astype(int).tolist()
