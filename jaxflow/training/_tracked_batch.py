"""A model and a fixed batch: one pure function from the model's state to the batch's capacities."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxflow._attention import Attention, Mask
from jaxflow.capture import Residual, run_capture
from jaxflow.explain import Example, padding_mask, read_by
from jaxflow.models import Model, take_arrays
from jaxflow.network import Capacities, Heads, capacities_of_reduced

Masks = Mapping[str, Mask | None]


@dataclasses.dataclass(frozen=True)
class TrackedBatch:
    """A model and a fixed batch.

    Attributes:
        model: the model.
        capacities: state, arrays -> the batch's capacities. Pure.
        arrays: those of the batch.
        attention: shapes of the batch's attention, one head for all.
        masks: "encoder" and "decoder": the batch's padding, as `joint_capacities` takes it.
        expected: shapes of the state, by their paths.
    """

    model: Model
    capacities: Callable[[Any, Sequence[Any]], Capacities]
    arrays: Sequence[Any]
    attention: Attention
    masks: Masks
    expected: Mapping[str, tuple[int, ...]]

    def check(self, state: Any) -> None:
        """Raise unless `state` has the paths and shapes that it had when tracking began.

        Raises:
            ValueError: another model's state, or another part of it.
        """
        got = _shapes(state)
        paths = [path for path in {**self.expected, **got} if self.expected.get(path) != got.get(path)]
        if paths:
            raise ValueError(
                f"This is not the state of the {self.model.name} that the monitor was made with: {paths[0] or 'it'} has shape "
                f"{got.get(paths[0], 'none (it is not there)')}; expected {self.expected.get(paths[0], 'nothing there')}. "
                "Hand over the same part of the training state as at construction."
            )


def track_batch(model: Model, batch: Example, *, state: Any, heads: Heads, residual: Residual) -> TrackedBatch:
    """Check that the batch fits the model and that its attention can be captured, and track both.

    Both are traced over shapes, and nothing is computed.

    Args:
        model: the model.
        batch: its inputs, with padding masks where the inputs do not say them.
        state: as in `FlowMonitor`.
        heads: as in `joint_capacities`.
        residual: as in `joint_capacities`.

    Raises:
        ValueError: a batch that does not fit the model; attention that cannot be captured; a state that is missing; masks, heads
            or a residual that do not fit.
    """
    example = model.state_of(state)
    if example is None:
        raise ValueError(
            f"{model.name} is given without a state; expected state=, the parameters that it is trained from. The model is "
            "traced with them once, so that what cannot be captured is refused now and not in the midst of training."
        )
    args, inputs = inputs_of(batch)
    given, arrays = take_arrays((args, inputs))
    arrays = [_on_host(array) for array in arrays]

    def outputs(state: Any, arrays: Sequence[Any]) -> list[jax.Array]:
        args, inputs = given(arrays)
        return take_arrays(model.with_state(state).call(*args, **inputs))[1]

    try:
        jax.eval_shape(outputs, example, arrays)
    except Exception as error:  # whatever a model says to inputs that are not its own
        shapes = ", ".join(f"{path} {shape}" for path, shape in _shapes({**dict(enumerate(args)), **inputs}).items())
        raise ValueError(
            f"The tracked batch does not fit {model.name}, which says: {type(error).__name__}: {error}\nGiven were {shapes}. "
            "Expected is what the model is called with in training, and the state that it is called with."
        ) from error

    def captured(state: Any, arrays: Sequence[Any]) -> Attention:
        args, inputs = given(arrays)
        return run_capture(model.with_state(state), args, inputs, heads=heads)[1]

    attention = jax.eval_shape(captured, example, arrays)
    args, inputs = given(arrays)
    masks = _with_padding(batch, attention, model.with_state(example).arguments(args, inputs))

    def capacities(state: Any, arrays: Sequence[Any]) -> Capacities:
        return capacities_of_reduced(
            captured(state, arrays),
            heads=heads,
            residual=residual,
            encoder_mask=masks["encoder"],
            decoder_mask=masks["decoder"],
        )

    jax.eval_shape(capacities, example, arrays)
    return TrackedBatch(model, capacities, arrays, attention, masks, _shapes(example))


def inputs_of(batch: Example) -> tuple[tuple, dict[str, Any]]:
    """Return the inputs of a batch by position and by name."""
    given = batch.inputs
    if isinstance(given, Mapping):
        return (), dict(given)
    return (given if isinstance(given, tuple) else (given,)), {}


def _with_padding(batch: Example, attention: Attention, given: Mapping[str, Any]) -> Masks:
    """Take for masks that are None what the model is given as its padding mask."""
    stack = attention.encoder if attention.decoder is None else attention.decoder
    assert stack is not None  # or capture would have raised
    filled: dict[str, Any] = {"encoder": batch.encoder_mask, "decoder": batch.decoder_mask}
    for side, (n_tokens, _, name) in read_by(attention).items():
        if filled[side] is None:
            filled[side] = padding_mask(given.get(name), name, side, (*stack.shape[:-4], n_tokens))
    return filled


def _on_host(array: Any) -> Any:
    """Bring a batch's array to the host, from where jit takes it to wherever the state lies."""
    if not isinstance(array, jax.Array) or jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        return array
    if not array.is_fully_addressable:
        raise ValueError(
            f"An array of the tracked batch, {array.shape}, lies on devices of several processes. Pass the whole batch as "
            "NumPy arrays, the same in every process."
        )
    return np.asarray(array)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each leaf by its path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(np.shape(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
