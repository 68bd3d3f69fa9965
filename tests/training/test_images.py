import numpy as np

from jaxflow.training._images import score_images


def test_colours_depend_on_the_score_alone():
    scores = np.array([[[0.0, 1.0, 0.5], [2.0, 0.5, np.nan]], [[0.5, 0.0, 1.0], [0.0, 0.0, 0.0]]])
    images = score_images(scores)
    assert images.shape == (2, 24, 36, 3)
    assert images.dtype == np.uint8
    cells = images[:, 6::12, 6::12]
    white, blue, grey = (255, 255, 255), (24, 95, 165), (200, 200, 200)
    for number, colour in ((0.0, white), (1.0, blue), (2.0, blue), (np.nan, grey)):
        where = np.isnan(scores) if np.isnan(number) else scores == number
        assert (cells[where] == colour).all()
    assert (score_images(scores, largest=2.0)[0, 12, 0] == blue).all()
    np.testing.assert_array_equal(
        images.reshape(2, 2, 12, 3, 12, 3), cells[:, :, None, :, None].repeat(12, 2).repeat(12, 4)
    )


def test_large_matrices_have_small_cells():
    assert score_images(np.zeros((200, 100))).shape == (400, 200, 3)
    assert score_images(np.zeros((1, 600))).shape == (1, 600, 3)
