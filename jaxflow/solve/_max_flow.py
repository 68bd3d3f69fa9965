"""FlowNetwork -> values and cuts. Leaves JAX: what is below runs on the host, in integers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import numpy as np
from flax import struct
from jaxtyping import Float, Int

from jaxflow.network import FlowNetwork
from jaxflow.solve import _certified as certified
from jaxflow.solve import _ortools as ortools
from jaxflow.solve._flows import UNFINISHED, count_stages
from jaxflow.solve._nodes import check_pairs
from jaxflow.solve._quantise import quantise

SOLVERS = ("certified", "ortools")
Solver = Literal["certified", "ortools"]


@struct.dataclass
class MaxFlow:
    """Values of maximum flows, with what certifies them.

    A value found as a flow is a lower bound, and the capacity of a cut an upper one: where both are equal, the value
    is exact. Both are exact sums of quantised capacities, in units of attention.

    Attributes:
        lower: `[*pair]`, float64, value of a flow.
        upper: `[*pair]`, capacity of a cut, or a bound that no flow exceeds.
        trivial: `[*pair]`, smaller one of what leaves the source and what enters the sink: no flow can exceed it.
        stage: `[*pair]`, int8, index into `STAGES`: "search", a flow was found that reaches a bound; "residual", it was
            improved until no path was left; "ortools", OR-Tools found it, and a cut of equal capacity; "unfinished",
            time ran out.
        quantum: the unit capacities were rounded to. A value differs from that of the capacities before rounding by
            half a quantum for each arc with capacity at most.
    """

    lower: Float[np.ndarray, " *pair"]
    upper: Float[np.ndarray, " *pair"]
    trivial: Float[np.ndarray, " *pair"]
    stage: Int[np.ndarray, " *pair"]
    quantum: float

    @property
    def value(self) -> Float[np.ndarray, " *pair"]:
        """`[*pair]`, the values: exact, or with a tolerance those of flows within it; NaN where unfinished."""
        return np.where(self.stage == UNFINISHED, np.nan, self.lower)

    @property
    def status(self) -> Literal["optimal", "within tolerance", "unfinished"]:
        """Say of all pairs together how far they are solved."""
        if np.any(self.stage == UNFINISHED):
            return "unfinished"
        return "optimal" if np.array_equal(self.lower, self.upper) else "within tolerance"

    @property
    def stages(self) -> dict[str, int]:
        """How many pairs each stage settled."""
        return count_stages(self.stage)


def max_flow(
    network: FlowNetwork,
    source: int | Int[np.ndarray, " *pair"],
    sink: int | Int[np.ndarray, " *pair"],
    *,
    solver: Solver = "certified",
    tolerance: float = 0.0,
    budget_seconds: float | None = None,
    on_solved: Callable[[], object] | None = None,
) -> MaxFlow:
    """Find the value of the maximum flow from `source` to `sink`, for one pair of nodes or for many.

    `max_flow(network, network.encoder_inputs, network.outputs[:, None])` is the matrix of all scores. Each pair is
    a problem of its own, solved in threads over all cores; same input, same bits, whatever their number. Ctrl-C ends it.
    Not for use under `jit`. Cost of "certified": O(arcs) once and for each sink, then about what a pair's flow touches. It loads
    compiled code (which takes Numba some 20 seconds once per machine) when OR-Tools would need longer than that.

    Args:
        network: one example's network.
        source: node or array of nodes.
        sink: node or array of nodes; `source` and `sink` are broadcast against one another.
        solver: "certified": a flow is found that reaches a bound, and so proves it; what is left goes on over residual arcs,
            and OR-Tools has the last word, all on int32 quanta. "ortools": the reference, one push-relabel solve per pair
            on int64 capacities, a finer quantum.
        tolerance: stop at a pair when its bounds differ by no more, in units of attention ("certified" alone). 0 is exact.
        budget_seconds: stop after so long; what is unfinished then has valid bounds and NaN for a value.
        on_solved: called after each pair, for progress.

    Returns:
        `MaxFlow` whose arrays have the broadcast shape of `source` and `sink`.

    Raises:
        ValueError: nodes that do not exist, a source that is its own sink, capacities that are negative or not finite,
            a solver that does not exist, a tolerance or budget below 0, a call under `jit`.

    Example:
        >>> from jaxflow.network import Capacities, flow_network
        >>> layer = np.array([[0.75, 0.25], [0.5, 0.5]])
        >>> network = flow_network(Capacities(encoder=np.stack([layer, layer])))
        >>> max_flow(network, network.encoder_inputs, network.outputs[:, None]).value
        array([[1.  , 0.5 ],
               [1.  , 0.75]])

    Source: section 4 of the paper's definition of scores, Metzger et al. 2022 (2205.15389); the solver is Goldberg and
    Tarjan's push-relabel as in OR-Tools.
    """
    sources, sinks = check_pairs(network, source, sink)
    check_options(solver, tolerance, budget_seconds)
    deadline = None if budget_seconds is None else time.monotonic() + budget_seconds
    pairs = sources.ravel(), sinks.ravel()
    if solver == "ortools":
        flows = ortools.find_flows(quantise(network), *pairs, deadline=deadline, on_solved=on_solved)
    else:
        flows = certified.solve_pairs(network, *pairs, tolerance=tolerance, deadline=deadline, on_solved=on_solved)
    lower, upper, trivial = (
        quanta.reshape(sources.shape) * flows.quantum for quanta in (flows.lower, flows.upper, flows.trivial)
    )
    return MaxFlow(
        lower=lower, upper=upper, trivial=trivial, stage=flows.stage.reshape(sources.shape), quantum=flows.quantum
    )


def check_options(solver: Solver, tolerance: float = 0.0, budget_seconds: float | None = None) -> None:
    """Raise unless these are options that `max_flow` takes."""
    if solver not in SOLVERS:
        raise ValueError(f"solver is {solver!r}; expected one of {', '.join(map(repr, SOLVERS))}.")
    if not 0 <= tolerance < np.inf:
        raise ValueError(
            f"tolerance is {tolerance}; expected a finite number, 0 (exact) or more, in units of attention."
        )
    if tolerance and solver != "certified":
        raise ValueError(f"tolerance is for solver='certified'; {solver!r} is always exact.")
    if budget_seconds is not None and not budget_seconds >= 0:
        raise ValueError(f"budget_seconds is {budget_seconds}; expected 0 or more seconds, or None for no limit.")
