"""What the script of a page draws from: scores and flows as whole numbers of a small unit, in JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxflow._printable import visible
from jaxflow.explain import Explanation, FlowGraph, TokenName
from jaxflow.views._layout import layer_name
from jaxflow.views._named_scores import NamedScores
from jaxflow.views._sentences import BRIEF, FULL, NO_PATH, UNKNOWN, given_sentence
from jaxflow.views.html._frame import Frame, whole
from jaxflow.views.html._strip import DASH, fullest_patches

UNIT = 1e5  # of a flow, a capacity, a share, a standard error
ROUGH_DIGITS, MANY_SCORES = 3, 2**14  # of the largest score where there are many
MOST_CUTS = 2**13  # numbers of inputs' own cuts by layer


def page_data(
    explanation: Explanation,
    shown: NamedScores,
    tokens: list[TokenName],
    frame: Frame | None,
    grid: tuple[int, int] | None,
    given: NamedScores | None,
) -> dict[str, Any]:
    """Gather all that changes when another output, token or share is looked at.

    Returns:
        A record for JSON. Scores are in units of `1 / unit`, null where unknown; `far` says by 1 where no path leads. Flows,
        capacities and errors are in units of `1 / fineUnit`. Words and digits are here too, so that the script has none
        of its own.
    """
    unit = 10.0 ** _digits(shown)
    record = {
        "unit": unit,
        "fineUnit": UNIT,
        "digits": {"brief": BRIEF, "full": FULL, "percent": 1},
        "terms": {"noPath": NO_PATH, "unknown": UNKNOWN, "dash": DASH},
        "largest": shown.largest or 1,
        "nEncoder": shown.n_encoder,
        "tokens": [token.name for token in tokens],
        "titles": list(shown.titles),
        "outputs": list(shown.outputs),
        "scores": _known(shown.scores, unit),
        "far": _far(shown),
        "errors": None if shown.errors is None else [whole(2 * row, UNIT) for row in shown.errors],
        "fullest": None if grid is None else fullest_patches(shown, grid),
        "graphs": [],
    }
    if given is not None:
        record["given"] = {
            "scores": _known(given.scores, unit),
            "largest": given.largest or 1,
            "far": _far(given),
            "notes": [given_sentence(explanation, row) for row in range(len(given.scores))],
        }
    if explanation.word_scores is not None:
        record["words"] = [[start, stop, visible(word)] for start, stop, word in explanation.words]
        record["wordScores"] = _known(explanation.word_scores, unit)
    if frame is not None:
        graphs = explanation.flow_graphs
        record["graphs"] = [
            frame.layout_record(number, UNIT) | _cuts(graph, frame.layouts[number].n_arcs, len(graphs))
            for number, graph in enumerate(graphs)
        ]
        record["layerNames"] = [layer_name(graphs[0], layer) for layer in range(len(graphs[0].layer_flow))]
        record["frame"] = frame.record(UNIT)
    return record


def to_json(record: dict[str, Any]) -> str:
    """Write a record so that nothing in it ends a script element, and no line ends in it."""
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _known(scores: Float[np.ndarray, "row column"], unit: float) -> list[list[int | None]]:
    """Write scores as whole numbers; None where unknown."""
    return [[None if np.isnan(score) else round(score * unit) for score in row] for row in scores.tolist()]


def _far(shown: NamedScores) -> list[str]:
    """Say by 1 where no path leads; nothing where one always does."""
    if shown.reachable.all():
        return []
    return ["".join("01"[int(not near)] for near in row) for row in shown.reachable]


def _digits(shown: NamedScores) -> int:
    """Choose how many digits of a score are written behind the point: of small ones more."""
    if shown.scores.size <= MANY_SCORES:
        return FULL
    n_zeros = int(-np.log10(min(shown.largest or 1.0, 1.0)))  # behind the point
    return min(ROUGH_DIGITS + n_zeros, FULL)


def _cuts(graph: FlowGraph, n_arcs: int, n_graphs: int) -> dict[str, Any]:
    """Gather what bounds a flow: each input's own minimum cut, and the numbers of each layer."""
    own = [
        [int(arc) for arc in graph.own_cut[start:stop] if arc < n_arcs]
        for start, stop in zip(graph.own_cut_start[:-1], graph.own_cut_start[1:], strict=True)
    ]
    layers = np.stack([graph.layer_capacity, graph.layer_flow, graph.cut_share], axis=1)
    few = graph.layer_cut.size * n_graphs <= MOST_CUTS
    return {
        "own": own,
        "ownLayers": [whole(row, UNIT) for row in graph.layer_cut] if few else None,
        "layers": [whole(row, UNIT) for row in layers],
        "total": float(graph.flow.sum() / graph.share),
        "value": graph.value,
    }
