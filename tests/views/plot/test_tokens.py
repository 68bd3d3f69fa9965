import dataclasses
import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxflow.views.plot import plot_tokens
from jaxflow.views.plot._tokens import MAX_TOKENS


def words(ax):
    return [text.get_text() for text in ax.texts]


def boxes(ax):
    return [path.get_extents() for path in ax.collections[0].get_paths()]


def test_numbers_and_shades_are_the_scores(explanation):
    ax = plot_tokens(explanation, row=2)
    scores = explanation.scores[2]
    np.testing.assert_array_equal(ax.collections[0].get_array(), scores)
    assert words(ax)[1::2] == list(explanation.tokens)
    assert words(ax)[2::2] == [f"{score:.3f}" for score in scores]
    ax.figure.draw_without_rendering()
    shades = ax.collections[0].get_facecolors()
    brightness = shades[:, :3].sum(1)
    assert (np.diff(brightness[np.argsort(scores, kind="stable")]) <= 0).all()


def test_strips_of_one_explanation_have_one_scale(explanation):
    scales = [plot_tokens(explanation, row=row).collections[0].get_clim() for row in range(3)]
    assert set(scales) == {(0.0, explanation.scores.max())}


def test_it_says_which_output(explanation):
    assert words(plot_tokens(explanation, row=2))[0] == "output 2 (keys)"
    assert words(plot_tokens([0.5, 1.0]))[0] == "output 0"


@pytest.mark.parametrize(("size", "inches"), [("column", 3.25), ("page", 6.75)])
def test_it_is_as_wide_as_asked_and_as_high_as_it_takes(explanation, size, inches):
    many = np.tile(explanation.scores[0], 12)
    ax = plot_tokens(many, tokens=explanation.tokens * 12, size=size)
    assert ax.figure.get_size_inches()[0] == inches
    (x0, y0), (x1, y1) = np.moveaxis([box.get_points() for box in boxes(ax)], 0, -1)
    assert x1.max() <= ax.get_xlim()[1]
    assert y1.max() <= ax.get_ylim()[0]
    meet = [np.maximum.outer(low, low) < np.minimum.outer(high, high) for low, high in ((x0, x1), (y0, y1))]
    np.testing.assert_array_equal(meet[0] & meet[1], np.eye(len(many), dtype=bool))


def test_it_draws_into_given_axes_in_letters_that_fit(explanation):
    figure = Figure(figsize=(2, 0.6))
    ax = figure.add_axes((0, 0, 1, 1))
    assert plot_tokens(explanation, ax=ax) is ax
    assert ax.texts[1].get_fontsize() < plot_tokens(explanation).texts[1].get_fontsize()
    assert max(box.y1 for box in boxes(ax)) <= ax.get_ylim()[0]


def test_unknown_is_no_score_and_no_path_is_no_zero(encoder_decoder):
    scores = encoder_decoder.encoder.copy()
    scores[0, 1] = np.nan
    ax = plot_tokens(encoder_decoder.replace(encoder=scores))
    notes = words(ax)[2::2]
    assert notes[1] == "unknown"
    assert notes[4 + 2 :] == ["no path"] * 3  # output 1 of 5 positions
    drawn = ax.collections[0].get_array()
    assert drawn.mask.tolist() == [note in ("unknown", "no path") for note in notes]


def test_encoder_and_decoder_are_two_blocks(encoder_decoder):
    places = [box.y0 for box in boxes(plot_tokens(encoder_decoder))]
    assert len(set(places[:4])) == len(set(places[4:])) == 1
    assert places[4] > places[0]


def test_negative_scores_have_a_hue_of_their_own():
    ax = plot_tokens([-0.5, 0.0, 0.25])
    assert ax.collections[0].get_clim() == (-0.5, 0.5)
    ax.figure.draw_without_rendering()
    red, _, blue, _ = ax.collections[0].get_facecolors()[0]
    assert red > blue


def test_sampled_scores_show_their_error(explanation):
    error = np.full_like(explanation.scores, 0.01)
    sampled = dataclasses.replace(explanation, attribution=explanation.attribution.replace(standard_error=error))
    assert words(plot_tokens(sampled))[2] == "1.000 ±0.020"


