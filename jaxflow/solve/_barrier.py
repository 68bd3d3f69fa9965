"""FlowNetwork -> the barrier-regularised maximum flow, which is unique for each arc. Leaves JAX: on the host, in float64."""

from __future__ import annotations

import numpy as np
from flax import struct
from jaxtyping import Float, Int

from jaxflow._attention import AnyArray, AnyInt
from jaxflow.network import ENCODER, MIDDLE, FlowNetwork
from jaxflow.solve._nodes import check_apart, check_node_set, check_nodes
from jaxflow.solve._quantise import check_arcs


@struct.dataclass
class BarrierFlow:
    """The barrier-regularised flow of each arc, unique for its `mu`, and its distance from the optimum. float64.

    Attributes:
        flow: `[*sink, arc]`, in units of attention, in the order of the network's arcs. Between 0 and the capacity on arcs
            that lie on a path from a source to the sink; 0 on all others.
        value: `[*sink]`, flow that arrives at the sink.
        upper: `[*sink]`, upper bound on the value of any flow: at most `value + 2 * mu * arcs` at the optimum.
        inputs: `[*sink, input]`, flow that each of the network's inputs sends, 0 for inputs that are no source. Sums to `value`
            where all sources are inputs.
        gap: `[*sink]`, upper bound on what any flow could gain in the objective, plus the sum over nodes of what `flow` fails
            to conserve.
        iterations: `[*sink]`, int32, linear systems solved.
        mu: weight of the barrier.
        tolerance: largest `gap` that was asked for.
    """

    flow: Float[np.ndarray, "*sink arc"]
    value: Float[np.ndarray, " *sink"]
    upper: Float[np.ndarray, " *sink"]
    inputs: Float[np.ndarray, "*sink input"]
    gap: Float[np.ndarray, " *sink"]
    iterations: Int[np.ndarray, " *sink"]
    mu: float
    tolerance: float

    @property
    def converged(self) -> bool:
        """Whether every gap is within the tolerance."""
        return bool(np.all(np.asarray(self.gap) <= self.tolerance))


