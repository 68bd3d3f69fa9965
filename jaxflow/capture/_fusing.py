"""Make one head of all where attention is sown, so that a run holds the heads of one layer at a time.

Weights that differ from layer to layer need to know each layer's number in its stack before the run: shapes alone are run
through the model first, which computes nothing. Inside an `nn.scan` all layers are one piece of code, which does not know its
number: there, and for such weights alone, heads are kept until the scan is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow._attention import at_least_float32
from jaxflow.capture._head_reduction import Heads, head_reduction, is_index, is_named, weigh_heads
from jaxflow.capture._ordering import layer_numbers, shape
from jaxflow.capture._roles import Path, Role
from jaxflow.capture._sown import Fuse, Layer, Sown

Stacks = dict[Role, list[Layer]]
Run = Callable[[Fuse | None], tuple[Any, Mapping, Stacks]]


def run_fused(run: Run, heads: Heads) -> tuple[Any, Mapping, Stacks]:
    """Run a model so that each of its layers keeps one head, made of all as `joint_capacities` makes it.

    Args:
        run: runs the model once, and keeps what it is told to keep of each layer's weights.
        heads: as in `joint_capacities`.

    Returns:
        What `run` returns, with weights `[*scans, *batch, 1, query, key]`, float32 at least.

    Raises:
        ValueError: heads that do not exist.
    """
    if is_named(heads) or is_index(heads):
        return run(lambda sown, weights: _fuse(heads, str(sown), weights))
    numbers = _number_layers(run, heads)

    def fuse(sown: Sown, weights: jax.Array) -> jax.Array:
        number = numbers[sown.path, sown.index]
        return weights if number.ndim else _fuse(jnp.asarray(heads)[number][None], str(sown), weights)

    def fuse_scanned(layer: Layer) -> Layer:
        sown, weights = layer
        number = numbers[sown.path, sown.index]
        if not number.ndim:
            return layer
        n_batch = weights.ndim - number.ndim - 3
        rows = jnp.asarray(heads)[number].reshape(*number.shape, *(1,) * n_batch, -1)
        return sown, weigh_heads(at_least_float32(weights), rows)[..., None, :, :]

    outputs, state, stacks = run(fuse)
    return outputs, state, {role: [fuse_scanned(layer) for layer in layers] for role, layers in stacks.items()}


def _fuse(heads: Heads, name: str, weights: jax.Array) -> jax.Array:
    """Make one head of one layer's: `[*batch, head, query, key]` -> `[*batch, 1, query, key]`."""
    weights = at_least_float32(jnp.asarray(weights))[..., None, :, :, :]
    # Else XLA puts this off until all layers are stacked, and holds their weights until then.
    return jax.lax.optimization_barrier(head_reduction(heads, name, weights.shape)(weights))


def _number_layers(run: Run, heads: Heads) -> dict[tuple[Path, int], np.ndarray]:
    """Find each layer's number in its stack, and check that there are heads for it."""
    stacks: dict[Role, list[tuple[Sown, tuple[int, ...], tuple[int, ...]]]] = {}

    def run_shapes() -> None:
        for role, layers in run(None)[2].items():
            stacks[role] = [(layer[0], layer[1].shape[: len(layer[0].scans)], shape(layer)) for layer in layers]

    jax.eval_shape(run_shapes)
    numbers = {}
    for role, layers in stacks.items():
        found = layer_numbers([(sown, steps) for sown, steps, _ in layers])
        n_layers = sum(number.size for number in found.values())
        for *_, layer_shape in layers:
            head_reduction(heads, f"Attention.{role}", (n_layers, *layer_shape[-3:]))  # for its checks
        numbers.update(found)
    return numbers