def test_long_texts_are_folded_to_the_strongest():
    n_tokens = 512
    scores = np.random.default_rng(0).random(n_tokens) ** 4
    ax = plot_tokens(scores, tokens=[f"word{i}" for i in range(n_tokens)])
    drawn = ax.collections[0].get_array()
    assert set(np.sort(scores)[-MAX_TOKENS:]) <= set(drawn.tolist())
    folds = [(int(word.split()[1]), float(note[2:])) for word, note in zip(words(ax)[1::2], words(ax)[2::2], strict=True)
             if word.startswith("… ")]  # fmt: skip
    assert sum(count for count, _ in folds) + len(drawn) == n_tokens
    assert max(largest for _, largest in folds) <= np.sort(scores)[-MAX_TOKENS]


def test_tokens_are_text_whatever_they_hold():
    hostile = ["$x^2$", "$\\frac{", "\\bf", "\n", " ", "", "a\x1b[31m", "<b>&amp;", "x" * 50]
    ax = plot_tokens(np.linspace(0, 1, len(hostile)), tokens=hostile)
    shown = words(ax)[1::2]
    assert shown == ["$x^2$", "$\\frac{", "\\bf", "↵", "␣", "∅", "a\\x1b[31m", "<b>&amp;", "x" * 23 + "…"]
    for kind in ("svg", "pdf", "png"):
        ax.figure.savefig(io.BytesIO(), format=kind)


def test_words_from_right_to_left_run_from_the_right():
    places = [box.x0 for box in boxes(plot_tokens([0.1, 0.2, 0.3], tokens=["שלום", "עולם", "זה"]))]
    assert places == sorted(places, reverse=True)


def test_svg_and_pdf_hold_text_and_conventions(explanation, tmp_path):
    figure = plot_tokens(explanation).figure
    figure.savefig(tmp_path / "strip.svg")
    svg = (tmp_path / "strip.svg").read_text()
    assert ">cabinet</text>" in svg
    assert "AgreementEncoder: attention flow, mean over heads, residual 0.5" in svg
    assert "Saturated: " in svg
    figure.savefig(tmp_path / "strip.pdf")
    pdf = (tmp_path / "strip.pdf").read_bytes()
    assert b"/Type0" in pdf or b"/TrueType" in pdf  # not Type 3, which publishers refuse
    assert b"/Type3" not in pdf
    figure.savefig(tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == svg


def test_pyplot_knows_nothing_of_it():
    code = (
        "import sys, jaxflow; assert not {'matplotlib'} & set(sys.modules); "
        "assert jaxflow.plot.plot_tokens([0.5, 1.0]).figure._repr_png_()[:4] == b'\\x89PNG'; "
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(filter(None, sys.path))})


def test_without_matplotlib_it_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "jaxflow.views.plot._drawing", raising=False)
    import jaxflow.views.plot as package

    monkeypatch.delattr(package, "_drawing", raising=False)
    with pytest.raises(
        ImportError,
        match=r"matplotlib, which is not installed: it is an extra, pip install 'jaxflow-attention\[plots\]'",
    ):
        plot_tokens([0.5])


@pytest.mark.parametrize(
    ("scores", "options", "reason"),
    [
        ([0.5], {"row": 1}, "row is 1; expected 0 to 0"),
        ([0.5], {"row": -1}, "row is -1; expected 0 to 0"),
        ([0.5], {"size": "poster"}, "size is 'poster'; expected 'column' .3.25 in wide. or 'page'"),
        ([0.5], {"size": "page", "ax": Figure().add_subplot()}, "size is 'page' and ax is given; expected one of them"),
        ([0.5], {"tokens": ["a", "b"]}, "tokens holds 2 names; expected 1"),
        (np.zeros((2, 3, 4)), {}, r"The scores have shape \(2, 3, 4\); a view shows one example"),
        ([], {}, r"The scores have shape \(1, 0\); a view shows one example"),
    ],
)
def test_what_cannot_be_drawn(scores, options, reason):
    with pytest.raises(ValueError, match=reason):
        plot_tokens(scores, **options)
