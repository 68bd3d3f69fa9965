"""Capacities -> values of maximum flows under `jit`, `vmap` and `grad`. `flow_value` leaves JAX by a callback."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback
from jaxtyping import Array, Float, Int

from jaxflow._attention import STACKS
from jaxflow.network import Capacities, DecoderLayer, Feedback, FlowNetwork, flow_network
from jaxflow.solve import _barrier_dense as dense
from jaxflow.solve._barrier import uncapacitated
from jaxflow.solve._nodes import Ends
from jaxflow.solve._ortools import solve_pairs
from jaxflow.solve._quantise import quantise
from jaxflow.solve._residual import source_side

Nearest = Literal["source", "sink"]
Pairs = tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]


def flow_value(
    capacities: Capacities,
    source: Ends,
    output: Ends,
    *,
    decoder_layer: DecoderLayer = "sublayers",
    feedback: Feedback = "prefix",
    n_prompt: int | None = None,
    nearest: Nearest = "source",
) -> Float[Array, " *pair"]:
    """Find values of maximum flows, under `jit`, `vmap` and `grad`.

    The value is the capacity of the smallest cut, and so a concave, piecewise linear function of the capacities. Its gradient
    is 1 on the arcs of a minimum cut, those of capacity 0 included, and 0 elsewhere. Each of several minimum cuts gives a
    supergradient; `nearest` chooses one. Second derivatives are 0 where they exist, and not defined here.

    Solved on the host, by a callback that runs NumPy and OR-Tools only: an operation of JAX could wait for the device that
    waits for the callback. Cost: one solve per pair; memory of arcs times pairs when differentiated.

    Args:
        capacities: one example's, `[layer, query, key]`, of a floating type; `vmap` over the rest. Traced or not.
        source: position of an input, counted over the encoder's inputs and then the decoder's, or an array of them. Static.
        output: output position, or an array of them; broadcast against `source`. Static.
        decoder_layer: as in `flow_network`.
        feedback: as in `flow_network`.
        n_prompt: as in `flow_network`.
        nearest: which minimum cut gives the gradient: the one nearest the source, or the one nearest the sink.

    Returns:
        `[*pair]`, in units of attention, of the capacities' dtype.

    Raises:
        ValueError: as `flow_network`; capacities of an integer type; inputs or outputs that do not exist. Negative or
            infinite capacities are found when the callback runs, and end it with the same message.

    Example:
        >>> layer = jnp.array([[0.75, 0.25], [0.5, 0.5]])
        >>> capacities = Capacities(encoder=jnp.stack([layer, layer]))
        >>> jax.value_and_grad(flow_value)(capacities, 1, 1)[1].encoder
        Array([[[0., 1.],
                [0., 1.]],
        <BLANKLINE>
               [[0., 0.],
                [0., 0.]]], dtype=float32)

    Source: max-flow min-cut, Ford & Fulkerson 1956; its derivative is Danskin's theorem.
    """
    if nearest not in ("source", "sink"):
        raise ValueError(f"nearest is {nearest!r}; expected 'source' or 'sink'.")
    network = _network(capacities, decoder_layer, feedback, n_prompt)
    shape, pairs = _pairs(network, source, output)
    n_pairs, n_arcs = len(pairs[0]), len(network.senders)
    capacity = network.capacity
    on_host = functools.partial(
        _solve_on_host, dataclasses.replace(network, capacity=cast(Any, np.zeros(0))), pairs, nearest
    )

    def call(capacity: Array, *, with_cuts: bool) -> Any:
        values = jax.ShapeDtypeStruct((n_pairs,), capacity.dtype)
        cuts = jax.ShapeDtypeStruct((n_pairs, n_arcs if with_cuts else 0), bool)
        return _call_host(functools.partial(on_host, with_cuts=with_cuts), (values, cuts), capacity)

    value = _differentiable(
        lambda capacity: call(capacity, with_cuts=False)[0], functools.partial(call, with_cuts=True)
    )
    return value(jnp.asarray(capacity)).reshape(shape)


def smooth_flow_value(
    capacities: Capacities,
    source: Ends,
    output: Ends,
    *,
    mu: float = 1e-3,
    decoder_layer: DecoderLayer = "sublayers",
    feedback: Feedback = "prefix",
    n_prompt: int | None = None,
    tolerance: float = 1e-7,
    max_iterations: int = 200,
) -> Float[Array, " *pair"]:
    """Find the value of the barrier flow: smooth in the capacities, and slightly below the maximum flow.

    The value is that of `barrier_flow` from one input. Its gradient follows from the implicit function theorem, by one more
    linear system. It spreads over all arcs on a path, where that of a minimum cut is 0 on all other arcs. Smooth as long as
    no capacity becomes 0. Goes through `jit`, `vmap` and `grad`. Computes in float64, whether or not x64 is enabled, on any
    device that has float64. The examples of a batch are solved one after another.

    The value is differentiated, not the programme's objective: the gradient of the objective needs no linear system, but grows
    without bound as a capacity falls to 0.

    Args:
        capacities: as in `flow_value`.
        source: as in `flow_value`.
        output: as in `flow_value`.
        mu: weight of the barrier, above 0. A larger one makes the value smoother and smaller: it is less than `2 * mu * arcs`
            below the maximum flow, and commonly some tens of `mu`.
        decoder_layer: as in `flow_network`.
        feedback: as in `flow_network`.
        n_prompt: as in `flow_network`.
        tolerance: largest duality gap, as in `barrier_flow`.
        max_iterations: as in `barrier_flow`.

    Returns:
        `[*pair]`, in units of attention, of the capacities' dtype; NaN, with NaN gradients, where the gap is above `tolerance`.

    Raises:
        ValueError: as `flow_value`; mu that is not above 0.

    Example:
        >>> capacities = Capacities(encoder=jnp.full((1, 1, 1), 0.5))
        >>> print(f"{smooth_flow_value(capacities, 0, 0, mu=0.125):.4f}")
        0.4045

    Source: the programme of Azarkhalili & Libbrecht 2025 (2502.15765), differentiated.
    """
    if not mu > 0:
        raise ValueError(f"mu is {mu}; expected a number above 0, such as 1e-3.")
    network = _network(capacities, decoder_layer, feedback, n_prompt)
    shape, pairs = _pairs(network, source, output)
    senders, receivers, merged = uncapacitated(network)
    solve = functools.partial(
        _barrier_values, mu=mu, tolerance=tolerance, max_iterations=max_iterations, n_nodes=network.n_nodes
    )
    sources, sinks = (merged[ends] for ends in pairs)

    # Batched Cholesky factorisations on several host devices deadlock: each waits for the threads of all. On CPU a batch
    # would be no faster, and would run until its slowest example has converged.
    @jax.custom_batching.sequential_vmap
    def values_and_gradients(capacity: Array) -> tuple[Array, Array]:
        with jax.enable_x64(True):
            values, gradients = solve(capacity.astype(jnp.float64), senders, receivers, sources, sinks)
            return values.astype(capacity.dtype), gradients.astype(capacity.dtype)

    value = _differentiable(lambda capacity: values_and_gradients(capacity)[0], values_and_gradients)
    return value(jnp.asarray(network.capacity)).reshape(shape)


def _differentiable(
    value: Callable[[Array], Array], value_and_rows: Callable[[Array], tuple[Array, Array]]
) -> Callable[[Array], Array]:
    """Give `value` `[arc] -> [pair]` the derivative whose rows `[pair, arc]` the other function returns with the values."""
    function = jax.custom_vjp(value)
    function.defvjp(
        value_and_rows,
        lambda rows, cotangent: (jnp.matmul(cotangent, rows.astype(cotangent.dtype), precision="highest"),),
    )
    return function


def _call_host(function: Callable[..., Any], results: Any, capacity: Array) -> Any:
    """Call `function` on the host, with NumPy arrays, from inside a traced function.

    On CPU through buffers, since `pure_callback` puts its arguments on a device before it calls: when all threads wait for
    one another in a collective of several host devices, none is left to do that, and large arguments block for ever.
    """

    def write(_: Any, out: Any, capacity: Any) -> None:
        for buffer, result in zip(out, function(np.asarray(capacity)), strict=True):
            np.asarray(buffer)[...] = result

    return jax.lax.platform_dependent(
        capacity,
        cpu=buffer_callback(write, results, vmap_method="expand_dims"),
        default=lambda capacity: jax.pure_callback(function, results, capacity, vmap_method="expand_dims"),
    )


def _solve_on_host(
    network: FlowNetwork, pairs: Pairs, nearest: Nearest, capacity: Any, *, with_cuts: bool
) -> tuple[np.ndarray, np.ndarray]:
    """`[*batch, arc]` -> values `[*batch, pair]` and, if wanted, arcs of the cuts `[*batch, pair, arc]`."""
    capacity = np.asarray(capacity)
    *batch, n_arcs = capacity.shape
    values = np.zeros((*batch, len(pairs[0])), capacity.dtype)
    cuts = np.zeros((*values.shape, n_arcs if with_cuts else 0), bool)
    for index in np.ndindex(*batch):
        quantised = quantise(dataclasses.replace(network, capacity=capacity[index]))
        for pair, solved in enumerate(solve_pairs(quantised, *pairs)):
            values[(*index, pair)] = solved.value * quantised.quantum
            if with_cuts:
                source, sink = (int(ends[pair]) for ends in pairs)
                side = source_side(quantised, solved.flow(), source=source, sink=sink, nearest=nearest)
                cuts[(*index, pair)] = side[network.senders] & ~side[network.receivers]
    return values, cuts


@functools.partial(jax.jit, static_argnames="n_nodes")
def _barrier_values(
    capacity: Array,
    senders: Array,
    receivers: Array,
    sources: Array,
    sinks: Array,
    *,
    mu: Array,
    tolerance: Array,
    max_iterations: Array,
    n_nodes: int,
) -> tuple[Array, Array]:
    def of_pair(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        source, sink = pair
        programme = dense.pose(capacity, senders, receivers, sources=jnp.arange(n_nodes) == source, sink=sink)
        solution = dense.solve(programme, mu=mu, tolerance=tolerance, max_iterations=max_iterations)
        reached = jnp.where(solution.gap <= tolerance, 0.0, jnp.nan)
        value = jnp.where(receivers == sink, solution.flow, 0).sum() + reached
        return value, dense.value_gradient(programme, solution, mu=mu) + reached

    return jax.lax.map(of_pair, (sources, sinks))


def _network(
    capacities: Capacities, decoder_layer: DecoderLayer, feedback: Feedback, n_prompt: int | None
) -> FlowNetwork:
    for name in STACKS:
        stack = getattr(capacities, name, None)
        if stack is not None and not jnp.issubdtype(jnp.asarray(stack).dtype, jnp.floating):
            raise ValueError(
                f"Capacities.{name} has dtype {stack.dtype}, which has no gradients; expected a floating type: "
                f"{name}.astype(jnp.float32)."
            )
    network = flow_network(capacities, decoder_layer=decoder_layer, feedback=feedback, n_prompt=n_prompt)
    return dataclasses.replace(network, capacity=jnp.asarray(network.capacity))


def _pairs(network: FlowNetwork, source: Any, output: Any) -> tuple[tuple[int, ...], Pairs]:
    """Find the nodes of inputs and outputs: the shape of the pairs, and their nodes `[pair]`."""
    found = []
    for name, index, nodes in (("source", source, network.inputs), ("output", output, network.outputs)):
        index = np.asarray(index)
        if not np.issubdtype(index.dtype, np.integer) or (
            index.size and not 0 <= index.min() <= index.max() < len(nodes)
        ):
            raise ValueError(f"{name} is {index}; expected positions 0 to {len(nodes) - 1}, which are static integers.")
        found.append(np.asarray(nodes)[index])
    sources, sinks = np.broadcast_arrays(*found)
    return sources.shape, (sources.ravel(), sinks.ravel())
