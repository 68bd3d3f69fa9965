"""Certificate: what proves the values of a flow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flax import struct
from jaxtyping import Bool, Float, Int

from jaxflow.solve import count_stages


@struct.dataclass
class Certificate:
    """What proves the values of a flow, before any correction and normalisation; in units of attention, float64.

    The inputs are the encoder's input tokens, if there are any, and then the decoder's.

    Attributes:
        lower: `[*batch, output, input]`, value of a flow that was found.
        upper: `[*batch, output, input]`, capacity of a cut, or a bound that no flow exceeds; equal to `lower` where the
            value is exact.
        trivial: `[*batch, output, input]`, smaller one of what leaves the input and what enters the output, which
            bounds the value whatever happens in the layers between. 0 where no path leads.
        stage: `[*batch, output, input]`, int8, which stage of the solver proved it (see `MaxFlow`); 0 where no path leads.
        quantum: `[*batch]`, the unit that capacities were rounded to (see `MaxFlow`).
    """

    lower: Float[np.ndarray, "*batch output input"]
    upper: Float[np.ndarray, "*batch output input"]
    trivial: Float[np.ndarray, "*batch output input"]
    stage: Int[np.ndarray, "*batch output input"]
    quantum: Float[np.ndarray, " *batch"]

    @property
    def exact(self) -> Bool[np.ndarray, "*batch output input"]:
        """Where the value is proved to the last quantum."""
        return np.asarray(self.lower) == np.asarray(self.upper)

    @property
    def stages(self) -> dict[str, int]:
        """How many values each stage settled, of those that could be other than 0."""
        return count_stages(np.asarray(self.stage)[np.asarray(self.trivial) > 0])


def join_certificates(certificates: Sequence[Certificate]) -> Certificate:
    """Join the certificates of several outputs, in their order."""
    rows = {
        name: np.concatenate([getattr(each, name) for each in certificates], axis=-2)
        for name in ("lower", "upper", "trivial", "stage")
    }
    return Certificate(**rows, quantum=np.max([each.quantum for each in certificates], axis=0))
