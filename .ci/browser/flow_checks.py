"""What must hold of the flow graph on an open page, and of the table of layers below it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from playwright.sync_api import Page

if TYPE_CHECKING:
    from examples import Example

    from jaxflow import Explanation


def layers_of(page: Page, row: int, explanation: Explanation) -> None:
    """Hold the table of layers against the graph of an output."""
    graph = explanation.flow_graphs[row]
    cells = page.locator(".layers tbody td").all_text_contents()
    numbers = np.array([float(text.rstrip("%")) for text in cells if text]).reshape(-1, 3)
    expected = np.stack([graph.layer_capacity, graph.layer_flow, 100 * graph.cut_share], axis=1)
    np.testing.assert_allclose(numbers, expected, atol=0.051)
    np.testing.assert_allclose(numbers[:, :2], expected[:, :2], atol=6e-4)


def graph_shows_flow(page: Page, example: Example) -> None:
    """The width of every arc, over that of another, is its flow over the other's; cuts are coloured, and ghosts are wider."""
    graph = example.explanation.flow_graphs[0]
    arcs = page.locator("svg.flow .flows path").evaluate_all(
        "all => all.map(a => [+a.dataset.arc, +a.getAttribute('stroke-width'), a.classList.contains('cut'), "
        "a.hasAttribute('stroke-dasharray'), a.classList.contains('back')])"
    )
    index = np.array([arc[0] for arc in arcs])
    widths = np.array([arc[1] for arc in arcs])
    flow = graph.flow[index]
    strongest = int(flow.argmax())
    seen = widths > 0.31  # thinner ones would not be seen, and are drawn so wide
    ratio = flow / flow[strongest]
    np.testing.assert_allclose((widths / widths[strongest])[seen], ratio[seen], rtol=2e-3, atol=1e-3)
    assert [arc[2] for arc in arcs] == graph.in_cut[index].tolist()
    assert [arc[3] for arc in arcs] == (graph.kind[index] == 1).tolist()
    assert [arc[4] for arc in arcs] == (is_back := graph.kind[index] == 3).tolist()
    expected = np.flatnonzero(graph.stronger < 0.8)
    assert set(index) <= set(expected)
    ghosts = page.locator("svg.flow .ghosts path").evaluate_all("all => all.map(a => +a.getAttribute('stroke-width'))")
    assert (np.array(ghosts) >= widths[~is_back] - 1e-6).all()
    text = page.locator(".share-readout").text_content()
    share = float(re.search(r"([\d.]+)%", text)[1])
    whole = graph.flow.sum() / graph.share
    assert abs(share - 100 * flow.sum() / whole) < 0.06, text
    assert f"{len(arcs)} of {graph.n_arcs} arcs" in text
    page.locator("svg.flow").scroll_into_view_if_needed()
    frame = page.locator(".flow-frame")
    frame.focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator(".flow-readout").text_content(), "an arrow looks at the output first"
    page.keyboard.press("ArrowLeft")
    assert "passes here" in page.locator(".flow-readout").text_content()
    assert page.locator("svg.flow .over path").count() > 0
    page.keyboard.press("Escape")
    assert page.locator("svg.flow .over path").count() == 0
    page.evaluate("document.activeElement.blur()")


def share_of_the_flow(page: Page, example: Example) -> None:
    graph = example.explanation.flow_graphs[0]
    slider = page.locator("input.share")
    for share in (30, 60, 100):
        slider.fill(str(share))
        index = page.locator("svg.flow .flows path").evaluate_all("all => all.map(a => +a.dataset.arc)")
        n_held = page.evaluate(
            "JSON.parse(document.querySelector('script[type=\"application/json\"]').textContent).graphs[0].flow.length"
        )
        expected = np.flatnonzero(
            np.rint(1e5 * graph.stronger[:n_held]) < 1e5 * share / 100 if share < 100 else np.ones(n_held)
        )
        assert sorted(index) == expected.tolist(), share
    slider.fill("80")
