"""Model: the protocol that all kinds of models meet, each by an adapter."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Int

from jaxflow.models._facts import Facts
from jaxflow.models._recording import Keep, Mixing, Recording, Role

DEFAULT_NAME = "attention_weights"  # under which flax's own modules sow
N_NEW_TOKENS = 20  # generated at most, where neither the model nor the user says
# The path of an embedding, its number of rows, what it is called with and what it returns -> what it is to return.
Embed = Callable[[str, int, Sequence[Any], Array], Array]


@runtime_checkable
class Model(Protocol):
    """A model: parameters, and a function of them and of inputs.

    A kind of model is a class with the attributes below that says how to `bind` parameters and how to `call` it. Derive it from
    `Model`: everything else has a default, for a function that JAX can trace.

    Attributes:
        name: of its class or function, for messages and titles.
        parameters: a PyTree; `{}` of a model that keeps its parameters to itself.
        facts: what it says of itself.
        roles: which stack attention belongs to, where the user says so: a fragment of a path -> the stack.
        mixing: what to do if something other than attention mixes tokens, as in `as_model`; "none" of a kind of model that is
            known to have nothing of the sort, where nothing is looked for.
        sown: the name under which it sows attention, for messages.
        backend: what `Attention.backend` says if the attention was taken from what `sow` returns.
        generates_by_itself: whether it has a way of its own to generate, and `generate` may use it.
        is_live: whether the object that the user passed changes as it is trained, so that it holds its newest state itself.
    """

    name: str
    parameters: Any
    facts: Facts
    roles: Mapping[str, Role] | None = None
    mixing: Mixing = "refuse"
    sown: str = DEFAULT_NAME
    backend: str = "traced"
    is_live: bool = False
    generates_by_itself: bool = False

    def bind(self, parameters: Any) -> Model:
        """Return the same model with other parameters, of the structure of `parameters`."""
        ...

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model once. Whatever it holds stays as it is."""
        ...

    def arguments(self, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model's inputs by name, however they are passed; those that it does not take are left out."""
        return name_arguments(self.call, args, kwargs)

    def record(self, args: tuple, kwargs: Mapping[str, Any], keep: Keep | None = None) -> tuple[Any, Recording] | None:
        """Run the model once, and hand over its attention layer by layer.

        Args:
            args: what the model is called with.
            kwargs: what the model is called with.
            keep: what is recorded of each layer's weights, as soon as they are computed; the weights themselves by default.

        Returns:
            What the model returns, and the recording. None for a model that cannot: it is traced.
        """
        return None

    def sow(self, args: tuple, kwargs: Mapping[str, Any]) -> tuple[Any, dict[tuple[str | int, ...], tuple[Array, ...]]]:
        """Run a model that is traced once, and return also the attention weights that it hands over by itself, by module.

        They serve if they are all attention that the trace shows; else those serve that are found in the trace.
        """
        return self.call(*args, **kwargs), {}

    def embed(self, args: tuple, kwargs: Mapping[str, Any], embed: Embed) -> Any:
        """Run the model once, and let `embed` replace what each of its embeddings returns.

        By default, all `nn.Embed` of linen that run are found.
        """
        return watch_embeddings(functools.partial(self.call, *args, **kwargs), embed)

    def state_of(self, state: Any) -> Any:
        """Return what `with_state` takes, from what a training loop holds; of None the model's own, or None if it has none."""
        return self.parameters if state is None else state

    def with_state(self, state: Any) -> Model:
        """Return the model with a state of its training, as `state_of` returns it."""
        return self.bind(state)

    def split(self) -> tuple[Hashable, Any] | None:
        """Return what a compiled program of the model depends on, and the arrays that it is given anew at each run.

        Models with equal structures run the same program, each on its own arrays, so the structure must hold all else that
        the result depends on, and no array. None: that cannot be told, and the model runs operation by operation.
        """
        return None

    def merge(self, arrays: Any) -> Model:
        """Return the model with other arrays, of the structure of those that `split` returns; they may be traced."""
        return self.bind(arrays)

    def generate(
        self, inputs: Mapping[str, np.ndarray], *, max_new_tokens: int | None, num_beams: int, sample: bool, seed: int
    ) -> Int[np.ndarray, " token"] | None:
        """Let the model generate by a method of its own; None if it has none, or needs none: it generates by its logits."""
        return None


def name_arguments(function: Callable, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a function's arguments by name, also those that it takes as `**rest`; those that it does not take left out."""
    try:
        signature = _signature(function)
    except ValueError:  # written in C, or wrapped in something that is
        return dict(kwargs)
    parameters = signature.parameters
    rest = next((name for name, each in parameters.items() if each.kind is inspect.Parameter.VAR_KEYWORD), None)
    named = {name: value for name, value in kwargs.items() if rest is not None or name in parameters}
    found = signature.bind_partial(*args, **named).arguments
    return {**found, **found.pop(rest)} if rest in found else found


def _signature(function: Callable) -> inspect.Signature:
    """Return a function's signature; those of functions and methods are kept as long as these live."""
    is_method = inspect.ismethod(function)
    plain = getattr(function, "__func__", function) if is_method else function
    if not inspect.isfunction(plain):
        return inspect.signature(function)
    kept = _signatures.setdefault(plain, {})
    if is_method not in kept:
        kept[is_method] = inspect.signature(function)
    return kept[is_method]


_signatures: weakref.WeakKeyDictionary[Callable, dict[bool, inspect.Signature]] = weakref.WeakKeyDictionary()


def said_key(model: Model) -> Hashable:
    """Return what the user says of a model as a part of what `Model.split` returns."""
    return (None if model.roles is None else tuple(model.roles.items())), model.mixing, model.sown


def model_name(model: Any) -> str:
    """Return the name of a function, or of a model's class."""
    while isinstance(model, functools.partial):
        model = model.func
    owner = model.__self__ if inspect.ismethod(model) else model
    return getattr(owner, "__name__", None) or type(owner).__name__


def watch_embeddings(call: Callable[[], Any], embed: Embed) -> Any:
    """Run `call`, and let `embed` replace what each `nn.Embed` in it returns."""

    def intercept(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        outputs = call(*args, **kwargs)
        if not isinstance(module, nn.Embed) or context.method_name != "__call__":
            return outputs
        return embed(f"/{'/'.join(module.path)}/", module.num_embeddings, (*args, *kwargs.values()), outputs)

    with nn.intercept_methods(intercept):
        return call()
