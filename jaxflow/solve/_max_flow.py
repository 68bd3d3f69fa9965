"""FlowNetwork -> values of maximum flows. Leaves JAX: on the host, in integers."""

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
from jaxflow.solve._nodes import Ends, check_pairs
from jaxflow.solve._quantise import quantise

SOLVERS = ("certified", "ortools")
Solver = Literal["certified", "ortools"]


@struct.dataclass
class MaxFlow:
    """Values of maximum flows, with a lower and an upper bound of each.

    The value of a flow is a lower bound, the capacity of a cut an upper bound; where both are equal the value is exact. Both
    are exact sums of capacities that were rounded to quanta.

    Attributes:
        lower: `[*pair]`, float64, in units of attention: value of a flow.
        upper: `[*pair]`, likewise: capacity of a cut, or another bound on all flows.
        trivial: `[*pair]`, likewise: the smaller of the capacity that leaves the source and the capacity that enters the sink.
        stage: `[*pair]`, int8, what settled the pair, an index into ("search", "residual", "ortools", "unfinished"): a flow was
            found that reaches a bound; it was improved until no residual path was left; OR-Tools found a flow and a cut; time
            ran out.
        quantum: unit that capacities were rounded to. This changes a value by at most half a quantum per arc.
    """

    lower: Float[np.ndarray, " *pair"]
    upper: Float[np.ndarray, " *pair"]
    trivial: Float[np.ndarray, " *pair"]
    stage: Int[np.ndarray, " *pair"]
    quantum: float

    @property
    def value(self) -> Float[np.ndarray, " *pair"]:
        """`[*pair]`, values: exact, or within the tolerance that was asked for; NaN where unfinished."""
        return np.where(self.stage == UNFINISHED, np.nan, self.lower)

    @property
    def status(self) -> Literal["optimal", "within tolerance", "unfinished"]:
        """The state of all pairs: "optimal" if all values are exact."""
        if np.any(self.stage == UNFINISHED):
            return "unfinished"
        return "optimal" if np.array_equal(self.lower, self.upper) else "within tolerance"

    @property
    def stages(self) -> dict[str, int]:
        """Number of pairs that each stage settled."""
        return count_stages(self.stage)


def max_flow(
    network: FlowNetwork,
    source: Ends,
    sink: Ends,
    *,
    solver: Solver = "certified",
    tolerance: float = 0.0,
    budget_seconds: float | None = None,
    on_solved: Callable[[], object] | None = None,
) -> MaxFlow:
    """Find the value of the maximum flow from `source` to `sink`, for one pair of nodes or for many.

    `max_flow(network, network.encoder_inputs, network.outputs[:, None])` is the matrix of all scores. Each pair is
    a problem of its own. Pairs are solved in threads on all cores; their number changes no bit of the result. Ctrl-C stops it.
    Not for use under `jit`.

    Cost of "certified": O(arcs) once and for each sink, then the arcs that a pair's flow touches. Larger problems load
    compiled code, which Numba compiles once per machine in about 20 s; small ones are solved by OR-Tools.

    Args:
        network: one example's network.
        source: node or array of nodes.
        sink: node or array of nodes; broadcast against `source`.
        solver: "certified": a search for a flow that reaches an upper bound, then residual search, then OR-Tools, all on int32
            quanta. "ortools": the reference, one push-relabel solve per pair on int64 quanta, which are finer.
        tolerance: accept a pair when its bounds differ by no more, in units of attention; 0 for exact values. For "certified"
            only.
        budget_seconds: stop after so many seconds; unfinished pairs have valid bounds, and NaN as value.
        on_solved: called after each pair, for progress.

    Returns:
        `MaxFlow` whose arrays have the broadcast shape of `source` and `sink`.

    Raises:
        ValueError: nodes that do not exist; a source that is its own sink; capacities that are negative or not finite; an
            unknown solver; a tolerance or budget below 0; a call under `jit`.

    Example:
        >>> from jaxflow.network import Capacities, flow_network
        >>> layer = np.array([[0.75, 0.25], [0.5, 0.5]])
        >>> network = flow_network(Capacities(encoder=np.stack([layer, layer])))
        >>> max_flow(network, network.encoder_inputs, network.outputs[:, None]).value
        array([[1.  , 0.5 ],
               [1.  , 0.75]])

    Source: scores as Metzger et al. 2022 (2205.15389). The reference solver is Goldberg & Tarjan's push-relabel in OR-Tools.
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
    """Check options of `max_flow`.

    Args:
        solver: as in `max_flow`, like the others.
        tolerance: in units of attention.
        budget_seconds: in seconds, or None.

    Raises:
        ValueError: one of them is out of range.
    """
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
