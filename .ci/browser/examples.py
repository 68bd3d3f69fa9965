"""The pages that are opened, and what is checked on each."""

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import checks
import flow_checks
import nbformat
import numpy as np
from nbconvert import HTMLExporter

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from example_explanations import HOSTILE, explained, translation

from jaxflow import Explanation, explain, load_model
from jaxflow.explain import Prediction
from jaxflow.views.html._methods import methods_page
from jaxflow.views.html._page import to_html, to_page

SCRIPTS = ("[CLS]", "שלום", "עולם", "日本", "👩🏽‍🚀", "key", "##s", "[SEP]")


@dataclasses.dataclass(frozen=True)
class Example:
    """A page.

    Attributes:
        html: the document.
        explanation: what it shows; the first of several.
        checks: run on the open page.
        is_read_by_axe: whether all of the page is ours.
        runs_script: whether the browser runs any script.
    """

    html: str
    explanation: Explanation | None
    checks: tuple[Callable[..., None], ...]
    is_read_by_axe: bool = True
    runs_script: bool = True


USUAL = (checks.strip_shows_scores, checks.keys_and_pointer_look_at_tokens)
GRAPH = (flow_checks.graph_shows_flow, flow_checks.share_of_the_flow)
EVERY = (*USUAL, checks.slider_steps_through_outputs, *GRAPH, checks.matrix_shows_scores)


def agreement() -> Example:
    explanation = _agreement()
    return Example(
        to_page(explanation), explanation, (*EVERY, checks.whole_words, checks.special_tokens, checks.dark_mode)
    )


def without_script() -> Example:
    explanation = _agreement()
    return Example(to_page(explanation), explanation, (checks.reads_without_script,), False, runs_script=False)


def encoder_and_decoder() -> Example:
    explanation = translation(n_layers=4)
    return Example(to_page(explanation), explanation, EVERY)


def written_and_read_again() -> Example:
    words = ("the", "keys", "to", "the", "cabinet", "are", "on", "the", "table")
    explanation = explained(target=words, feedback=5, positions=[8], graphs=True)
    return Example(to_page(explanation), explanation, (*USUAL, *GRAPH))


def hostile_words() -> Example:
    label = Prediction("<i>label</i>", 0.5)
    explanation = explained(HOSTILE, model='"><img src=x onerror=alert(1)>', predictions=[label])
    return Example(to_page(explanation), explanation, (*EVERY, checks.hostile_words_are_text))


def scripts() -> Example:
    explanation = explained(SCRIPTS, model="Scripts")
    return Example(to_page(explanation), explanation, EVERY)


def patches() -> Example:
    explanation = explained([str(i) for i in range(17)], n_layers=2, model="ViT")
    return Example(
        to_page(explanation, grid=(4, 4)), explanation, (*USUAL, checks.patches_have_a_scale_for_each_output)
    )


def patches_over_their_image() -> Example:
    down, across = np.mgrid[:96, :64]
    image = np.rint(127 * (1 + np.sin(down / 9) * np.cos(across / 7))).astype(np.uint8)
    explanation = explained([str(i) for i in range(25)], n_layers=2, model="ViT")
    explanation = dataclasses.replace(explanation, patches=(6, 4), image=image)
    return Example(to_page(explanation), explanation, (*USUAL, checks.image_is_there))


def tokens_64() -> Example:
    explanation = explained([f"word{i}" for i in range(64)], n_layers=12)
    return Example(to_page(explanation), explanation, (*USUAL, *GRAPH))


def tokens_512() -> Example:
    explanation = explained([f"w{i}" for i in range(512)], n_layers=6, positions=[0], graphs=True)
    return Example(to_page(explanation), explanation, (checks.strip_shows_scores, *GRAPH))


def outputs_512() -> Example:
    explanation = explained([f"w{i}" for i in range(512)], n_layers=6, method="rollout")
    return Example(to_page(explanation), explanation, (checks.picture_shows_scores,))


def signed_scores() -> Example:
    explanation = explained([f"w{i}" for i in range(8)], n_layers=2, method="rollout")
    attribution = explanation.attribution.replace(encoder=np.random.default_rng(0).normal(size=(8, 8)))
    explanation = dataclasses.replace(explanation, attribution=attribution, method="leave_one_out", conventions={})
    return Example(to_page(explanation), explanation, (checks.signs_have_colours,))


def methods() -> Example:
    shown = [explained(SCRIPTS, method=method, graphs=False) for method in ("flow", "rollout")]
    return Example(methods_page(dict(zip(("flow", "rollout"), shown, strict=True))), shown[0], ())


def notebook() -> Example:
    shown = [_agreement(), translation()]
    return Example(in_notebook(*shown), shown[0], (checks.two_in_one_page,), is_read_by_axe=False)


PAGES: dict[str, Callable[[], Example]] = {
    page.__name__: page
    for page in (
        agreement, without_script, encoder_and_decoder, written_and_read_again, hostile_words, scripts, patches,
        patches_over_their_image, tokens_64, tokens_512, outputs_512, signed_scores, methods, notebook,
    )
}  # fmt: skip


@functools.cache
def _agreement() -> Explanation:
    model, tokenizer = load_model("agreement")
    return explain(model, "the keys' cabinet near the old doors", tokenizer=tokenizer)


def in_notebook(*explanations: Explanation) -> str:
    """Show explanations in a notebook, as nbconvert writes it, without what it would fetch from elsewhere."""
    cells = [
        nbformat.v4.new_code_cell(
            "explanation", outputs=[nbformat.v4.new_output("display_data", {"text/html": to_html(one)})]
        )
        for one in explanations
    ]
    exporter = HTMLExporter(
        mathjax_url="", require_js_url="", jquery_url="", mermaid_js_url="", html_manager_semver_range=""
    )
    html, _ = exporter.from_notebook_node(nbformat.v4.new_notebook(cells=cells))
    return html
