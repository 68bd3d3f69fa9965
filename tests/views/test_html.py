import re
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxflow import Attribution, Explanation, Prediction, explain, load_model
from jaxflow.views.html import MAX_TITLED, to_html, to_page

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "&amp;", "日本", "שלום", "' onmouseover='x")


class Elements(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value) for name, value in attrs]

    def handle_data(self, data):
        self.text.append(data)


def parsed(html):
    elements = Elements()
    elements.feed(html)
    return elements


def hostile(tokens=HOSTILE, model="<b>Model</b>"):
    scores = np.random.default_rng(0).random((len(tokens), len(tokens)))
    return Explanation(
        encoder_tokens=tuple(tokens),
        decoder_tokens=(),
        output_tokens=tuple(tokens),
        attribution=Attribution(encoder=scores, decoder=None, outputs=np.arange(len(tokens))),
        predictions=(Prediction("<i>label</i>", 0.5),),
        bottleneck=None,
        model=model,
        method="rollout",
        conventions={"heads": "mean", "residual": 0.5, "normalise": False, "together": None},
        version="0",
    )


@pytest.fixture(scope="module")
def explanation():
    model, tokenizer = load_model("agreement")
    return explain(model, "the keys to the old cabinet", tokenizer=tokenizer)


def test_hostile_words_stay_text():
    page = parsed(to_page(hostile()))
    assert set(page.tags) <= {
        "html", "head", "meta", "title", "style", "body", "section", "h1", "h2", "p", "div", "span", "small",
        "table", "thead", "tbody", "tr", "th", "td", "footer",
    }  # fmt: skip
    assert {name for name, _ in page.attributes} <= {
        "lang", "charset", "http-equiv", "content", "name", "class", "title", "scope",
    }  # fmt: skip
    for word in (*HOSTILE, "<i>label</i>", "<b>Model</b>"):
        assert any(word in text for text in page.text)


def test_no_request_leaves_the_page(explanation):
    page = to_page(explanation)
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|//|url\(|@import|<script|<link|<img", page)


def test_numbers_drawn_are_the_results(explanation):
    titles = [value for name, value in parsed(to_html(explanation)).attributes if name == "title"]
    n_tokens = len(explanation.tokens)
    drawn = [float(title.rsplit(": ", 1)[1]) for title in titles]
    scores = explanation.attribution.encoder
    np.testing.assert_allclose(drawn[:n_tokens], scores[0], atol=5e-7)
    np.testing.assert_allclose(np.reshape(drawn[n_tokens:], scores.shape), scores, atol=5e-7)


def test_shades_follow_the_scores(explanation):
    html = to_html(explanation)
    shades = [int(shade) for shade in re.findall(r'<td class="s(\d+)"', html)]
    scores = explanation.attribution.encoder
    np.testing.assert_array_equal(shades, np.rint(32 * scores / scores.max()).ravel())


def test_it_says_convention_certificate_saturation_and_version(explanation):
    text = " ".join(parsed(to_html(explanation)).text)
    for words in (
        "mean over heads",
        "residual 0.5",
        "every score exact",
        "Saturated: ",
        "Bottleneck: ",
        explanation.version,
    ):
        assert words in text
    assert explanation._repr_html_() == to_html(explanation)


def test_long_inputs_make_no_huge_page():
    n_tokens = 4 * MAX_TITLED
    page = to_page(hostile([f"w{i}" for i in range(n_tokens)]))
    assert len(page) < 30 * n_tokens**2
    assert page.count("<td") == n_tokens**2 + 1


def test_scores_that_are_all_zero():
    explanation = hostile(("a", "b"))
    zero = explanation.attribution.replace(encoder=np.zeros((2, 2)))
    html = to_html(Explanation(**{**vars(explanation), "attribution": zero}))
    assert "nan" not in html
    assert html.count('<td class="s0"') == 4
