"""Make the attention modules of flax.linen sow their weights: `nn.MultiHeadDotProductAttention`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from jaxflow.models._recorder import Recorder

Interceptor = Callable[[Callable, tuple, dict, nn.module.InterceptorContext], Any]
_LINEN_CALL = inspect.unwrap(nn.MultiHeadDotProductAttention.__call__)


def sow_linen(recorder: Recorder) -> Interceptor:
    """Make every `nn.MultiHeadDotProductAttention` sow its weights: its subclasses and lifted forms too.

    Flax sows them after the softmax and before dropout.
    """
    running: list[nn.Module] = []

    def ask(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if not isinstance(module, nn.MultiHeadDotProductAttention) or context.method_name != "__call__":
            return call(*args, **kwargs)
        # Subclasses have signatures of their own; nearly all end in flax's own method, where weights are asked for.
        flaxs_own = getattr(context.orig_method, "func", None) is _LINEN_CALL
        lifted = module.scope is not None and module.scope.path_text.endswith(")")  # its inputs were replaced
        if flaxs_own and not lifted:
            recorder.self_attention.setdefault(module.path, set()).add(_attends_to_itself(*args, **kwargs))
        outermost = all(module.path != other.path for other in running)
        n_recorded = recorder.n_recorded
        running.append(module)
        try:
            outputs = _sowing(call, args, kwargs, module, recorder) if flaxs_own else call(*args, **kwargs)
        finally:
            running.pop()
        if outermost and recorder.n_recorded == n_recorded:
            recorder.silent[module.path] = _why_silent(module)
        return outputs

    return ask


def _sowing(
    call: Callable, args: tuple, kwargs: dict, module: nn.MultiHeadDotProductAttention, recorder: Recorder
) -> Any:
    # Flax hands `module` on without looking: a function that does not take it would raise a TypeError.
    if kwargs.get("sow_weights") or not _can_sow(module):
        return call(*args, **kwargs)
    recorder.forced.append(module)
    try:
        return call(*args, **{**kwargs, "sow_weights": True})
    finally:
        recorder.forced.pop()


def _can_sow(module: nn.MultiHeadDotProductAttention) -> bool:
    return "module" in inspect.signature(module.attention_fn).parameters


def _attends_to_itself(
    inputs_q: Any, inputs_k: Any = None, inputs_v: Any = None, *, inputs_kv: Any = None, **_: Any
) -> bool:
    keys = inputs_k if inputs_kv is None else inputs_kv
    return keys is None or keys is inputs_q


def _why_silent(module: nn.MultiHeadDotProductAttention) -> str:
    function = getattr(module.attention_fn, "__qualname__", None) or repr(module.attention_fn)
    if not _can_sow(module):
        return (
            f"attention_fn={function} is fused: it has no parameter `module` to sow its weights into. Build the "
            "model with attention_fn=nn.dot_product_attention for the capture; the trained variables fit"
        )
    return (
        f"{type(module).__name__} with attention_fn={function} sows no weights. Sow them where they are computed, "
        'module.sow("intermediates", "attention_weights", weights)'
    )
