"""An explanation as one self-contained page or notebook cell, which makes no web requests and is readable without its script."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import importlib.resources
from typing import Any

from jaxflow._palette import PAGE, css_variables
from jaxflow._printable import visible
from jaxflow.explain import ARC_KINDS, Explanation
from jaxflow.views._layout import layer_name
from jaxflow.views._named_scores import NamedScores, check_grid, own_prediction, read_scores
from jaxflow.views._sentences import (
    BRIEF,
    bottleneck_sentence,
    certificate_sentence,
    error_sentence,
    given_sentence,
    headline,
    joint_positions,
    notes_sentence,
    output_name,
    prediction_sentence,
    proof_sentence,
    saturation_sentence,
)
from jaxflow.views._tokens import input_names, visible_names
from jaxflow.views.html._data import page_data, to_json
from jaxflow.views.html._flow import flow_svg
from jaxflow.views.html._frame import SHARE, Frame, frame_of, share_sentence
from jaxflow.views.html._matrix import score_table, shade_style
from jaxflow.views.html._strip import patch_grid, stack_strips, word_strip
from jaxflow.views.html._templates import render


def to_page(explanation: Explanation, *, grid: tuple[int, int] | None = None) -> str:
    """Render a whole document, which opens from a file and makes no web requests.

    Args:
        explanation: what to show.
        grid: patches down and across, of a vision model, whose last inputs they are, row by row from the top left; what comes
            before them (the class token) is drawn apart. By default what its config says.
    """
    return document(f"jaxflow: {visible(explanation.model)}", to_html(explanation, grid=grid))


def to_html(explanation: Explanation, *, grid: tuple[int, int] | None = None) -> str:
    """Render a fragment for a notebook; several on one page do not disturb one another. Arguments as those of `to_page`."""
    shown = _named(explanation)
    grid = check_grid(shown, grid)
    tokens = input_names(explanation)
    graphs = explanation.flow_graphs
    names = [token.name for token in tokens]
    frame = frame_of(graphs, names, shown.outputs, n_encoder=shown.n_encoder) if graphs else None
    every = visible_names(explanation.output_tokens)
    outputs = [every[position] for position in shown.positions]
    given = None if explanation.contributions is None else _named(explanation.contributions)
    sentences = (proof_sentence, saturation_sentence, bottleneck_sentence, error_sentence)
    return render(
        "explanation.html",
        style=page_style(),
        script=_script(),
        data=to_json(page_data(explanation, shown, tokens, frame, grid, given)),
        head=_head(explanation),
        titles=shown.titles,
        strips=stack_strips(shown, tokens, row=0) if grid is None else [],
        patches=None if grid is None else patch_grid(shown, tokens, row=0, grid=grid, image=explanation.image),
        words=word_strip(explanation, shown, row=0),
        given=[] if given is None else stack_strips(given, tokens, row=0, kind="g"),
        given_note=given_sentence(explanation, 0),
        has_special=any(token.kind == "special" for token in tokens),
        has_negative=shown.has_negative,
        notes=[text for text in (sentence(explanation) for sentence in sentences) if text],
        flow=None if frame is None else _flow(frame, shown),
        table=score_table(shown, tokens, outputs) if len(shown.scores) > 1 else None,
        headline=headline(explanation),
        version=visible(explanation.version),
        certificate=certificate_sentence(explanation),
    )


def document(title: str, body: str) -> str:
    """Write a document around a fragment; its policy lets no other style or script have an effect."""
    digest = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    return render("document.html", title=title, body=body, policy=policy, paper=PAGE["paper"])


@functools.cache
def page_style() -> str:
    """Return the style of all fragments, in the palette's colours."""
    return f".jaxflow.jaxflow {{ {css_variables()} }}\n{_resource('page.css')}{shade_style()}"


def _named(explanation: Explanation) -> NamedScores:
    """Read scores off an explanation, with titles that stand by themselves."""
    shown = read_scores(explanation)
    titles = []
    for row, (position, name) in enumerate(zip(shown.positions, shown.outputs, strict=True)):
        if joint_positions(explanation) is not None:
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


def _head(explanation: Explanation) -> dict[str, Any]:
    model = visible(explanation.model)
    kicker, _, conventions = headline(explanation).removeprefix(f"{model}: ").partition(", ")
    leads = (prediction_sentence(explanation), notes_sentence(explanation))
    return {
        "kicker": kicker,
        "model": model,
        "leads": [lead for lead in leads if lead],
        "conventions": _sentence_case(conventions),
    }


def _flow(frame: Frame, shown: NamedScores) -> dict[str, Any]:
    """Gather what the page says and draws of the first output's flow."""
    layout, n_graphs = frame.layouts[0], len(frame.layouts)
    graph, drawn = layout.graph, layout.arcs(SHARE)
    carried = {"{share}": f"{layout.carried(drawn):.1%}", "{arcs}": str(len(drawn))}
    sentence = share_sentence(layout)
    for name, number in carried.items():
        sentence = sentence.replace(name, number)
    columns = graph.layer_capacity, graph.layer_flow, graph.cut_share
    return {
        "scope": "" if n_graphs > 1 or len(shown.scores) == 1 else f", to {shown.outputs[0]} alone",
        "percent": f"{100 * SHARE:.0f}",
        "drawn": sentence,
        "svg": flow_svg(frame, shown.titles[0]),
        "has_feedback": any(ARC_KINDS.index("feedback") in layout.graph.kind for layout in frame.layouts),
        "layers": [
            {
                "name": layer_name(graph, layer),
                "capacity": f"{capacity:.{BRIEF}f}",
                "flow": f"{flow:.{BRIEF}f}",
                "share": f"{share:.1%}",
            }
            for layer, (capacity, flow, share) in enumerate(zip(*columns, strict=True))
        ],
    }


@functools.cache
def _script() -> str:
    """Return the script, whose names are its own."""
    return f'(() => {{\n"use strict";\n{_resource("flow.js")}{_resource("page.js")}}})();\n'


def _resource(name: str) -> str:
    return importlib.resources.files("jaxflow.views.html").joinpath(name).read_text("utf-8")
