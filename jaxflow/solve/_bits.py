"""Sets as bits of 64-bit words, and indices, in compiled code. Leaves JAX: Numba.

Numba keeps compiled code by file: after a change here, touch `search.py`, `extending.py` and `windows.py`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from jaxtyping import UInt
from llvmlite import ir
from numba import extending

from jaxflow.solve._compiled import compiled

# Whole numbers in compiled code: int and NumPy's are one there.
Whole = Any

inlined = numba.njit(inline="always")
_intrinsic: Any = extending.intrinsic  # its stub takes what is defined for what is called

ONE, NONE = np.uint64(1), np.uint64(0)
_ALL = ~np.uint64(0)


@inlined
def at(index: Whole) -> Whole:
    """Return an index that is never counted from the end, so that it need not be asked: a quarter of the search's time."""
    return np.uint64(index)


@inlined
def bit(node: Whole) -> Whole:
    """Return the word in which a node has its bit set."""
    return ONE << np.uint64(node & 63)


@_intrinsic
def lowest(typing: Any, word: Any) -> Any:
    """Return the place of the lowest bit that is set in a word, expected to be other than 0: one instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return numba.int64(numba.uint64), generate


@_intrinsic
def highest(typing: Any, word: Any) -> Any:
    """Return the place of the highest bit that is set in a word, expected to be other than 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zeros = builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))
        return builder.sub(ir.Constant(ir.IntType(64), 63), zeros)

    return numba.int64(numba.uint64), generate


@compiled
def next_bit(words: UInt[np.ndarray, " word"], begin: Whole, end: Whole) -> Whole:
    """Return the place of the first bit that is set from `begin` on, or `end`."""
    if begin >= end:
        return end
    word = begin >> 6
    rest = words[at(word)] & (_ALL << np.uint64(begin & 63))
    while not rest:
        word += 1
        if word << 6 >= end:
            return end
        rest = words[at(word)]
    return min((word << 6) + lowest(rest), end)


@compiled
def last_bit(words: UInt[np.ndarray, " word"], begin: Whole, end: Whole) -> Whole:
    """Return the place of the last bit that is set from `begin` on and before `end`, or -1."""
    if begin >= end:
        return -1
    word = (end - 1) >> 6
    rest = words[at(word)] & (_ALL >> np.uint64(63 - ((end - 1) & 63)))
    while not rest:
        word -= 1
        if (word + 1) << 6 <= begin:
            return -1
        rest = words[at(word)]
    place = (word << 6) + highest(rest)
    return place if place >= begin else -1