def barrier_flow(
    network: FlowNetwork,
    source: AnyInt | Int[AnyArray, " source"],
    sink: AnyInt | Int[AnyArray, " *sink"],
    *,
    mu: float = 1e-6,
    tolerance: float = 1e-9,
    max_iterations: int = 200,
) -> BarrierFlow:
    """Find the flow that maximises `value + mu * sum_e [log f_e + log(u_e - f_e)]`, with flows f_e and capacities u_e.

    Maximum flows are not unique; this flow is. The sources act as one: `barrier_flow(network, network.inputs,
    network.outputs)` is the joint flow of all inputs to each output. Arcs of capacity 0 and arcs on no path to the sink carry
    0. A feedback arc ("unrolled") has no capacity and no barrier: it carries what arrives. As mu falls to 0 the value rises
    to the maximum flow, which is less than `2 * mu * arcs` above it, and the flow tends to one maximum flow, in the middle of
    all.

    Exact to `tolerance`, in float64: the multipliers of arcs with room to spare are of the size of mu, which float32 cannot
    tell from 0. `smooth_flow_value` finds the same flow by a dense system that JAX can trace.

    Cost: O(arcs) and a Cholesky factorisation per layer in each iteration, of which it takes 15 to 30 for attention, up to 120
    where capacities lie 50 orders of magnitude apart: 1 s at 6 layers of 242 tokens, 8 s at 512.

    Args:
        network: one example's network.
        source: node, or nodes that act as one. For "unrolled", the inputs that were not generated.
        sink: node or array of nodes; each is a programme of its own.
        mu: weight of the barrier, above 0, in units of attention.
        tolerance: largest gap, in units of attention.
        max_iterations: largest number of steps for each sink.

    Returns:
        `BarrierFlow`; check `converged`, which is False where `max_iterations` was too small.

    Raises:
        ValueError: nodes that do not exist, a sink that is a source, mu or a tolerance that is not above 0, capacities that
            are negative or not finite, a call under `jit` (`smooth_flow_value` goes through it).

    Example:
        >>> from jaxflow.network import Capacities, flow_network
        >>> network = flow_network(Capacities(encoder=np.full((1, 2, 2), 0.5)))
        >>> flow = barrier_flow(network, network.inputs, network.outputs[0])
        >>> flow.inputs.round(3), flow.converged
        (array([0.5, 0.5]), True)

    Source: the regularised programme of GAF, Azarkhalili & Libbrecht 2025 (2502.15765).
    """
    check_arcs(network)
    sources, sinks = check_node_set(network, "source", source), check_nodes(network, "sink", sink)
    check_apart(np.intersect1d(sources, sinks))
    for name, number in (("mu", mu), ("tolerance", tolerance)):
        if not (np.isfinite(number) and number > 0):
            raise ValueError(f"{name} is {number}; expected a number above 0, such as 1e-6.")
    if max_iterations < 1:
        raise ValueError(f"max_iterations is {max_iterations}; expected at least 1.")
    senders, receivers, merged = uncapacitated(network)
    capacity = np.asarray(network.capacity, np.float64)
    is_merged_source = np.zeros(network.n_nodes, bool)
    is_merged_source[merged[sources]] = True
    group = _groups(network)
    is_feedback = senders == receivers
    nodes = np.asarray(network.inputs)
    is_source = np.isin(nodes, sources)
    flows, rows = np.zeros((sinks.size, len(capacity))), []
    inputs = np.zeros((sinks.size, len(nodes)))
    for row, sink in enumerate(merged[sinks.ravel()]):
        from jaxflow.solve import _barrier_blocks as blocks  # late: it imports scipy.linalg

        solution = blocks.solve(
            capacity,
            senders,
            receivers,
            group,
            sources=is_merged_source,
            sink=int(sink),
            mu=float(mu),
            tolerance=float(tolerance),
            max_iterations=max_iterations,
        )
        # Both ends of a feedback arc are one node, which sends on what arrives, unless it is the sink.
        arriving = np.bincount(receivers, solution.flow, network.n_nodes)
        flows[row] = np.where(is_feedback & (senders != sink), arriving[senders], solution.flow)
        leaving = np.bincount(senders, solution.flow, network.n_nodes)
        inputs[row] = np.where(is_source, leaving[merged[nodes]], 0)
        rows.append((solution.value, solution.upper, solution.gap, solution.iterations))
    value, upper, gap, iterations = np.reshape(np.array(rows, np.float64), (*sinks.shape, 4)).transpose(
        -1, *range(sinks.ndim)
    )
    return BarrierFlow(
        flow=flows.reshape(*sinks.shape, -1),
        value=value,
        upper=upper,
        inputs=inputs.reshape(*sinks.shape, -1),
        gap=gap,
        iterations=iterations.astype(np.int32),
        mu=float(mu),
        tolerance=float(tolerance),
    )


def _groups(network: FlowNetwork) -> Int[np.ndarray, " node"]:
    """Number nodes by layer, in the order of elimination: the encoder's last layer, which all decoder layers read, last."""
    stack, level = np.asarray(network.stack), np.asarray(network.level)
    is_encoder = stack == ENCODER
    last = level[is_encoder].max(initial=0)
    # A decoder layer's middle comes before its end.
    group = np.where(is_encoder, level, last + 2 * level + (stack != MIDDLE))
    return np.where(is_encoder & (level == last), group.max() + 1, group)


def uncapacitated(
    network: FlowNetwork,
) -> tuple[Int[np.ndarray, " arc"], Int[np.ndarray, " arc"], Int[np.ndarray, " node"]]:
    """Merge both ends of every feedback arc, which has no capacity, into one node.

    Nothing but feedback enters an input, and nothing else leaves an output that feeds back.

    Returns:
        `[arc]`, senders; `[arc]`, receivers; `[node]`, the node that each node became.
    """
    senders, receivers = np.asarray(network.senders), np.asarray(network.receivers)
    feedback = np.asarray(network.level)[receivers] == 0
    merged = np.arange(network.n_nodes)
    merged[receivers[feedback]] = senders[feedback]
    return merged[senders], merged[receivers], merged
