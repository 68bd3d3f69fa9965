"""What a solver returns: bounds in whole quanta, and which stage proved them."""

from __future__ import annotations

import numpy as np
from flax import struct
from jaxtyping import Int

SEARCHED, RESIDUAL, ORTOOLS, UNFINISHED = range(4)
STAGES = ("search", "residual", "ortools", "unfinished")


@struct.dataclass
class Flows:
    """Bounds on the values of maximum flows, and what proved them.

    Attributes:
        lower: `[pair]`, int64, value of a flow that was found, in quanta.
        upper: `[pair]`, int64, capacity of a cut or a bound on all flows; equal to `lower` where the value is exact.
        trivial: `[pair]`, int64, smaller one of what leaves the source and what enters the sink.
        stage: `[pair]`, int8, index into `STAGES`: what settled the pair.
        quantum: the unit that capacities were rounded to, in units of attention.
    """

    lower: Int[np.ndarray, " pair"]
    upper: Int[np.ndarray, " pair"]
    trivial: Int[np.ndarray, " pair"]
    stage: Int[np.ndarray, " pair"]
    quantum: float


def count_stages(stage: Int[np.ndarray, " *pair"]) -> dict[str, int]:
    """Count the pairs that each stage settled, by name."""
    return dict(zip(STAGES, np.bincount(np.ravel(stage), minlength=len(STAGES)).tolist(), strict=True))
