"""Faithfulness: against values worked out by hand, SciPy's ranks, and the model that decides by one token."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxflow import contrast, gradient_norm, leave_one_out, random_scores
from jaxflow.faithfulness import BINS, erase, rank_correlation

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


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=9))
def test_ranks_as_scipy_with_ties(pairs):
    a, b = np.array(pairs, float).T
    if np.ptp(a) and np.ptp(b):
        np.testing.assert_allclose(rank_correlation(a, b), stats.spearmanr(a, b).statistic, atol=1e-12)
    else:
        assert np.isnan(rank_correlation(a, b))


def test_methods_that_find_the_planted_token_rank_above_chance():
    from test_gradients import IDS, MODEL, PLANTED, VARIABLES

    target = contrast(1, 0)
    ids = IDS[:1]
    whole = float(target(MODEL.apply(VARIABLES, ids))[0])
    sign = np.sign(whole - float(target(MODEL.apply(VARIABLES, ids, jnp.zeros((1, 5))))[0]))

    def value(kept):
        return sign * np.asarray(target(MODEL.apply(VARIABLES, jnp.repeat(ids, len(kept), 0), jnp.asarray(kept))))

    gradient = gradient_norm(MODEL, ids, variables=VARIABLES, target=target)
    hidden = leave_one_out(MODEL, ids, variables=VARIABLES, target=target)
    assert rank_correlation(gradient.encoder[0, 0], np.abs(hidden.encoder[0, 0])) == 1
    found = erase(value, gradient.encoder[0, 0], bins=[0.2])
    assert found.comprehensiveness > 1e-3
    np.testing.assert_allclose(found.sufficiency, 0, atol=1e-6)
    needed = [erase(value, random_scores(hidden, seed=s).encoder[0, 0], bins=[0.2]) for s in range(100)]
    hits = np.mean([result.comprehensiveness[0] > 1e-3 for result in needed])
    assert 0.08 < hits < 0.35  # one token in five
    assert gradient.encoder[0, 0].argmax() == PLANTED


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
    with pytest.raises(ValueError, match="got 2 and 3 scores"):
        rank_correlation([1, 2], [1, 2, 3])
