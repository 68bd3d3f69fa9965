import numpy as np

from jaxflow.views._scale import largest_score, scale_shares


def test_the_largest_score_is_that_of_either_sign():
    assert largest_score([[0.5, -2.0], [np.nan, 1.0]]) == 2.0
    assert largest_score([0.0, np.nan]) == 0.0
    assert largest_score([np.nan]) == 0.0


def test_shares_keep_the_sign_and_end_at_1():
    np.testing.assert_array_equal(scale_shares([1.0, -0.5, 4.0, np.nan], 2.0), [0.5, -0.25, 1.0, 0.0])
    assert not scale_shares([0.0, 0.0], 0.0).any()
