import dataclasses

import numpy as np
import pytest
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure

from jaxflow.views.plot import _drawing as drawing
from jaxflow.views.plot import plot_patches

IMAGE = np.random.default_rng(0).random((48, 48, 3))


def drawn(ax):
    return next(artist for artist in ax.collections if not isinstance(artist, PatchCollection)).get_array()


@pytest.mark.parametrize(
    ("n_tokens", "shape", "grid"),
    [
        (9, (48, 48), (3, 3)),
        (10, (48, 48, 1), (3, 3)),  # [CLS]
        (197, (224, 224, 3), (14, 14)),
        (261, (224, 224, 4), (16, 16)),  # [CLS] and four registers
        (33, (32, 64, 3), (4, 8)),
        (33, (64, 32, 3), (8, 4)),
    ],
)
def test_patches_are_the_last_tokens_row_by_row(n_tokens, shape, grid):
    scores = np.random.default_rng(0).random(n_tokens)
    ax = plot_patches(scores, np.zeros(shape))
    np.testing.assert_array_equal(drawn(ax), scores[-np.prod(grid) :].reshape(grid))
    assert ax.get_xlim() == (0, grid[1])
    assert ax.get_ylim() == (grid[0], 0)


def test_a_grid_that_is_given(explanation):
    ax = plot_patches(explanation, IMAGE, row=2, grid=(2, 3))
    np.testing.assert_array_equal(drawn(ax), explanation.scores[2, 1:].reshape(2, 3))
    assert ax.texts[0].get_text() == "output 2 (keys)"


def test_an_explanation_s_own_image_and_grid(explanation):
    seen = dataclasses.replace(explanation, image=np.arange(0, 240, dtype=np.uint8).reshape(8, 30), patches=(3, 2))
    ax = plot_patches(seen)
    assert drawn(ax).shape == (3, 2)
    np.testing.assert_allclose(ax.images[0].get_array(), 0.3 + 0.7 * seen.image / 255)
    assert drawn(plot_patches(seen, IMAGE, grid=(2, 2))).shape == (2, 2)
    with pytest.raises(ValueError, match=r"No image: the explanation holds none.*Pass image="):
        plot_patches(explanation)
    with pytest.raises(ValueError, match=r"No image: scores alone hold none. Pass image="):
        plot_patches([0.1, 0.2])


def test_the_scale_is_that_of_the_patches():
    ax = plot_patches([9.0, 0.1, 0.2, 0.3, 0.4], IMAGE)
    assert ax.collections[0].get_clim() == (0.0, 0.4)
    assert plot_patches([9.0, 0.1, -0.2, 0.3, 0.1], IMAGE).collections[0].get_clim() == (-0.3, 0.3)


def test_colour_is_score_alone():
    ax = plot_patches([0.0, 0.0, 0.5, 1.0], IMAGE)
    assert np.ndim(ax.images[0].get_array()) == 2  # grey
    ax.figure.draw_without_rendering()
    opacity = ax.collections[0].get_facecolors()[:, 3]
    np.testing.assert_allclose(opacity, [0, 0, 0.4, 0.8], atol=0.01)


def test_unknown_patches_are_dotted():
    ax = plot_patches([0.1, np.nan, 0.3, 0.4], IMAGE)
    (dots,) = [artist for artist in ax.collections if isinstance(artist, PatchCollection)]
    assert dots.get_hatch() == drawing.UNKNOWN
    assert dots.get_paths()[0].get_extents().bounds == (1, 0, 1, 1)


def test_bytes_and_numbers_in_0_to_1_are_the_same():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    one, other = (plot_patches(np.ones(4), i).images[0].get_array() for i in (image, image / 255))
    np.testing.assert_allclose(one, other)


def test_it_draws_into_given_axes():
    ax = Figure().add_subplot()
    assert plot_patches(np.ones(4), IMAGE, ax=ax) is ax


@pytest.mark.parametrize(
    ("n_tokens", "image", "options", "reason"),
    [
        (4, np.zeros((3, 48, 48)), {}, r"shape \(3, 48, 48\).*Channels come last: np.moveaxis"),
        (4, np.zeros((1, 48, 48, 3)), {}, "expected one image"),
        (4, IMAGE * 2 - 1, {}, "expected 0 to 1 for float64. Give the image before the model's normalisation"),
        (4, IMAGE * 255, {}, "expected 0 to 1 for float64"),
        (21, np.zeros((48, 50)), {}, r"21 tokens make no grid of square patches over an image of 48 x 50 pixels"),
        (4, IMAGE, {"grid": (2, 3)}, r"grid is \(2, 3\); expected \(down, across\), at most 4 patches"),
        (4, IMAGE, {"grid": (0, 3)}, r"grid is \(0, 3\)"),
        (4, IMAGE, {"row": 1}, "row is 1; expected 0 to 0"),
    ],
)
def test_what_cannot_be_drawn(n_tokens, image, options, reason):
    with pytest.raises(ValueError, match=reason):
        plot_patches(np.ones(n_tokens), image, **options)
