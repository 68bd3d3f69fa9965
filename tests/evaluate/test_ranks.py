"""Rank correlation, ties and all, as SciPy's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxflow.evaluate import rank_correlation


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=9))
def test_ranks_as_scipy_with_ties(pairs):
    a, b = np.array(pairs, float).T
    if np.ptp(a) and np.ptp(b):
        np.testing.assert_allclose(rank_correlation(a, b), stats.spearmanr(a, b).statistic, atol=1e-12)
    else:
        assert np.isnan(rank_correlation(a, b))


def test_refusals():
    with pytest.raises(ValueError, match="got 2 and 3 scores"):
        rank_correlation([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="not finite"):
        rank_correlation([1, np.nan], [1, 2])
