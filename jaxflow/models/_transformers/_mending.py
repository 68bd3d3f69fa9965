"""Mend the classes of transformers that do not run on today's JAX, or do not compute what their configuration says.

Flax method interceptors do it. They belong to the thread, and what they change is the copy of a module that flax makes for one
`apply`: no module of Python, no class and no other thread ever sees it, and nothing is left when the model raises.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn

from jaxflow.models._transformers._llama import is_llama, mend_llama
from jaxflow.models._transformers._t5 import is_t5, mend_t5


@contextlib.contextmanager
def mended() -> Iterator[None]:
    """Make a context in which this thread can build and run T5, Llama, Mistral and Gemma as they are meant."""
    with nn.intercept_methods(mend_t5), nn.intercept_methods(mend_llama):
        yield


def mend_model(model: Any) -> None:
    """Let `model` run outside of that context too, if it is one of those: its module brings the context along.

    `model(...)`, `generate`, `encode`, `decode` and whatever else goes through the module's `apply` and `init` work.
    """
    if is_t5(type(model.module)) or is_llama(type(model.module)):
        model.module_class = _mended_class(type(model.module))  # type: ignore[arg-type]  # enable_gradient_checkpointing builds another
        fields = {field.name: getattr(model.module, field.name) for field in dataclasses.fields(model.module)}
        del fields["parent"], fields["name"]
        model._module = model.module_class(**fields)


@functools.cache  # flax modules of two classes are never equal, and jit would compile anew
def _mended_class(module_class: type[nn.Module]) -> type[nn.Module]:
    class Mended(module_class):  # type: ignore[misc, valid-type]
        @nn.nowrap
        def apply(self, *args: Any, **kwargs: Any) -> Any:
            with mended():
                return super().apply(*args, **kwargs)

        @nn.nowrap
        def init_with_output(self, *args: Any, **kwargs: Any) -> Any:
            with mended():
                return super().init_with_output(*args, **kwargs)

    Mended.__name__ = Mended.__qualname__ = module_class.__name__
    return Mended
