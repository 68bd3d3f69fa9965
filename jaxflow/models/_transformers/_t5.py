"""Let T5 and MT5 of transformers 4 run on today's JAX, and nothing else notice.

Their relative positions call `jnp.clip(x, a_max=...)`, whose keywords JAX 0.10 took away. A flax method interceptor
gives each attention module, at the moment it computes its bias, that one function over a `jnp` whose `clip` still has
them. Interceptors belong to the thread and the module is the copy that flax makes for one `apply`: no module of
Python, no class and no other thread ever sees it, and nothing is left when the model raises.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

MODULE = "transformers.models.t5.modeling_flax_t5"  # MT5 runs its classes


def mended_t5() -> contextlib.AbstractContextManager[None]:
    """Return a context in which this thread can build and run T5."""
    return nn.intercept_methods(_mend)


def mend_model(model: Any) -> None:
    """Let `model` run outside of that context too, if it is a T5: its module brings the context along.

    `model(...)`, `generate`, `encode`, `decode` and whatever else goes through the module's `apply` and `init` work.
    """
    if _is_t5(type(model.module)):
        model.module_class = _mended_class(type(model.module))  # type: ignore[arg-type]  # enable_gradient_checkpointing builds another
        fields = {field.name: getattr(model.module, field.name) for field in dataclasses.fields(model.module)}
        del fields["parent"], fields["name"]
        model._module = model.module_class(**fields)


@functools.cache  # flax modules of two classes are never equal, and jit would compile anew
def _mended_class(module_class: type[nn.Module]) -> type[nn.Module]:
    class Mended(module_class):  # type: ignore[misc, valid-type]
        @nn.nowrap
        def apply(self, *args: Any, **kwargs: Any) -> Any:
            with mended_t5():
                return super().apply(*args, **kwargs)

        @nn.nowrap
        def init_with_output(self, *args: Any, **kwargs: Any) -> Any:
            with mended_t5():
                return super().init_with_output(*args, **kwargs)

    Mended.__name__ = Mended.__qualname__ = module_class.__name__
    return Mended


def _is_t5(module_class: type) -> bool:
    return any(cls.__module__ == MODULE for cls in module_class.__mro__)


def _mend(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
    module: Any = context.module
    if context.method_name == "compute_bias" and _is_t5(type(module)):
        function = type(module)._relative_position_bucket
        mended = types.FunctionType(
            function.__code__, {**function.__globals__, "jnp": _Numpy()}, function.__name__, function.__defaults__
        )
        object.__setattr__(module, "_relative_position_bucket", mended)  # shadows the class's, in this copy alone
    return call(*args, **kwargs)


class _Numpy:
    """`jax.numpy` with the `clip` of before."""

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    @staticmethod
    def clip(array: Any, a_min: Any = None, a_max: Any = None) -> Any:
        return jnp.clip(array, a_min, a_max)
