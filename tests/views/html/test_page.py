import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
from example_explanations import HOSTILE, explained, translation

from jaxflow.explain import Prediction, known_picture
from jaxflow.views.html._matrix import MOST_CELLS
from jaxflow.views.html._page import to_html, to_page

TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "section", "header", "h1", "h2", "p", "div", "span", "small",
    "table", "thead", "tbody", "tr", "th", "td", "footer", "bdi", "button", "label", "input", "output", "svg", "g", "path",
    "text", "rect", "ul", "li", "i", "b", "script",
}  # fmt: skip


class Elements(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text, self.scripts = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data):
        (self.scripts if self.tags and self.tags[-1] == "script" else self.text).append(data)


def parsed(html):
    elements = Elements()
    elements.feed(html)
    return elements


def data_of(html):
    return json.loads(next(text for text in parsed(html).scripts if text.startswith("{")))


@pytest.fixture(scope="module")
def hostile():
    return explained(HOSTILE, model="<b>Model</b>", predictions=[Prediction("<i>label</i>", 0.5)])


@pytest.fixture(scope="module")
def translated():
    return translation()


def test_hostile_words_stay_text(hostile):
    page = parsed(to_page(hostile))
    assert set(page.tags) <= TAGS
    assert page.tags.count("script") == 2
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name in ("src", "href")]
    for word in (*HOSTILE, "<i>label</i>", "<b>Model</b>"):
        assert any(word in text for text in page.text)
    assert tuple(data_of(to_page(hostile))["tokens"]) == HOSTILE
    assert not any("alert" in script and not script.startswith("{") for script in page.scripts)


def test_no_request_leaves_the_page(translated):
    page = to_page(translated)
    assert "default-src 'none'" in page
    assert "script-src 'sha256-" in page
    without = page.replace("http://www.w3.org/2000/svg", "")  # a name, of what an element is
    assert not re.search(r"https?:|url\((?!data:)|@import|<link|<img|fetch\(|XMLHttp|import\(", without)


def test_numbers_drawn_are_the_results(translated):
    html = to_html(translated)
    titles = [value for tag, name, value in parsed(html).attributes if (tag, name) == ("button", "title")]
    written = [title.rsplit(": ", 1)[1] for title in titles]
    scores, reachable = translated.scores[0], translated.attribution.certificate.trivial[0] > 0
    for text, score, near in zip(written, scores, reachable, strict=True):
        assert text == (f"{score:.6f}" if near else "no path")
    data = data_of(html)
    np.testing.assert_allclose(np.array(data["scores"]) / data["unit"], translated.scores, atol=5.1e-7)
    for held, graph in zip(data["graphs"], translated.flow_graphs, strict=True):
        np.testing.assert_allclose(np.array(held["flow"]) / 1e5, graph.flow, atol=5.1e-6)
        np.testing.assert_allclose(np.array(held["capacity"]) / 1e5, graph.capacity, atol=5.1e-6)
        assert held["cut"] == np.flatnonzero(graph.in_cut).tolist()
        layers = np.stack([graph.layer_capacity, graph.layer_flow, graph.cut_share], axis=1)
        np.testing.assert_allclose(np.array(held["layers"]) / 1e5, layers, atol=5.1e-6)


def test_shades_follow_the_scores(hostile):
    shades = [int(shade) for shade in re.findall(r"<td class=s(\d+)", to_html(hostile))]
    scores = hostile.scores
    np.testing.assert_array_equal(shades, np.rint(32 * scores / scores.max()).ravel())


def signed(n_tokens=6):
    explanation = explained([f"w{i}" for i in range(n_tokens)], n_layers=1, method="rollout")
    scores = np.random.default_rng(0).normal(size=(n_tokens, n_tokens))
    attribution = explanation.attribution.replace(encoder=scores)
    return dataclasses.replace(explanation, attribution=attribution, method="leave_one_out", conventions={})


def test_scores_below_0_have_the_other_colour():
    explanation = signed()
    html, scores = to_html(explanation), explanation.scores
    signs = [css.startswith("m") for css in re.findall(r"<td class=([sm]\d+)", html)]
    np.testing.assert_array_equal(signs, (np.rint(32 * scores / np.abs(scores).max()) < 0).ravel())
    buttons = re.findall(r'class="(token[^"]*)" data-i="\d" style="--s:([^"]*)"', html)
    np.testing.assert_array_equal(["minus" in css.split() for css, _ in buttons], scores[0] < 0)
    shades = [float(share) for _, share in buttons]
    np.testing.assert_allclose(shades, np.abs(scores[0]) / np.abs(scores).max(), rtol=6e-3)
    assert "Orange: below 0." in html
    assert data_of(html)["largest"] == np.abs(scores).max()


