"""Put layers that were recorded one by one, some of them steps of loops, in order of execution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxflow.models import Layer, LayerPlace, Path

# The numbers of the layers that are computed at a place, which has a path and an index: one number, or `[*scans]`.
Numbers = dict[tuple[Path, int], np.integer | Int[np.ndarray, " ..."]]


def shape(layer: Layer) -> tuple[int, ...]:
    """Return the shape of one layer's attention: `[*batch, head, query, key]`."""
    place, array = layer
    return array.shape[len(place.scans) :]


def stack(layers: Sequence[Layer]) -> chex.Array:
    """Stack attention in the order in which it was computed.

    The steps of an `nn.scan` come one after the other, each with all its attentions.

    Args:
        layers: in order of execution; at least one, and all of one shape.

    Returns:
        `[*batch, layer, head, query, key]`.

    Raises:
        ValueError: layers differ in shape.
    """
    if len({shape(layer) for layer in layers}) > 1:
        raise ValueError(
            "The layers' attention differs in shape, so it makes no one network (layers that pool, or attend over "
            f"different tokens):\n{listed(layers)}\nCapture the part of the model whose layers are alike, name stacks with "
            "roles=, or build Attention(encoder=...) from your own arrays."
        )
    if len({array.dtype for _, array in layers}) > 1:
        # Strict dtype promotion would refuse to mix them.
        layers = [(place, array.astype(jnp.float32)) for place, array in layers]
    return jnp.moveaxis(_in_order(layers, 0), 0, -4)


def layer_numbers(layers: Sequence[tuple[LayerPlace, tuple[int, ...]]]) -> Numbers:
    """Number layers in the order in which `stack` puts them.

    Args:
        layers: in order of execution, each layer's place, and the number of steps of each scan around it.

    Returns:
        For each place, by path and index, the numbers of its layers, `[*scans]`.
    """
    first = itertools.accumulate((math.prod(steps) for _, steps in layers), initial=0)
    serials = [
        np.arange(start, start + math.prod(steps)).reshape(steps)
        for start, (_, steps) in zip(first, layers, strict=False)
    ]
    with jax.ensure_compile_time_eval():  # whole numbers, also inside jit
        order = np.asarray(_in_order([(place, serial) for (place, _), serial in zip(layers, serials, strict=True)], 0))
    number = np.argsort(order)
    return {(place.path, place.index): number[serial] for (place, _), serial in zip(layers, serials, strict=True)}


def listed(layers: Sequence[Layer]) -> str:
    """Return a line per layer: its path and shape, for messages."""
    return "\n".join(f"  {layer[0]}: {list(shape(layer))}" for layer in layers)


def _in_order(layers: Sequence[Layer], depth: int) -> chex.Array:
    """Join layers of shape `[*depth loops, *inner loops, ...]` to `[*depth loops, layer, ...]`."""

    def run(layer: Layer) -> int | None:
        scans = layer[0].scans
        return scans[depth] if len(scans) > depth else None

    parts = []
    for scan, group in itertools.groupby(layers, run):
        if scan is None:
            parts += [jnp.expand_dims(array, depth) for _, array in group]
        else:
            steps = _in_order(list(group), depth + 1)
            n_steps, n_layers = steps.shape[depth : depth + 2]
            parts.append(steps.reshape(*steps.shape[:depth], n_steps * n_layers, *steps.shape[depth + 2 :]))
    return jnp.concatenate(parts, axis=depth)
