import numba
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxflow.solve import _kernel as kernel


@numba.njit  # not cached: it would outlive a change of the kernel
def ends(word):
    return kernel.lowest(word), kernel.highest(word)


@settings(deadline=None)  # the first example compiles
@given(st.integers(1, 2**64 - 1))
def test_the_lowest_and_the_highest_bit(word):
    assert ends(np.uint64(word)) == ((word & -word).bit_length() - 1, word.bit_length() - 1)


@settings(deadline=None)
@given(st.sets(st.integers(0, 191)), st.integers(0, 192), st.integers(0, 192))
def test_the_next_and_the_last_member(members, begin, end):
    words = np.array([sum(1 << i % 64 for i in members if i // 64 == word) for word in range(3)], np.uint64)
    between = [i for i in sorted(members) if begin <= i < end]
    assert kernel.next_bit(words, begin, end) == (between[0] if between else end)
    assert kernel.last_bit(words, begin, end) == (between[-1] if between else -1)