def test_pictures_of_long_inputs_have_both_colours():
    html = to_html(signed(100))
    assert html.count('<i style="mask-image') == html.count('<i class="minus" style="mask-image') == 1


def test_no_number_of_the_drawing_stands_in_the_script_too(translated):
    script = next(text for text in parsed(to_html(translated)).scripts if text.startswith("(() =>"))
    names = ("frame.rows", "frame.scale", "frame.gaps", "frame.dash", "frame.least", "data.digits", "data.terms")
    assert all(name in script for name in names)
    for copied in ("no path", '"unknown"', "0.35", "1e5", "toFixed(3)"):
        assert copied not in script


def test_what_causality_forbids_is_hatched_and_not_zero(translated):
    html = to_html(translated)
    assert html.count("<td class=far>") == 10, "the tokens after each of five outputs"
    assert data_of(html)["far"] == ["000001111", "000000111", "000000011", "000000001", "000000000"]
    assert html.count('<td class="gap">') == 5, "encoder and decoder are two blocks"


def test_it_says_convention_solver_certificate_saturation_and_version(hostile):
    text = " ".join(parsed(to_html(hostile)).text)
    for words in (
        "mean over heads",
        "residual 0.5",
        "solver certified",
        "every score exact",
        "Saturated: ",
        "Bottleneck: ",
    ):
        assert words in text
    assert f"jaxflow {hostile.version}, " in "".join(parsed(to_html(hostile)).text)
    assert hostile._repr_html_() == to_html(hostile)


def test_tokens_are_written_as_they_are_read(translated):
    text = parsed(to_html(translated)).text
    assert "Output 0: <pad> → The, 50.0%" in text
    assert "Haus" in text


def test_nothing_has_an_id_that_another_fragment_could_have(translated):
    assert not [value for _, name, value in parsed(to_html(translated)).attributes if name in ("id", "for")]


def test_sixty_four_tokens_by_twelve_layers_stay_small():
    explanation = explained([f"word{i}" for i in range(64)], n_layers=12)
    page = to_page(explanation)
    assert len(explanation.flow_graphs) == 1
    assert len(page.encode()) < 300_000
    assert re.search(r"arcs; this page holds the 800 strongest\.</p>", page)


def test_long_inputs_make_a_picture_of_the_matrix():
    explanation = explained([f"w{i}" for i in range(128)], n_layers=1, graphs=False)
    assert explanation.scores.size > MOST_CELLS
    page = to_page(explanation)
    assert "<td class=" not in page
    assert page.count("data:image/png") == 1
    assert len(page.encode()) < 400_000


def test_what_the_model_s_own_checker_says_leads(translated):
    html = to_html(dataclasses.replace(translated, notes=("Checked: <right>.",)))
    assert '<p class="lead"><bdi>Checked: &lt;right&gt;.</bdi></p>' in html


def test_one_output_needs_no_stepper_and_no_matrix():
    explanation = explained(("a", "b"), positions=0, graphs=False)
    html = to_html(explanation)
    assert 'class="row"' not in html
    assert "<table" not in html
    assert "<svg" not in html


def test_scores_that_are_all_zero_or_unknown(hostile):
    attribution = hostile.attribution
    certificate = attribution.certificate.replace(stage=np.full(attribution.certificate.stage.shape, 3))
    unknown = attribution.replace(encoder=np.full(attribution.encoder.shape, np.nan), certificate=certificate)
    html = to_html(dataclasses.replace(hostile, attribution=unknown))
    assert "unknown" in html
    assert not re.search(r"\bnan\b", html)
    assert data_of(html)["scores"][0] == [None] * len(HOSTILE)
    zero = to_html(dataclasses.replace(hostile, attribution=attribution.replace(encoder=np.zeros((6, 6)))))
    assert zero.count("<td class=s0>") == 36


