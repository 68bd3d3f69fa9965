"""Probe: a model and a fixed batch, made one pure function from the model's state to the batch's capacities."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import ArrayLike, Bool

from jaxflow._attention import Attention
from jaxflow.capture import arguments, capture, is_huggingface, is_nnx, model_name, take_arrays
from jaxflow.explain import padding_mask, reads
from jaxflow.network import Capacities, Heads, capture_fused, fused_capacities

Masks = Mapping[str, Bool[ArrayLike, "*batch token"] | None]


@dataclasses.dataclass(frozen=True)
class Probe:
    """A model and a fixed batch.

    Attributes:
        name: the model's.
        is_live: whether the model itself changes as it is trained, so that its state need not be handed over.
        read: makes of what stands for the model's state in a training loop the PyTree that `capacities` takes; of None the
            state that the model itself holds now, or None.
        capacities: state, arrays -> the batch's capacities. Pure.
        arrays: those of the batch.
        attention: shapes of the batch's attention, one head for all.
        masks: "encoder" and "decoder": the batch's padding, as `joint_capacities` takes it.
        expected: shapes of the state, by their paths.
    """

    name: str
    is_live: bool
    read: Callable[[Any], Any]
    capacities: Callable[[Any, Sequence[Any]], Capacities]
    arrays: Sequence[Any]
    attention: Attention
    masks: Masks
    expected: Mapping[str, tuple[int, ...]]

    def check(self, state: Any) -> None:
        """Raise unless `state`, as `read` returns it, has the paths and shapes that it had when the probe was made.

        Raises:
            ValueError: another model's state, or another part of it.
        """
        got = _shapes(state)
        paths = [path for path in {**self.expected, **got} if self.expected.get(path) != got.get(path)]
        if paths:
            raise ValueError(
                f"This is not the state of the {self.name} that the monitor was made with: {paths[0] or 'it'} has shape "
                f"{got.get(paths[0], 'none (it is not there)')}; expected {self.expected.get(paths[0], 'nothing there')}. "
                "Hand over the same part of the training state as at construction."
            )


def make_probe(
    model: Any,
    args: tuple,
    inputs: dict[str, Any],
    *,
    state: Any,
    heads: Heads,
    residual: float,
    masks: Masks,
    options: Mapping[str, Any],
) -> Probe:
    """Check that the batch fits the model and that its attention can be captured, and make a probe of both.

    Both are traced over shapes, and nothing is computed.

    Args:
        model: as in `FlowMonitor`.
        args: the batch, by position.
        inputs: the batch, by name.
        state: as in `FlowMonitor`.
        heads: as in `joint_capacities`.
        residual: as in `joint_capacities`.
        masks: "encoder" and "decoder"; for None what the model is given as its padding mask.
        options: sown, roles: as in `capture`.

    Raises:
        ValueError: a batch that does not fit the model; attention that cannot be captured; a state that is missing; masks, heads
            or a residual that do not fit.
        TypeError: `model` is nothing that can be run here.
    """
    name = model_name(model)
    read, run, fuse, first = _kind(model)
    example = read(state)
    if example is None:
        raise ValueError(
            f"{name} is given without a state; expected state=, the parameters that it is trained from. The model is traced with "
            "them once, so that what cannot be captured is refused now and not in the midst of training."
        )
    given, arrays = take_arrays((args, inputs))
    arrays = [_on_host(array) for array in arrays]

    def outputs(state: Any, arrays: Sequence[Any]) -> list[jax.Array]:
        return take_arrays(run(state, *given(arrays)))[1]

    try:
        jax.eval_shape(outputs, example, arrays)
    except Exception as error:  # whatever a model says to inputs that are not its own
        shapes = ", ".join(f"{path} {shape}" for path, shape in _shapes({**dict(enumerate(args)), **inputs}).items())
        raise ValueError(
            f"The probe batch does not fit {name}, which says: {type(error).__name__}: {error}\nGiven were {shapes}. Expected is "
            "what the model is called with in training, and the state that it is called with."
        ) from error

    def captured(state: Any, arrays: Sequence[Any]) -> Attention:
        args, inputs = given(arrays)
        return fuse(state, args, inputs, heads=heads, **options)[1]

    attention = jax.eval_shape(captured, example, arrays)
    args, inputs = given(arrays)
    masks = _with_padding(masks, attention, arguments(model, (*first, *args), inputs))

    def capacities(state: Any, arrays: Sequence[Any]) -> Capacities:
        return fused_capacities(
            captured(state, arrays),
            heads=heads,
            residual=residual,
            encoder_mask=masks["encoder"],
            decoder_mask=masks["decoder"],
        )

    jax.eval_shape(capacities, example, arrays)
    return Probe(name, is_nnx(model), read, capacities, arrays, attention, masks, _shapes(example))


def _kind(model: Any) -> tuple[Callable, Callable, Callable, tuple]:
    """Say how a model of this kind holds its state, is run, is run with its attention taken, and what it is called with first."""
    if is_huggingface(model):

        def run(state: Any, args: tuple, inputs: dict) -> Any:
            return model(*args, params=state, **inputs)

        def fuse(state: Any, args: tuple, inputs: dict, *, heads: Heads, **options: Any) -> tuple[Any, Attention]:
            return capture_fused(model, args, {**inputs, "params": state}, heads=heads, **options)

        return lambda state: model.params if state is None else state, run, fuse, ()
    if isinstance(model, nn.Module):
        module, own = (model, None) if model.scope is None else model.unbind()

        def read(state: Any) -> Any:
            state = own if state is None else state
            return state if state is None or "params" in state else {"params": state}

        def run(state: Any, args: tuple, inputs: dict) -> Any:
            return module.apply(state, *args, **inputs)

        def fuse(state: Any, args: tuple, inputs: dict, *, heads: Heads, **options: Any) -> tuple[Any, Attention]:
            return capture_fused(module, args, inputs, heads=heads, variables=state, **options)

        return read, run, fuse, ()
    if is_nnx(model):
        return _nnx_kind(model)
    if not callable(model) or isinstance(model, type):
        capture(model)  # says what it takes

    def call(state: Any, args: tuple, inputs: dict) -> Any:
        return model(state, *args, **inputs)

    def fuse_call(state: Any, args: tuple, inputs: dict, *, heads: Heads, **options: Any) -> tuple[Any, Attention]:
        return capture_fused(model, (state, *args), inputs, heads=heads, **options)

    return lambda state: state, call, fuse_call, (None,)


def _nnx_kind(model: Any) -> tuple[Callable, Callable, Callable, tuple]:
    """Do the same for an NNX module or a method of one: all but its arrays stays as it is now, train or eval mode too."""
    from flax import nnx

    module = model.__self__ if inspect.ismethod(model) else model
    graph = nnx.split(module, nnx.Not(nnx.Intermediate), ...)[0]

    def read(state: Any) -> Any:
        state = module if state is None else state
        return nnx.state(state, nnx.Not(nnx.Intermediate)) if isinstance(state, nnx.Module) else state

    def bind(state: Any) -> Any:
        bound = nnx.merge(graph, state)
        return types.MethodType(model.__func__, bound) if inspect.ismethod(model) else bound

    def run(state: Any, args: tuple, inputs: dict) -> Any:
        return bind(state)(*args, **inputs)

    def fuse(state: Any, args: tuple, inputs: dict, *, heads: Heads, **options: Any) -> tuple[Any, Attention]:
        return capture_fused(bind(state), args, inputs, heads=heads, **options)

    return read, run, fuse, ()


def _with_padding(masks: Masks, attention: Attention, given: Mapping[str, Any]) -> Masks:
    """Take for masks that are None what the model is given as its padding mask."""
    stack = attention.encoder if attention.decoder is None else attention.decoder
    assert stack is not None  # or capture would have raised
    filled = dict(masks)
    for side, (n_tokens, _, name) in reads(attention).items():
        if filled[side] is None:
            filled[side] = padding_mask(given.get(name), name, side, (*stack.shape[:-4], n_tokens))
    return filled


def _on_host(array: Any) -> Any:
    """Bring a batch's array to the host, from where jit takes it to wherever the state lies."""
    if not isinstance(array, jax.Array) or jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        return array
    if not array.is_fully_addressable:
        raise ValueError(
            f"An array of the probe batch, {array.shape}, lies on devices of several processes. Pass the whole batch as "
            "NumPy arrays, the same in every process."
        )
    return np.asarray(array)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each leaf by its path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(np.shape(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
