import re

import numpy as np
import pytest
from example_explanations import HOSTILE, explained, translation

from jaxflow.evaluate import rank_correlation
from jaxflow.views.html._methods import methods_html, methods_page


def test_scores_and_rank_correlations_are_drawn():
    one = explained(HOSTILE, graphs=False)
    other = np.random.default_rng(0).normal(size=(6, 6))
    html = methods_html({"flow": one, "<b>": other}, row=1)
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    table, correlations = html.split('class="corr"')
    numbers = [float(x) for x in re.findall(r">(-?\d\.\d{3})</td>", table)]
    np.testing.assert_allclose(np.reshape(numbers, (2, 6)), [one.scores[1], other[1]], atol=5e-4)
    assert table.count('class="minus"') == (other[1] < 0).sum()
    rho = rank_correlation(one.scores[1], other[1])
    assert [float(x) for x in re.findall(r">(-?\d\.\d\d)</td>", correlations)] == [1, round(rho, 2), round(rho, 2), 1]


def test_what_no_path_leads_from_is_not_ranked():
    one = translation(graphs=False)
    html = methods_html({"a": one, "b": one.scores}, row=0)
    assert html.count('class="far"') == 4, "tokens of the decoder after the output, of the explanation"
    assert "1.00" in html


def test_no_order_is_said():
    flat = np.ones((1, 3))
    html = methods_html({"a": flat, "b": flat}, tokens=["x", "y", "z"])
    assert ">none</td>" in html
    assert "there is no order" in methods_html({"a": [[1.0]], "b": [[1.0]]})


def test_a_page_is_a_document():
    page = methods_page({"a": [[0.1, 0.2]], "b": [[0.2, 0.1]]}, title="</title><script>")
    assert page.startswith("<!doctype html>")
    assert "<script>" not in page


def test_bad_input():
    scores = np.ones((2, 3))
    with pytest.raises(ValueError, match="methods holds 1; expected two or more"):
        methods_html({"a": scores})
    with pytest.raises(ValueError, match=r"Methods differ in how many inputs they score: \{'a': 3, 'b': 2\}"):
        methods_html({"a": scores, "b": scores[:, :2]})
    with pytest.raises(ValueError, match="row is 2; expected 0 to 1"):
        methods_html({"a": scores, "b": scores}, row=2)
    with pytest.raises(ValueError, match="tokens holds 2 names; the methods score 3 inputs"):
        methods_html({"a": scores, "b": scores}, tokens=["x", "y"])
    one, other = explained(("a", "b"), graphs=False), explained(("a", "c"), graphs=False)
    with pytest.raises(ValueError, match="Explanations are of different inputs"):
        methods_html({"a": one, "b": other})
