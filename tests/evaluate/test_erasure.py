"""Erasing tokens: against values worked out by hand."""

import numpy as np
import pytest

from jaxflow.evaluate import BINS, erase, erasure_curves

WEIGHTS = np.array([1.0, 2.0, 4.0, 8.0])  # what each token adds: sums tell which were kept


def adds(kept):
    return kept @ WEIGHTS


def test_worked_out_by_hand():
    # Order of scores: 1, 3, 0, 2. Best 1, 2, 4 of 4: {1}, {1, 3}, all.
    result = erase(adds, [0.5, 3.0, 0.1, 2.0], bins=[0.25, 0.5, 1.0])
    np.testing.assert_array_equal(result.comprehensiveness, [2, 10, 15])
    np.testing.assert_array_equal(result.sufficiency, [13, 5, 0])
    assert result.aopc_comprehensiveness == 9
    assert result.aopc_sufficiency == 6
    np.testing.assert_allclose(result.log_odds, [np.log(13 / 15), np.log(5 / 15), np.nan])
    partial = erase(adds, [0.5, 3.0, 0.1, 2.0], bins=[0.25, 0.5])
    np.testing.assert_allclose(partial.aopc_log_odds, (np.log(13 / 15) + np.log(1 / 3)) / 2)


def test_curves_worked_out_by_hand():
    curves = erasure_curves(adds, [0.5, 3.0, 0.1, 2.0])
    np.testing.assert_array_equal(curves.counts, [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(curves.without, [15, 13, 5, 4, 0])
    np.testing.assert_array_equal(curves.alone, [0, 2, 10, 11, 15])
    assert curves.deletion == (7.5 + 13 + 5 + 4) / 4
    assert curves.activation == (2 + 10 + 11 + 7.5) / 4
    assert curves.pruning == (112.5 + 169 + 25 + 16) / 4
    ideal = erasure_curves(adds, WEIGHTS)
    assert ideal.deletion < curves.deletion
    assert ideal.activation > curves.activation
    assert ideal.pruning < curves.pruning


def test_curves_by_steps_and_among_candidates():
    seen = []

    def value(kept):
        seen.append(kept)
        return adds(kept)

    curves = erasure_curves(value, [9.0, 1.0, 2.0, 0.0], candidates=[False, True, True, True], n_steps=2)
    np.testing.assert_array_equal(curves.counts, [0, 2, 3])
    np.testing.assert_array_equal(curves.without, [15, 9, 1])
    np.testing.assert_array_equal(curves.alone, [1, 7, 15])
    assert len(seen) == 1
    assert seen[0][:, 0].all()
    assert len(erasure_curves(lambda kept: kept.sum(-1), np.arange(100), n_steps=10).counts) == 11
    with pytest.raises(ValueError, match="n_steps is 0"):
        erasure_curves(adds, [1, 2, 3, 4], n_steps=0)


def test_shares_are_rounded_up_and_ties_go_to_the_earlier():
    result = erase(adds, [1.0, 2.0, 2.0, 0.0], bins=[0.01, 0.26])
    np.testing.assert_array_equal(result.comprehensiveness, [2, 6])
    many = erase(lambda kept: kept.sum(-1), np.arange(30), bins=[0.1])
    assert many.comprehensiveness == 3  # and not 4, as 0.1 * 30 would be rounded up
    assert len(erase(adds, [1, 2, 3, 4]).bins) == len(BINS)


def test_others_than_candidates_are_kept_and_not_counted():
    seen = []

    def value(kept):
        seen.append(kept)
        return adds(kept)

    result = erase(value, [9.0, 1.0, 2.0, 0.0], bins=[0.5, 1.0], candidates=[False, True, True, False])
    np.testing.assert_array_equal(result.comprehensiveness, [4, 6])
    np.testing.assert_array_equal(result.sufficiency, [2, 0])
    assert len(seen) == 1
    assert seen[0][:, [0, 3]].all()


def test_refusals():
    with pytest.raises(ValueError, match=r"bins is \[0.0\]; expected shares in"):
        erase(adds, [1, 2, 3, 4], bins=[0.0])
    with pytest.raises(ValueError, match=r"scores has shape \(2, 4\)"):
        erase(adds, np.ones((2, 4)))
    with pytest.raises(ValueError, match="not finite"):
        erase(adds, [1, np.nan, 3, 4])
    with pytest.raises(ValueError, match="and 0 of them; expected one or more of 4 tokens"):
        erase(adds, [1, 2, 3, 4], candidates=[False] * 4)
    with pytest.raises(ValueError, match=r"value returned shape \(\)"):
        erase(lambda kept: 1.0, [1, 2, 3, 4])
