import io
import itertools

import numpy as np
import pytest
from matplotlib.collections import PatchCollection, QuadMesh
from matplotlib.figure import Figure

from jaxflow import Capacities, attention_flow
from jaxflow.attribute import rollout
from jaxflow.views.plot import _drawing as drawing
from jaxflow.views.plot import plot_matrix


def blocks(ax):
    return [artist for artist in (*ax.collections, *ax.images) if not isinstance(artist, PatchCollection)]


def hatched(ax, hatch):
    """Where the boxes of a hatch lie: (x, y, width)."""
    artists = [a for a in ax.collections if isinstance(a, PatchCollection) and a.get_hatch() == hatch]
    extents = [path.get_extents() for artist in artists for path in artist.get_paths()]
    return [(box.x0, box.y0, box.width) for box in extents]


def names(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_numbers_drawn_are_the_results(explanation):
    ax = plot_matrix(explanation)
    (block,) = blocks(ax)
    np.testing.assert_array_equal(block.get_array(), explanation.scores)
    assert [text.get_text() for text in ax.texts] == [f"{score:.2f}" for score in explanation.scores.ravel()]
    assert names(ax.xaxis) == names(ax.yaxis) == list(explanation.tokens)


def test_encoder_and_decoder_are_two_blocks_on_one_scale(encoder_decoder):
    left, right = blocks(plot_matrix(encoder_decoder))
    np.testing.assert_array_equal(left.get_array(), encoder_decoder.encoder)
    np.testing.assert_array_equal(right.get_array().filled(0), encoder_decoder.decoder)
    largest = max(encoder_decoder.encoder.max(), encoder_decoder.decoder.max())
    assert left.get_clim() == right.get_clim() == (0.0, largest)
    assert left.get_coordinates()[..., 0].max() < right.get_coordinates()[..., 0].min()


def test_what_causality_forbids_is_hatched_and_not_shaded(encoder_decoder):
    ax = plot_matrix(encoder_decoder)
    gap = 0.6
    forbidden = [(4 + gap + output + 1, row, 4 - output) for row, output in enumerate([1, 2, 3])]
    np.testing.assert_allclose(hatched(ax, drawing.FORBIDDEN), forbidden)
    mask = np.ma.getmaskarray(blocks(ax)[1].get_array())
    np.testing.assert_array_equal(mask, np.arange(5) > np.arange(1, 5)[:, None])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["no path"]


def test_methods_without_certificate_hatch_the_same(capacities, encoder_decoder):
    other = rollout(capacities, positions=[1, 2, 3, 4])
    assert other.certificate is None
    expected = hatched(plot_matrix(encoder_decoder), drawing.FORBIDDEN)
    assert hatched(plot_matrix(other), drawing.FORBIDDEN) == expected


def test_unknown_scores_are_dotted(encoder_decoder):
    scores = encoder_decoder.encoder.copy()
    scores[2, 1:3] = np.nan
    ax = plot_matrix(encoder_decoder.replace(encoder=scores))
    assert hatched(ax, drawing.UNKNOWN) == [(1, 2, 2)]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["no path", "unknown"]
    assert blocks(ax)[0].get_array().mask.sum() == 2


def test_names_of_outputs_and_inputs(encoder_decoder):
    tokens = ["das", "Haus", "$", "</s>", "<s>", "the", "house", "is", "big"]
    ax = plot_matrix(encoder_decoder, tokens=tokens)
    assert names(ax.xaxis) == tokens
    assert names(ax.yaxis) == tokens[5:]
    assert names(plot_matrix(encoder_decoder, tokens=tokens, output_tokens=list("abcd")).yaxis) == list("abcd")
    assert plot_matrix([[0.5, 1.0]]).get_legend() is None


def test_names_do_not_overlap_in_long_inputs():
    scores = np.random.default_rng(0).random((60, 60))
    ax = plot_matrix(scores, tokens=[f"w{i}" for i in range(60)], size="column")
    shown = names(ax.xaxis)
    assert 5 < len(shown) < 60
    ax.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in ax.xaxis.get_ticklabels()]
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))
    assert not ax.texts


def test_512_tokens_are_one_image_with_every_score(tmp_path):
    causal = np.tril(np.random.default_rng(0).random((512, 512)))
    ax = plot_matrix(causal)
    (block,) = blocks(ax)
    assert not isinstance(block, QuadMesh)
    np.testing.assert_array_equal(block.get_array(), causal)
    ax.figure.savefig(tmp_path / "long.pdf")
    assert (tmp_path / "long.pdf").stat().st_size < 2_000_000


@pytest.mark.parametrize(("size", "inches"), [("column", 3.25), ("page", 6.75)])
def test_everything_is_inside_the_figure(encoder_decoder, size, inches):
    tokens = ["a long name of a token", *"bcdefghi"]
    figure = plot_matrix(encoder_decoder, tokens=tokens, size=size).figure
    assert figure.get_size_inches()[0] <= inches
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    assert box.x0 >= -0.01
    assert box.y0 >= -0.01
    assert box.x1 <= figure.get_size_inches()[0] + 0.01
    assert box.y1 <= figure.get_size_inches()[1] + 0.01


def test_it_draws_into_given_axes(explanation):
    ax = Figure(figsize=(4, 4)).add_subplot()
    assert plot_matrix(explanation, ax=ax) is ax
    np.testing.assert_array_equal(blocks(ax)[0].get_array(), explanation.scores)


def test_svg_holds_text(encoder_decoder):
    file = io.StringIO()
    plot_matrix(encoder_decoder, tokens=["<script>", *"bcdefghi"]).figure.savefig(file, format="svg")
    assert ">&lt;script&gt;</text>" in file.getvalue()
    assert ">no path</text>" in file.getvalue()


def test_a_batch_is_refused(capacities):
    batch = attention_flow(Capacities(encoder=np.stack([capacities.encoder] * 2)))
    with pytest.raises(ValueError, match=r"shape \(2, 4, 4\); a view shows one example.*Take one of a batch"):
        plot_matrix(batch)


def test_names_must_fit(encoder_decoder):
    with pytest.raises(ValueError, match=r"tokens holds 4 names; expected 9, for scores .* of shape \(4, 9\)"):
        plot_matrix(encoder_decoder, tokens="abcd")
    with pytest.raises(ValueError, match="output_tokens holds 9 names; expected 4"):
        plot_matrix(encoder_decoder, output_tokens="abcdefghi")


def test_tokens_are_written_as_they_are_read(encoder_decoder):
    ax = plot_matrix(encoder_decoder, tokens=["das", "Ha", "us", "</s>", "<s>", "the", "Ġorġ", "\n", "s\u202e"])
    assert names(ax.xaxis) == ["das", "Ha", "us", "</s>", "<s>", "the", "Ġorġ", "↵", r"s\u202e"]
    assert names(ax.yaxis) == ["the", "Ġorġ", "↵", r"s\u202e"]
