"""What the script of a page draws from: scores and flow graphs as whole numbers of a small unit, in JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Shaped

from jaxflow.explain import Explanation, FlowGraph
from jaxflow.views._named_scores import Shown
from jaxflow.views._tokens import Shown as Token
from jaxflow.views._tokens import visible
from jaxflow.views.html._flow import SHARE
from jaxflow.views.html._layout import Layout, input_rows, layer_name, n_arcs_each, node_columns
from jaxflow.views.html._strip import largest_score

UNIT = 1e5  # of a flow, a capacity, a share
FINE_DIGITS, ROUGH_DIGITS, MANY_SCORES = 6, 3, 2**14  # of a score, and of the largest where there are many
MOST_CUTS = 2**13  # numbers of inputs' own cuts by layer


def page_data(explanation: Explanation, shown: Shown, tokens: list[Token], layout: Layout | None) -> dict[str, Any]:
    """Gather all that changes when another output, token or share is looked at.

    Returns:
        A record for JSON. Scores are in units of `1 / unit`, null where unknown; `far` says by 1 where no path leads. Flows
        and capacities are in units of 1e-5.
    """
    unit = 10.0 ** _digits(shown)
    graphs, word_scores = explanation.flow_graphs, explanation.word_scores
    has_far = not shown.reachable.all()
    record = {
        "unit": unit,
        "largest": largest_score(shown),
        "nEncoder": shown.n_encoder,
        "tokens": [token.text for token in tokens],
        "titles": list(shown.titles),
        "outputs": list(shown.outputs),
        "scores": [
            [None if np.isnan(score) else round(score * unit) for score in row.tolist()] for row in shown.scores
        ],
        "far": ["".join("01"[int(not near)] for near in row) for row in shown.reachable] if has_far else [],
        "errors": None if shown.errors is None else [_whole(2 * row, UNIT) for row in shown.errors],
        "graphs": [_graph(graph, layout, len(graphs), shown.n_encoder) for graph in graphs]
        if layout is not None
        else [],
    }
    if word_scores is not None:
        record["words"] = [[start, stop, visible(word)] for start, stop, word in explanation.words]
        record["wordScores"] = [_whole(row, unit) for row in word_scores]
    if layout is not None:
        record["layerNames"] = [layer_name(graphs[0], layer) for layer in range(len(graphs[0].layer_flow))]
        record["frame"] = {
            "columns": [[column.x, column.name] for column in layout.columns],
            "decoder": layout.decoder_x,
            "rows": layout.n_rows,
            "height": layout.row_height,
            "scale": layout.scale,
            "share": SHARE,
        }
    return record


def to_json(record: dict[str, Any]) -> str:
    """Write a record so that nothing in it ends a script element, and no line ends in it."""
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _digits(shown: Shown) -> int:
    """Choose how many digits of a score are written behind the point: of small ones more."""
    if shown.scores.size <= MANY_SCORES:
        return FINE_DIGITS
    n_zeros = int(-np.log10(min(largest_score(shown), 1.0)))  # behind the point
    return min(ROUGH_DIGITS + n_zeros, FINE_DIGITS)


def _graph(graph: FlowGraph, layout: Layout, n_graphs: int, n_encoder: int) -> dict[str, Any]:
    """Write the arcs that a page holds, and the nodes at their ends."""
    n_arcs = min(n_arcs_each(n_graphs), len(graph.flow))
    senders, receivers = graph.senders[:n_arcs], graph.receivers[:n_arcs]
    used = np.unique(np.concatenate([senders, receivers, graph.inputs[graph.inputs >= 0], [graph.output]]))
    number = np.full(len(graph.stack) + 1, -1)
    number[used] = np.arange(len(used))
    own = [
        [int(arc) for arc in graph.own_cut[start:stop] if arc < n_arcs]
        for start, stop in zip(graph.own_cut_start[:-1], graph.own_cut_start[1:], strict=True)
    ]
    few = graph.layer_cut.size * n_graphs <= MOST_CUTS
    return {
        "x": node_columns(graph, layout)[used].round(2).tolist(),
        "y": graph.position[used].tolist(),
        "through": _whole(graph.through[used], UNIT),
        "players": number[graph.inputs].tolist(),
        "rows": input_rows(graph, n_encoder).tolist(),
        "output": int(number[graph.output]),
        "from": number[senders].tolist(),
        "to": number[receivers].tolist(),
        "kind": graph.kind[:n_arcs].tolist(),
        "cut": np.flatnonzero(graph.in_cut[:n_arcs]).tolist(),
        "capacity": _whole(graph.capacity[:n_arcs], UNIT),
        "flow": _whole(graph.flow[:n_arcs], UNIT),
        "stronger": _whole(graph.stronger[:n_arcs], UNIT),
        "own": own,
        "ownLayers": [_whole(row, 1e3) for row in graph.layer_cut] if few else None,
        "layers": [
            _whole(numbers, UNIT)
            for numbers in np.stack([graph.layer_capacity, graph.layer_flow, graph.cut_share], axis=1)
        ],
        "total": float(graph.flow.sum() / graph.share) if n_arcs else 0.0,
        "nArcs": graph.n_arcs,
        "value": graph.value,
    }


def _whole(values: Shaped[ArrayLike, " *number"], unit: float) -> list[int]:
    return np.rint(np.asarray(values) * unit).astype(int).tolist()
