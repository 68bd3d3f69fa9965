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
from jaxflow.solve._cuts import minimum_cuts
from jaxflow.solve._flows import UNFINISHED, count_stages
from jaxflow.solve._quantise import quantise, refuse_traced

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


@struct.dataclass
class MinCut:
    """The arcs of a minimum cut: the explanation that certifies itself, since their capacity is the flow's value.

    Attributes:
        layer: `[arc]`, counted from 1 at the input.
        query: `[arc]`, position the arc enters.
        key: `[arc]`, position the arc leaves.
        capacity: `[arc]`, float64, quantised.
        value: the sum of `capacity`, equal to the maximum flow.
        quantum: as in `MaxFlow`.
    """

    layer: Int[np.ndarray, " arc"]
    query: Int[np.ndarray, " arc"]
    key: Int[np.ndarray, " arc"]
    capacity: Float[np.ndarray, " arc"]
    value: float
    quantum: float


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
        >>> from jaxflow.capacities import Capacities
        >>> from jaxflow.network import flow_network
        >>> layer = np.array([[0.75, 0.25], [0.5, 0.5]])
        >>> network = flow_network(Capacities(encoder=np.stack([layer, layer])))
        >>> max_flow(network, network.encoder_inputs, network.outputs[:, None]).value
        array([[1.  , 0.5 ],
               [1.  , 0.75]])

    Source: section 4 of the paper's definition of scores, Metzger et al. 2022 (2205.15389); the solver is Goldberg and
    Tarjan's push-relabel as in OR-Tools.
    """
    sources, sinks = _check_ends(network, source, sink)
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


def min_cut(
    network: FlowNetwork,
    source: int,
    sink: int,
    *,
    nearest: Literal["source", "sink"] = "source",
    solver: Solver = "certified",
) -> MinCut:
    """Find a minimum cut between two nodes: the arcs that bound what `source` can send to `sink`.

    Minimum cuts are not unique, but the one nearest the source (its source side is the smallest) and the one nearest
    the sink are.

    Args:
        network: one example's network.
        source: node.
        sink: node.
        nearest: which of the two to return.
        solver: whose quanta capacities are rounded to; the cut's capacity is the value that `max_flow` finds with it, to the
            last bit.

    Returns:
        `MinCut`; no arcs where nothing flows.

    Raises:
        ValueError: as `max_flow`; `nearest` that is neither end.

    Example:
        >>> from jaxflow.capacities import Capacities
        >>> from jaxflow.network import flow_network
        >>> layer = np.array([[0.75, 0.25], [0.5, 0.5]])
        >>> network = flow_network(Capacities(encoder=np.stack([layer, layer])))
        >>> cut = min_cut(network, network.encoder_inputs[1], network.outputs[1])
        >>> cut.layer.tolist(), cut.query.tolist(), cut.key.tolist(), cut.value
        ([1, 1], [0, 1], [1, 1], 0.75)

    Source: Ford & Fulkerson 1956; Picard & Queyranne 1980 for the nearest ones.
    """
    sources, sinks = _check_ends(network, source, sink)
    if sources.ndim:
        raise ValueError(f"min_cut takes one source and one sink; got shape {sources.shape}.")
    if nearest not in ("source", "sink"):
        raise ValueError(f"nearest is {nearest!r}; expected 'source' or 'sink'.")
    check_options(solver)
    quantised, cuts = minimum_cuts(network, sources.ravel(), sinks.ravel(), nearest=nearest, solver=solver)
    (arcs,) = cuts
    capacity = quantised.capacity[arcs]
    return MinCut(
        layer=network.level[quantised.receivers[arcs]],
        query=network.position[quantised.receivers[arcs]],
        key=network.position[quantised.senders[arcs]],
        capacity=capacity * quantised.quantum,
        value=float(capacity.sum() * quantised.quantum),
        quantum=quantised.quantum,
    )


def cut_layers(
    network: FlowNetwork,
    source: int | Int[np.ndarray, " *pair"],
    sink: int | Int[np.ndarray, " *pair"],
    *,
    solver: Solver = "certified",
    on_solved: Callable[[], object] | None = None,
) -> Float[np.ndarray, "*pair layer"]:
    """Tell in which layers the flow of each pair is bounded.

    Args:
        network: one example's network.
        source: node or array of nodes.
        sink: node or array of nodes; broadcast against `source`.
        solver: as in `min_cut`.
        on_solved: called after each pair, for progress.

    Returns:
        `[*pair, layer]`, capacity of the minimum cut nearest the source in each layer; its sum over layers is the
        value of the flow.

    Raises:
        ValueError: as `max_flow`.
    """
    sources, sinks = _check_ends(network, source, sink)
    check_options(solver)
    quantised, cuts = minimum_cuts(
        network, sources.ravel(), sinks.ravel(), nearest="source", solver=solver, on_solved=on_solved
    )
    layer = network.layer[quantised.receivers] - 1
    quanta = np.zeros((sources.size, network.n_layers), np.int64)
    for row, arcs in zip(quanta, cuts, strict=True):
        np.add.at(row, layer[arcs], quantised.capacity[arcs])
    return quanta.reshape(*sources.shape, network.n_layers) * quantised.quantum


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


def _check_ends(
    network: FlowNetwork, source: int | Int[np.ndarray, " *pair"], sink: int | Int[np.ndarray, " *pair"]
) -> tuple[Int[np.ndarray, " *pair"], Int[np.ndarray, " *pair"]]:
    """Check that the nodes exist and differ, and broadcast them against one another."""
    refuse_traced(network, source, sink)
    for name, nodes in (("source", source), ("sink", sink)):
        nodes = np.asarray(nodes)
        if not np.issubdtype(nodes.dtype, np.integer):
            raise ValueError(f"{name} has dtype {nodes.dtype}; expected nodes, which are integers.")
        if nodes.size and not 0 <= nodes.min() <= nodes.max() < network.n_nodes:
            wrong = nodes.min() if nodes.min() < 0 else nodes.max()
            raise ValueError(
                f"{name} is node {wrong}, which does not exist: the network has nodes 0 to {network.n_nodes - 1}. "
                "Inputs are network.encoder_inputs, outputs network.outputs."
            )
    sources, sinks = np.broadcast_arrays(np.asarray(source, np.int64), np.asarray(sink, np.int64))
    if (sources == sinks).any():
        raise ValueError(f"source and sink are both node {sources[sources == sinks][0]}; expected two different nodes.")
    return sources, sinks