def test_what_was_written_leads_back_to_the_input_without_a_ghost():
    explanation = explained(target=("a", "b", "c", "d"), feedback=2, positions=[3])
    html = to_html(explanation)
    held = data_of(html)["graphs"][0]
    drawn = [kind for kind, stronger in zip(held["kind"], held["stronger"], strict=True) if stronger / 1e5 < 0.8]
    groups = {name: re.search(rf'<g class="{name}">(.*?)</g>', html)[1] for name in ("flows", "ghosts")}
    assert groups["flows"].count("M") == len(drawn)
    assert groups["ghosts"].count("M") == len(drawn) - drawn.count(3)
    back = re.findall(r'<path class="back"[^>]*d="([^"]*)"', groups["flows"])
    assert sum(path.count("M") for path in back) == drawn.count(3) > 0
    # From right to left: relative to its start, such a curve ends left of it.
    assert all(float(end) < 0 for path in back for end in re.findall(r"c\S+ 0 \S+ \S+ (\S+) ", path))
    assert "read again" in html
    assert "read again" not in to_html(explained(target=("a", "b"), positions=[1]))


def test_patches_of_an_image_are_a_grid_with_the_class_token_apart():
    explanation = explained([str(i) for i in range(7)], graphs=False)
    html = to_html(explanation, grid=(2, 3))
    assert "grid-template-columns:repeat(3," in html
    grid = html[html.index('class="patches"') :]
    assert re.findall(r'data-i="(\d+)"', grid) == ["1", "2", "3", "4", "5", "6"]
    assert to_html(dataclasses.replace(explanation, patches=(2, 3))) == html
    with pytest.raises(ValueError, match=r"grid is \(3, 3\); expected \(down, across\), at most 7 patches"):
        to_html(explanation, grid=(3, 3))


@pytest.mark.parametrize(("shape", "drawn"), [((20, 30), (20, 30)), ((600, 1100), (200, 367))])
def test_patches_lie_over_their_image(shape, drawn):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    explanation = dataclasses.replace(explained([str(i) for i in range(7)], graphs=False), patches=(2, 3), image=image)
    html = to_html(explanation)
    data = re.search(r'class="patches over-image"[^>]*url\(data:image/png;base64,([^)]*)\)', html)[1]
    pixels = plt.imread(io.BytesIO(base64.b64decode(data)))
    assert pixels.shape == drawn
    step = -(-shape[0] // drawn[0])
    np.testing.assert_allclose(pixels, 0.3 + 0.7 * image[::step, ::step] / 255, atol=0.51 / 255)


def test_patches_have_the_scale_of_their_largest():
    explanation = explained([str(i) for i in range(7)], graphs=False)
    scores = np.full((1, 7), 0.01)
    scores[0, 0] = 0.8
    scores[0, 3] = 0.02
    attribution = dataclasses.replace(
        explanation.attribution, encoder=scores, positions=np.array([0]), certificate=None
    )
    html = to_html(dataclasses.replace(explanation, attribution=attribution), grid=(2, 3))
    assert "--scale:40" in html  # 0.02 is drawn as 0.8 is
    assert 'the fullest colour is <span class="fullest">0.02</span>' in html


def test_small_scores_among_many_keep_their_digits():
    explanation = explained([f"w{i}" for i in range(130)], graphs=False, method="rollout")
    scores = np.asarray(explanation.attribution.encoder) / np.max(explanation.attribution.encoder)
    for largest, unit in ((1.0, 1e3), (0.9, 1e3), (0.07, 1e4), (0.004, 1e5), (1e-9, 1e6)):
        attribution = dataclasses.replace(explanation.attribution, encoder=largest * scores)
        data = data_of(to_html(dataclasses.replace(explanation, attribution=attribution)))
        assert data["unit"] == unit
        np.testing.assert_allclose(np.array(data["scores"]) / unit, largest * scores, atol=0.51 / unit)


def test_whole_words_beside_tokens():
    scores = np.array([[0.5, 0.75], [0.25, 0.5], [0.125, 0.5]])
    explanation = dataclasses.replace(
        explained(("[CLS]", "key", "s"), graphs=False),
        picture=known_picture(words=(((0, 1, "[CLS]"), (1, 3, "keys")), scores)),
    )
    html = to_html(explanation)
    assert 'class="whole"' in html
    assert re.findall(r'data-w="\d"[^>]* title="([^"]*)"', html) == ["[CLS]: 0.500000", "keys: 0.750000"]
    data = data_of(html)
    assert data["words"] == [[0, 1, "[CLS]"], [1, 3, "keys"]]
    np.testing.assert_allclose(np.array(data["wordScores"]) / data["unit"], explanation.word_scores)
    each = known_picture(words=(((0, 1, "a"), (1, 2, "b"), (2, 3, "c")), np.ones((3, 3))))
    alone = dataclasses.replace(explanation, picture=each)
    assert 'class="whole"' not in to_html(alone), "words that are tokens are no choice"
