"""Flows: what a solver returns for many pairs, in quanta."""

from __future__ import annotations

import numpy as np
from flax import struct
from jaxtyping import Int

SEARCHED, RESIDUAL, ORTOOLS, UNFINISHED = range(4)
STAGES = ("search", "residual", "ortools", "unfinished")


@struct.dataclass
class Flows:
    """Bounds on the values of maximum flows, and the stage that proved them.

    Attributes:
        lower: `[pair]`, int64, quanta: value of a flow.
        upper: `[pair]`, int64, quanta: capacity of a cut, or another bound on all flows; equal to `lower` where the value is
            exact.
        trivial: `[pair]`, int64, quanta: the smaller of the capacity that leaves the source and the capacity that enters the
            sink.
        stage: `[pair]`, int8, index into `STAGES`: what settled the pair.
        quantum: unit that capacities were rounded to, in units of attention.
    """

    lower: Int[np.ndarray, " pair"]
    upper: Int[np.ndarray, " pair"]
    trivial: Int[np.ndarray, " pair"]
    stage: Int[np.ndarray, " pair"]
    quantum: float


def count_stages(stage: Int[np.ndarray, " *pair"]) -> dict[str, int]:
    """Count the pairs that each stage settled, by the name of the stage."""
    return dict(zip(STAGES, np.bincount(np.ravel(stage), minlength=len(STAGES)).tolist(), strict=True))
