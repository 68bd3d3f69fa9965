"""Let T5 and MT5 of transformers 4 run on today's JAX, and nothing else notice.

Their relative positions call `jnp.clip(x, a_max=...)`, whose keywords JAX 0.10 took away. A flax method interceptor
gives each attention module, at the moment it computes its bias, that one function over a `jnp` whose `clip` still has
them.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

MODULE = "transformers.models.t5.modeling_flax_t5"  # MT5 runs its classes


def is_t5(module_class: type) -> bool:
    """Whether modules of this class are T5 or MT5 of transformers."""
    return any(cls.__module__ == MODULE for cls in module_class.__mro__)


def mend_t5(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
    """Run a method of any module; a method interceptor that mends those of T5."""
    module: Any = context.module
    if context.method_name == "compute_bias" and is_t5(type(module)):
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
