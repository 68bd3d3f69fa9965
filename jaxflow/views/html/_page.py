"""An explanation as one self-contained page or notebook cell: no request, every word escaped, readable without its script."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import importlib.resources
from html import escape

import numpy as np

from jaxflow.explain import ARC_KINDS, Explanation, FlowGraph
from jaxflow.views._named_scores import Shown, check_grid, own_prediction, read
from jaxflow.views._sentences import (
    bottleneck_sentence,
    error_sentence,
    headline,
    notes_sentence,
    output_name,
    prediction_sentence,
    proof_sentence,
    saturation_sentence,
)
from jaxflow.views._tokens import Shown as Token
from jaxflow.views._tokens import shown_tokens
from jaxflow.views.html._data import page_data, to_json
from jaxflow.views.html._flow import SHARE, flow_svg
from jaxflow.views.html._layout import Layout, lay_out, layer_name, n_arcs_each
from jaxflow.views.html._matrix import matrix, shade_style
from jaxflow.views.html._strip import strip, word_strip


def to_page(explanation: Explanation, *, grid: tuple[int, int] | None = None) -> str:
    """Render a whole document, which opens from a file without a network.

    Args:
        explanation: what to show.
        grid: patches down and across, of a vision model, whose last inputs they are, row by row from the top left; what comes
            before them (the class token) is drawn apart. By default what its config says.
    """
    return document(f"jaxflow: {explanation.model}", to_html(explanation, grid=grid))


def to_html(explanation: Explanation, *, grid: tuple[int, int] | None = None) -> str:
    """Render a fragment for a notebook; several on one page do not disturb one another. Arguments as `to_page`."""
    shown = _named(explanation)
    grid = check_grid(shown, grid)
    n_encoder = shown.n_encoder
    tokens = [*shown_tokens(explanation.encoder_tokens), *shown_tokens(explanation.decoder_tokens)]
    graphs = explanation.flow_graphs
    layout = lay_out(graphs, n_encoder, len(tokens)) if graphs else None
    n_rows = len(shown.scores)
    words = word_strip(explanation, shown, row=0)
    parts = [
        _head(explanation),
        _stepper(n_rows),
        f'<h2 class="which"><bdi>{escape(shown.titles[0])}</bdi></h2>',
        _strip_controls(tokens, bool(words)),
        f'<div class="tokens">{strip(shown, tokens, row=0, grid=grid, image=explanation.image)}</div>{words}',
        '<p class="readout strip-readout" aria-live="polite"></p>',
        _notes(explanation),
    ]
    if layout is not None:
        parts += [_flow(graphs, layout, shown, tokens), _layers(graphs[0])]
    if n_rows > 1:
        every = shown_tokens(explanation.output_tokens)
        names = [every[int(position)] for position in explanation.attribution.outputs]
        parts += [
            "<h2>Every output and every input</h2>",
            f'<p class="note">Rows are outputs, columns inputs; the fullest colour is {largest(shown):.4g}.',
            f"{' Hatched: no path leads there.' if not shown.reachable.all() else ''}</p>",
            matrix(shown, tokens, names),
            '<p class="readout matrix-readout" aria-live="polite"></p>',
        ]
    parts.append(
        f"<footer><p>{escape(headline(explanation))}.</p><p>jaxflow {escape(explanation.version)}, "
        f"{escape(certificate_sentence(explanation))}.</p></footer>"
    )
    return fragment("".join(parts), to_json(page_data(explanation, shown, tokens, layout)))


def document(title: str, body: str) -> str:
    """Write a document around a fragment. Nothing but its own style and script has an effect in it."""
    digest = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>:root {{ color-scheme: light dark }} "
        "body { margin: 0; background: light-dark(#fffefb, #14171a) }</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def fragment(content: str, data: str | None = None) -> str:
    """Wrap content in what scopes its style, and add the data and the script that reads it."""
    script = "" if data is None else f'<script type="application/json">{data}</script><script>{_script()}</script>'
    return f'<section class="jaxflow"><style>{_resource("page.css")}{shade_style()}</style>{content}{script}</section>'


def certificate_sentence(explanation: Explanation) -> str:
    """Say what proves the scores."""
    certificate = explanation.attribution.certificate
    if certificate is None:
        return "scores without certificate" if explanation.method == "shapley" else "no maximum flow involved"
    settled = ", ".join(f"{count} by {stage}" for stage, count in certificate.stages.items() if count)
    exact = (
        "every score exact: a flow and an upper bound of equal value" if certificate.exact.all() else "not all exact"
    )
    solver = explanation.conventions.get("solver", "certified")
    saturation = explanation.attribution.saturation
    return (
        f"solver {solver}: {exact} ({settled}), capacities rounded to {float(np.max(certificate.quantum)):.2g}; "
        f"{saturation:.0%} saturated"
    )


def largest(shown: Shown) -> float:
    """Return the largest score; 0 where none is known."""
    return float(np.fmax.reduce(shown.scores, axis=None, initial=0.0))


def _named(explanation: Explanation) -> Shown:
    """Read scores off an explanation, with titles that stand by themselves."""
    shown = read(explanation)
    titles = []
    for row, (position, name) in enumerate(zip(explanation.attribution.outputs.tolist(), shown.outputs, strict=True)):
        if explanation.conventions["together"] is not None:
            titles.append(_sentence_case(output_name(explanation, row)))
            continue
        own = own_prediction(explanation, row)
        # An output without a word is called by its position, which is said once.
        is_number = explanation.output_tokens[position] == str(position)
        name = name.removeprefix(str(position)) if is_number else f": {name}"
        titles.append(f"Output {position}{name}" + ("" if own is None else f", {own.probability:.1%}"))
    return dataclasses.replace(shown, titles=tuple(titles))


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]


def _head(explanation: Explanation) -> str:
    leads = (prediction_sentence(explanation), notes_sentence(explanation))
    kicker, _, conventions = headline(explanation).removeprefix(f"{explanation.model}: ").partition(", ")
    return (
        f'<header><p class="kicker">{escape(kicker)}</p><h1><bdi>{escape(explanation.model)}</bdi></h1>'
        + "".join(f'<p class="lead"><bdi>{escape(lead)}</bdi></p>' for lead in leads if lead)
        + f'<p class="note">{escape(_sentence_case(conventions))}.</p></header>'
    )


def _notes(explanation: Explanation) -> str:
    sentences = (
        proof_sentence(explanation),
        saturation_sentence(explanation),
        bottleneck_sentence(explanation),
        error_sentence(explanation),
    )
    return "".join(f'<p class="note"><bdi>{escape(sentence)}</bdi></p>' for sentence in sentences if sentence)


def _stepper(n_rows: int) -> str:
    if n_rows < 2:
        return ""
    return (
        '<div class="controls stepper"><button type="button" class="back" aria-label="Previous output">←</button>'
        f'<label>Output <input type="range" class="row" min="0" max="{n_rows - 1}" value="0"></label>'
        '<button type="button" class="on" aria-label="Next output">→</button><output class="row-name"></output></div>'
    )


def _strip_controls(tokens: list[Token], has_words: bool) -> str:
    controls = '<label><input type="checkbox" class="whole"> whole words</label>' if has_words else ""
    if any(token.is_special for token in tokens):
        controls += '<label><input type="checkbox" class="specials" checked> special tokens</label>'
    return f'<div class="controls">{controls}</div>' if controls else ""


def _flow(graphs: tuple[FlowGraph, ...], layout: Layout, shown: Shown, tokens: list[Token]) -> str:
    graph, n_graphs = graphs[0], len(graphs)
    held = min(n_arcs_each(n_graphs), len(graph.flow))
    drawn = graph.stronger[:held] < SHARE
    carried = graph.flow[:held][drawn].sum() / max(graph.flow.sum() / graph.share, 1e-300)
    folded = f"; this page holds the {held} strongest" if held < graph.n_arcs and carried < SHARE else ""
    svg = flow_svg(graph, layout, tokens, n_encoder=shown.n_encoder, title=shown.outputs[0], n_graphs=n_graphs)
    is_fed_back = any(ARC_KINDS.index("feedback") in graph.kind for graph in graphs)
    back = '<li><i class="key back"></i>what was written, read again</li>' if is_fed_back else ""
    scope = "" if n_graphs > 1 or len(shown.scores) == 1 else f", to {shown.outputs[0]} alone"
    return (
        f'<h2>How it flows</h2><p class="note">The one barrier-regularised flow of all inputs together{escape(scope)}. '
        "Inputs are left, layers go to the right; each arc is as wide as its flow.</p>"
        '<div class="controls"><label>Flow drawn <input type="range" class="share" min="5" max="100" '
        f'value="{100 * SHARE:.0f}"></label></div>'
        f'<p class="readout share-readout">Drawn: {carried:.1%} of the flow, {drawn.sum()} of {graph.n_arcs} arcs{folded}.</p>'
        f'<div class="scroll flow-frame" tabindex="0" role="group" aria-label="Layered flow graph">{svg}</div>'
        '<ul class="legend"><li><i class="key"></i>flow, by its width</li><li><i class="key capacity"></i>capacity</li>'
        f'<li><i class="key residual"></i>residual stream</li>{back}<li><i class="key cutting"></i>minimum cut</li></ul>'
        '<p class="readout flow-readout" aria-live="polite"></p>'
    )


def _layers(graph: FlowGraph) -> str:
    shares = graph.cut_share
    body = "".join(
        f'<tr><th scope="row">{layer_name(graph, layer)}</th><td>{graph.layer_capacity[layer]:.3f}</td>'
        f"<td>{graph.layer_flow[layer]:.3f}</td><td>{shares[layer]:.1%}</td>"
        f'<td class="bar"><i style="width:{100 * shares[layer]:.1f}%"></i></td></tr>'
        for layer in range(len(shares))
    )
    return (
        '<h2>Where it is bounded</h2><p class="note">What enters each layer, and its share in the minimum cuts of '
        'the inputs, each alone.</p><div class="scroll" tabindex="0" role="region" aria-label="Layers"><table class="layers">'
        '<thead><tr><th scope="col">Layer</th><th scope="col">Capacity</th><th scope="col">Flow</th>'
        f'<th scope="col">Cut share</th><td></td></tr></thead><tbody>{body}</tbody></table></div>'
    )


def _script() -> str:
    """Return the script, whose names are its own."""
    return f'(() => {{\n"use strict";\n{_resource("flow.js")}{_resource("page.js")}}})();\n'


def _resource(name: str) -> str:
    return importlib.resources.files("jaxflow.views.html").joinpath(name).read_text("utf-8")
