"""Whether what a file says is an explanation: types, shapes and lengths, and then values, ranges and the order of bounds."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import jaxtyped

from jaxflow.attribute import Attribution, Certificate
from jaxflow.explain._flow_graph import ARC_KINDS, FlowGraph
from jaxflow.explain._prediction import Prediction
from jaxflow.solve import STAGES

LARGEST = 1e30  # of scores, capacities and flows, which sums and pictures can still hold
SLACK = 1e-6  # of bounds that rounding may have put in the wrong order, as a share of the larger one
TEXTS = ("model", "method", "version")
NAMES = ("encoder_tokens", "decoder_tokens", "output_tokens", "notes", "mixing")
KINDS = ("word", "part", "special")
# What views read of the method's options, and what it may be there.
NUMBER = (int, float, np.ndarray, type(None))
CONVENTIONS: dict[str, tuple[type, ...]] = {
    "heads": (str, int, tuple, np.ndarray),
    "residual": (int, float),
    "normalise": (bool,),
    "weighting": (str,),
    "target": (str, int, type(None)),
    "solver": (str, type(None)),
    "feedback": (str, type(None)),
    "joint": (tuple, type(None)),
    "n_prompt": NUMBER,
}


def check_shapes(explanation: Any) -> None:
    """Check the types of all that a file holds, and that its arrays fit each other; no value of an array is looked at.

    Args:
        explanation: an `Explanation`, made of what a file says.

    Raises:
        ValueError: what does not fit.
    """
    for name in TEXTS:
        _expect(isinstance(getattr(explanation, name), str), name, "a text")
    for name in NAMES:
        _expect(_are(getattr(explanation, name), str), name, "texts")
    n_encoder, n_decoder = len(explanation.encoder_tokens), len(explanation.decoder_tokens)
    n_inputs, n_outputs = n_encoder + n_decoder, _length(explanation.attribution.positions, "positions")
    _expect(n_inputs > 0 and n_outputs > 0, "the explanation", "inputs and outputs")
    kinds = explanation.token_kinds
    _expect(
        _are(kinds, str) and len(kinds) == n_inputs and set(kinds) <= set(KINDS),
        "token_kinds",
        f"{KINDS} of each input",
    )
    _check_attribution(explanation.attribution, n_outputs, n_encoder, n_decoder)
    _check_conventions(explanation.conventions)
    _check_predictions(explanation.predictions)
    picture = explanation.picture
    _expect(len(picture.flow_graphs) <= n_outputs, "flow_graphs", "one of each output, or of the first ones")
    _check_fields(list(picture.flow_graphs), input=n_inputs)
    if picture.bottleneck is not None:
        _expect(_is_array(picture.bottleneck, "f", 1), "bottleneck", "[layer]")
    if picture.words is not None:
        words, scores = picture.words
        _expect(_are(words, tuple) and all(map(_is_word, words)), "words", "(start, stop, word) each")
        _expect(_is_array(scores, "f", 2) and scores.shape == (n_outputs, len(words)), "word_scores", "[output, word]")
        bounds = [end for start, stop, _ in words for end in (start, stop)]
        starts = [start for start, _, _ in words]
        _expect(
            starts == sorted(set(starts)) and all(0 <= s < e <= n_inputs for s, e, _ in words),
            "words",
            "spans of inputs in order",
        )
        _expect(bounds == sorted(bounds), "words", "spans that do not overlap")
    _check_image(explanation.patches, explanation.image, n_inputs)
    given = explanation.contributions
    if given is not None:
        check_shapes(given)
        same = given.tokens == explanation.tokens and given.attribution.positions.shape == (n_outputs,)
        _expect(same, "contributions", "scores of the same inputs and outputs")
    else:
        refused = explanation.contributions_refused
        _expect(refused is None or isinstance(refused, str), "contributions", "an explanation, a text, or none")


def check_values(explanation: Any) -> None:
    """Check the values of the arrays, once they are read.

    Raises:
        ValueError: a value out of its range; bounds in the wrong order.
    """
    attribution = explanation.attribution
    positions, outputs = attribution.positions, len(explanation.output_tokens)
    joint = explanation.conventions.get("joint")
    n_positions = outputs if joint is None else 1
    _expect(((positions >= 0) & (positions < n_positions)).all(), "positions", f"numbers from 0 to {n_positions - 1}")
    for name in ("encoder", "decoder"):
        scores = getattr(attribution, name)
        _expect(
            scores is None or not (np.abs(scores) > LARGEST).any(), name, "finite scores, or NaN where one is unknown"
        )
    for name in ("standard_error", "completeness_gap"):
        value = getattr(attribution, name)
        _expect(
            value is None
            or (not (np.abs(value) > LARGEST).any() and not (name == "standard_error" and (value < 0).any())),
            name,
            "finite numbers",
        )
    if attribution.certificate is not None:
        _check_bounds(attribution.certificate)
    if explanation.predictions and explanation.predictions[0].position is not None and joint is None:
        _expect(int(positions.max()) < len(explanation.predictions), "predictions", "one of each position")
    picture = explanation.picture
    for graph in picture.flow_graphs:
        _check_graph(graph)
    sizes = {(len(graph.layer_flow), int(graph.n_encoder)) for graph in picture.flow_graphs}
    _expect(len(sizes) <= 1, "flow_graphs", "graphs of the same layers")
    if picture.bottleneck is not None:
        _expect(_in_range(picture.bottleneck, 0, 1), "bottleneck", "shares from 0 to 1")
    if picture.words is not None:
        _expect(not (np.abs(picture.words[1]) > LARGEST).any(), "word_scores", "finite scores, or NaN")
    if explanation.contributions is not None:
        check_values(explanation.contributions)


def _check_attribution(attribution: Attribution, n_outputs: int, n_encoder: int, n_decoder: int) -> None:
    shapes = {"encoder": n_encoder, "decoder": n_decoder}
    for name, n_inputs in shapes.items():
        scores = getattr(attribution, name)
        if not n_inputs:
            _expect(scores is None, name, "no scores, since it has no tokens")
            continue
        _expect(_is_array(scores, "f", 2) and scores.shape == (n_outputs, n_inputs), name, f"[{n_outputs}, {n_inputs}]")
    whole = (n_outputs, n_encoder + n_decoder)
    _expect(_is_array(attribution.positions, "iu", 1), "positions", "[output], whole numbers")
    error, gap = attribution.standard_error, attribution.completeness_gap
    _expect(error is None or (_is_array(error, "f", 2) and error.shape == whole), "standard_error", f"{list(whole)}")
    _expect(
        gap is None or (_is_array(gap, "f") and gap.shape in ((), (n_outputs,))), "completeness_gap", "[] or [output]"
    )
    certificate = attribution.certificate
    if certificate is None:
        return
    for name in ("lower", "upper", "trivial", "stage"):
        bound = getattr(certificate, name)
        kind = "iu" if name == "stage" else "f"
        _expect(_is_array(bound, kind, 2) and bound.shape == whole, f"certificate.{name}", f"{list(whole)}")
    _expect(_is_array(certificate.quantum, "f", 0), "certificate.quantum", "a number")


def _check_bounds(certificate: Certificate) -> None:
    lower, upper, trivial = certificate.lower, certificate.upper, certificate.trivial
    for name, bound in (("lower", lower), ("upper", upper), ("trivial", trivial)):
        _expect(_in_range(bound, 0, LARGEST), f"certificate.{name}", "finite numbers of 0 or more")
    slack = SLACK * np.maximum(upper, 1)
    _expect((lower <= upper + slack).all(), "certificate", "lower bounds that are no larger than upper ones")
    _expect((lower <= trivial + slack).all(), "certificate", "values that are no larger than their trivial bound")
    _expect(
        _in_range(certificate.stage, 0, len(STAGES) - 1), "certificate.stage", f"numbers from 0 to {len(STAGES) - 1}"
    )
    _expect(_in_range(certificate.quantum, 0, LARGEST), "certificate.quantum", "a finite number of 0 or more")


def _check_conventions(conventions: Any) -> None:
    _expect(isinstance(conventions, dict), "conventions", "options by name")
    for name, value in conventions.items():
        expected = CONVENTIONS.get(name)
        fits = expected is None or (isinstance(value, expected) and (bool in expected or not isinstance(value, bool)))
        _expect(fits and _is_plain(value), f"conventions[{name!r}]", "an option of a method")
    _expect(_are(conventions.get("joint") or (), int), "conventions['joint']", "positions")


def _check_predictions(predictions: Sequence[Prediction]) -> None:
    for number, each in enumerate(predictions):
        is_number = isinstance(each.probability, int | float) and not isinstance(each.probability, bool)
        _expect(isinstance(each.label, str), "predictions", "labels that are texts")
        _expect(is_number and 0 <= each.probability <= 1 + SLACK, "predictions", "probabilities from 0 to 1")
        whole = each.position is None and len(predictions) == 1
        own = isinstance(each.position, int) and each.position == number
        _expect(whole or own, "predictions", "one of the sequence, or one of each position, in order")


def _check_graph(graph: FlowGraph) -> None:
    n_nodes, n_arcs, n_entries = len(graph.stack), len(graph.senders), len(graph.own_cut)
    n_layers = len(graph.layer_flow)
    for name, most in (
        ("stack", 2), ("senders", n_nodes - 1), ("receivers", n_nodes - 1), ("output", n_nodes - 1),
        ("kind", len(ARC_KINDS) - 1), ("own_cut", n_arcs - 1), ("n_encoder", n_layers), ("level", n_layers),
        ("own_cut_start", n_entries), ("stronger", 1 + SLACK), ("share", 1 + SLACK),
    ):  # fmt: skip
        _expect(_in_range(getattr(graph, name), 0, most), f"flow_graphs, {name}", f"numbers from 0 to {most}")
    for name in (
        "position",
        "through",
        "capacity",
        "flow",
        "layer_capacity",
        "layer_flow",
        "layer_cut",
        "value",
        "maximum",
        "n_arcs",
    ):
        _expect(_in_range(getattr(graph, name), -SLACK, LARGEST), f"flow_graphs, {name}", "finite numbers of 0 or more")
    for name in ("gap", "mu"):
        _expect(_in_range(getattr(graph, name), -LARGEST, LARGEST), f"flow_graphs, {name}", "a finite number")
    _expect(_in_range(graph.inputs, -1, n_nodes - 1), "flow_graphs, inputs", "nodes, or -1")
    _expect(float(graph.share) > 0, "flow_graphs, share", "a number above 0")
    starts = graph.own_cut_start
    _expect(
        (np.diff(starts) >= 0).all() and starts[0] == 0 and starts[-1] == n_entries,
        "flow_graphs, own_cut_start",
        "places in order",
    )


def _check_image(patches: Any, image: Any, n_inputs: int) -> None:
    if patches is not None:
        _expect(_are(patches, int) and len(patches) == 2 and min(patches) > 0, "patches", "(down, across)")
        _expect(patches[0] * patches[1] <= n_inputs, "patches", "no more patches than inputs")
    if image is not None:
        _expect(
            isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 2 and image.size > 0,
            "image",
            "[height, width], uint8",
        )


def _check_fields(graphs: Sequence[Any], **axes: int) -> None:
    """Check every field of flow graphs against its annotation: dtypes, and axes of one name of one length."""
    hints = typing.get_type_hints(FlowGraph)
    for graph in graphs:
        with jaxtyped("context"):
            for name, hint in hints.items():
                value = getattr(graph, name)
                is_number = hint in (int, float)
                fits = (
                    _is_scalar(value, hint) if is_number else isinstance(value, np.ndarray) and isinstance(value, hint)
                )
                _expect(fits, f"flow_graphs, {name}", "a number" if is_number else hint.__name__)
        _expect(graph.inputs.shape == (axes["input"],), "flow_graphs, inputs", "one of each input")
        _expect(graph.layer_cut.shape[0] == axes["input"] and len(graph.layer_flow) > 0, "flow_graphs", "layers")
        _expect(len(graph.stack) > 0, "flow_graphs, stack", "nodes")


def _is_scalar(value: Any, kind: type) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in ("iu" if kind is int else "iuf")
    return isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)


def _is_array(value: Any, kinds: str, n_axes: int | None = None) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in kinds and n_axes in (None, value.ndim)


def _is_word(word: tuple) -> bool:
    return len(word) == 3 and _are(word[:2], int) and isinstance(word[2], str)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | np.ndarray)


def _are(values: Any, kind: type) -> bool:
    return isinstance(values, tuple) and all(isinstance(each, kind) and not isinstance(each, bool) for each in values)


def _length(array: Any, name: str) -> int:
    _expect(isinstance(array, np.ndarray) and array.ndim == 1, name, "an array of one axis")
    return len(array)


def _in_range(values: Any, least: float, most: float) -> bool:
    try:
        values = np.asarray(values, np.float64)
    except OverflowError:  # a whole number that no float holds
        return False
    return bool((np.isfinite(values) & (values >= least) & (values <= most)).all())


def _expect(holds: Any, name: str, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is not what was expected: {expected}")
