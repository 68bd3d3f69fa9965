"""What a run will take, from shapes alone: memory, solves, and an expected time."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from ortools.graph.python.max_flow import SimpleMaxFlow

from jaxflow._attention import STACKS, Attention, check_architecture
from jaxflow.models import attention_sizes
from jaxflow.network import Capacities, DecoderLayer, Positions, check_positions
from jaxflow.solve import SOLVERS, Solver, n_cores

Shape = tuple[int, ...]
# Peaks of resident memory, per arc, as measured on 0.9 to 6.3 million arcs: while the network is built, or OR-Tools holds
# it; and of the certified solver with its network, and what each thread adds at most.
BYTES_PER_ARC = {"ortools": 120, "certified": 72}
BYTES_PER_ARC_SOLVING, BYTES_PER_ARC_AND_THREAD = 24, 5
# Times of one core, in seconds, fitted to attention of 22 to 1,024 tokens on a machine where a solve in _slowness takes
# REFERENCE.
REFERENCE = 0.7e-3
SECONDS_PER_ARC = 1.2e-7
SECONDS_PER_SOLVE = {"ortools": (8e-5, 4.8e-8), "certified": (1.6e-5, 1.75e-10)}  # in any case, and for each arc
# Beyond so many arcs a solve grows with another power of them: caches no longer hold what OR-Tools reads, while the
# certified solver touches as many arcs per token of a longer input, so fewer of all.
MANY_ARCS, BEYOND = 4e5, {"ortools": 0.3, "certified": -0.4}


@dataclasses.dataclass(frozen=True)
class CostEstimate:
    """What `attention_flow` will take, and `capture` before it.

    Attributes:
        solver: "certified" or "ortools".
        n_threads: in which it solves.
        n_examples: networks that are solved one after the other.
        n_arcs: of one example's network.
        n_solves: pairs of an output and an input from which it can be reached, of all examples together.
        attention_bytes: the attention of all heads of all layers; 0 if there are no heads any more.
        capture_bytes: peak of `capture` and `joint_capacities` without `jit`, beyond the model; 0 if there are no heads any more.
        streaming_bytes: peak of `capture_capacities`, beyond the model; likewise.
        capacities_bytes: what is left of the attention once heads are reduced.
        solving_bytes: peak on the host while one example is solved.
        seconds: expected time of `attention_flow`, without the model's run and without compilation.
    """

    solver: Solver
    n_threads: int
    n_examples: int
    n_arcs: int
    n_solves: int
    attention_bytes: int
    capture_bytes: int
    streaming_bytes: int
    capacities_bytes: int
    solving_bytes: int
    seconds: float

    def __str__(self) -> str:
        """Say it in four lines."""
        networks = "a network" if self.n_examples == 1 else f"{self.n_examples:,} networks"
        lines = [f"{self.n_solves:,} solves on {networks} of {self.n_arcs:,} arcs"]
        if self.attention_bytes:
            lines.append(
                f"attention {_size(self.attention_bytes)}: capture takes {_size(self.capture_bytes)} at its peak, "
                f"capture_capacities {_size(self.streaming_bytes)}"
            )
        lines.append(
            f"capacities {_size(self.capacities_bytes)}; solving takes {_size(self.solving_bytes)} at its peak"
        )
        threads = f", {self.n_threads} threads" if self.n_threads > 1 else ""
        lines.append(f"expected time {_duration(self.seconds)} ({self.solver}{threads})")
        return "\n".join(lines)


def estimate_cost(
    model: Any,
    *,
    n_tokens: int | None = None,
    n_target: int | None = None,
    positions: Positions | None = None,
    decoder_layer: DecoderLayer = "sublayers",
    solver: Solver = "certified",
    n_threads: int | None = None,
) -> CostEstimate:
    """Estimate what attention flow will take before anything runs, from shapes alone.

    Solves and arcs are counted; where padding leaves out some, that is an upper bound. Memory and time are constants times
    these. Time is that of an idle machine: how fast this one is, is measured once in a process, by a few small solves (20 ms). It
    is within a factor of two of what the benchmarks measure, but how hard a network is cannot be seen from shapes: a single
    output of an unusual one has taken the certified solver ten times as long. `explain` adds a minimum cut per input, and flow
    graphs where they are cheap, when they are looked at.

    Args:
        model: one of
            - `Attention`, `Capacities`, or an encoder's attention, `[*batch, layer, head, source, source]`, of arrays or of
              `jax.ShapeDtypeStruct`;
            - an encoder's shape, such as `(6, 12, 242, 242)`;
            - a model of transformers, or the config of one, with `n_tokens`.
        n_tokens: how many tokens a config's encoder reads, or its decoder, if that is all there is.
        n_target: how many tokens a config's decoder reads, if it has an encoder too.
        positions: outputs to explain; None for all.
        decoder_layer: as in `attention_flow`.
        solver: as in `max_flow`.
        n_threads: of the certified solver ("ortools" has one); as many as there are cores for this process if None.

    Returns:
        `CostEstimate`, which says itself in words.

    Raises:
        ValueError: shapes that no attention has, positions that do not exist, numbers of tokens missing or given twice.
        TypeError: `model` has no shapes.

    Example:
        >>> cost = estimate_cost((6, 12, 242, 242))
        >>> cost.n_solves, cost.n_arcs, cost.attention_bytes
        (58564, 351384, 16866432)
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver is {solver!r}; expected one of {', '.join(map(repr, SOLVERS))}.")
    if decoder_layer not in ("sublayers", "parallel"):
        raise ValueError(f"decoder_layer is {decoder_layer!r}; expected 'sublayers' or 'parallel'.")
    if n_threads is not None and n_threads < 1:
        raise ValueError(f"n_threads is {n_threads}; expected 1 or more.")
    shapes, has_heads, itemsize = _shapes(model, n_tokens, n_target)
    _check_shapes(shapes, has_heads)
    layers = {name: (shape[-4 if has_heads else -3], *shape[-2:]) for name, shape in shapes.items()}
    batch = next(iter(shapes.values()))[: -4 if has_heads else -3]
    n_arcs, n_pairs = _count(layers, positions, decoder_layer)
    threads = 1 if solver == "ortools" else n_threads or n_cores()
    heads = {name: _product(shape) * itemsize for name, shape in shapes.items()} if has_heads else {}
    of_one_layer = max((size // layers[name][0] for name, size in heads.items()), default=0)
    capacities = _product(batch) * sum(map(_product, layers.values())) * max(itemsize, 4)
    fixed, each = SECONDS_PER_SOLVE[solver]
    solve = fixed + each * n_arcs * max(n_arcs / MANY_ARCS, 1) ** BEYOND[solver]
    return CostEstimate(
        solver=solver,
        n_threads=threads,
        n_examples=_product(batch),
        n_arcs=n_arcs,
        n_solves=_product(batch) * n_pairs,
        attention_bytes=sum(heads.values()),
        capture_bytes=3 * sum(heads.values()) + capacities
        if heads
        else 0,  # layers, their stack, and a copy on its way
        streaming_bytes=5 * of_one_layer + 2 * capacities
        if heads
        else 0,  # softmax's own copies; layers and their stack
        capacities_bytes=capacities,
        solving_bytes=n_arcs * max(BYTES_PER_ARC[solver], BYTES_PER_ARC_SOLVING + BYTES_PER_ARC_AND_THREAD * threads),
        seconds=_product(batch) * (SECONDS_PER_ARC * n_arcs + n_pairs * solve / threads) * _slowness(),
    )


def _shapes(model: Any, n_tokens: int | None, n_target: int | None) -> tuple[dict[str, Shape], bool, int]:
    """Return the shape of each stack, whether it has heads, and the bytes of a number."""
    sizes = attention_sizes(model)
    if sizes is not None:
        return _shapes_of_sizes(sizes, n_tokens, n_target), True, 4
    if n_tokens is not None or n_target is not None:
        raise ValueError(
            "n_tokens and n_target are for models and configs of transformers; shapes say how many tokens there are."
        )
    if isinstance(model, tuple | list) and all(isinstance(size, int | np.integer) for size in model):
        return {"encoder": tuple(model)}, True, 4
    if not isinstance(model, Attention | Capacities):
        model = Attention(encoder=model)
    leaves = {name: leaf for name in STACKS if (leaf := getattr(model, name)) is not None}
    for name, leaf in leaves.items():
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise TypeError(
                f"{name} is a {type(leaf).__name__}; expected an Attention, Capacities, an array or a jax.ShapeDtypeStruct, a "
                "shape [*batch, layer, head, query, key], or a model or config of transformers."
            )
    itemsize = max((np.dtype(leaf.dtype).itemsize for leaf in leaves.values()), default=4)
    return {name: tuple(leaf.shape) for name, leaf in leaves.items()}, isinstance(model, Attention), itemsize


def _shapes_of_sizes(
    sizes: Mapping[str, tuple[int, int]], n_tokens: int | None, n_target: int | None
) -> dict[str, Shape]:
    """Return the shapes of a model's attention, from its numbers of layers and heads by stack, and from lengths."""
    joined = set(sizes) == {"encoder", "decoder"}
    if n_tokens is None or (n_target is None) == joined:
        needed = "n_tokens, of the encoder, and n_target, of the decoder" if joined else "n_tokens alone"
        raise ValueError(f"a model or config says nothing of lengths: give {needed}.")
    if not joined:
        ((stack, size),) = sizes.items()
        return {stack: (1, *size, n_tokens, n_tokens)}
    assert n_target is not None
    return {
        "encoder": (1, *sizes["encoder"], n_tokens, n_tokens),
        "decoder": (1, *sizes["decoder"], n_target, n_target),
        "cross": (1, *sizes["decoder"], n_target, n_tokens),
    }


def _check_shapes(shapes: dict[str, Shape], has_heads: bool) -> None:
    axes = "[*batch, layer, head, query, key]" if has_heads else "[*batch, layer, query, key]"
    if not shapes:
        raise ValueError(f"there is no stack: give encoder, decoder or both with cross, {axes}.")
    for name, shape in shapes.items():
        if len(shape) < (4 if has_heads else 3) or min(shape) < 1:
            raise ValueError(f"{name} has shape {shape}; expected {axes}, each 1 or more.")
        if name != "cross" and shape[-1] != shape[-2]:
            raise ValueError(f"{name} has {shape[-2]} queries and {shape[-1]} keys; expected as many of each.")
    check_architecture("This model", shapes, n_axes=4 if has_heads else 3)


def _count(layers: dict[str, Shape], positions: Positions | None, decoder_layer: DecoderLayer) -> tuple[int, int]:
    """Count one example's arcs, and its pairs of an output and an input from which it can be reached."""
    n_arcs = sum(_product(layers[name]) for name in ("encoder", "cross") if name in layers)
    n_source = layers["cross" if "cross" in layers else "encoder"][-1] if set(layers) != {"decoder"} else 0
    if "decoder" not in layers:
        return n_arcs, len(check_positions(positions, np.ones(n_source, bool))) * n_source
    n_layers, n_target, _ = layers["decoder"]
    n_arcs += n_layers * n_target * (n_target + 1) // 2
    if "cross" in layers and decoder_layer == "sublayers":
        n_arcs += n_layers * n_target
    chosen = check_positions(positions, np.ones(n_target, bool))
    return n_arcs, int((chosen + 1 + n_source).sum())


@functools.cache
def _slowness() -> float:
    """Return how many times as long as on the reference machine a small solve takes here."""
    n_layers, n_tokens = 6, 64
    layer, query, key = np.indices((n_layers, n_tokens, n_tokens)).reshape(3, -1)
    weights = np.random.default_rng(0).random((n_layers, n_tokens, n_tokens)) ** 4
    quanta = np.rint(2**40 * weights / weights.sum(-1, keepdims=True)).astype(np.int64)
    graph = SimpleMaxFlow()
    graph.add_arcs_with_capacity(layer * n_tokens + key, (layer + 1) * n_tokens + query, quanta.ravel())
    times = []
    for position in range(32):  # the first of them builds the graph
        start = time.thread_time()
        graph.solve(position, n_layers * n_tokens + position)
        times.append(time.thread_time() - start)
    return float(np.median(times[1:])) / REFERENCE


def _product(shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _size(n_bytes: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return f"{n_bytes} bytes"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60), ("s", 1)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds * 1e3:,.0f} ms"
