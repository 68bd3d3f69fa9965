"""Ask attention modules for their weights: those of flax.linen, and those in the Flax classes of transformers.

Each function makes a flax method interceptor that gets the weights out of a module, and hands back to the
module's caller exactly what that had asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from jaxflow.capture._roles import transformers_role
from jaxflow.capture._sown import Recorder

Interceptor = Callable[[Callable, tuple, dict, nn.module.InterceptorContext], Any]
# What the configs of transformers call the dropout of attention; "dropout_rate" is T5's, for all there is.
DROPOUT = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop", "dropout_rate")
_LINEN_CALL = inspect.unwrap(nn.MultiHeadDotProductAttention.__call__)


def ask_linen(recorder: Recorder) -> Interceptor:
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


def ask_transformers(recorder: Recorder) -> Interceptor:
    """Make the attention modules of transformers return their weights, and keep those of the innermost ones.

    Most return weights if asked with `output_attentions=True`; the Wav2Vec2, Bart and OPT families always do. Either
    way they are the last of a tuple. Nested attention modules (BertAttention around BertSelfAttention) hand the
    same weights on, so only the innermost is heard.

    Raises:
        ValueError: dropout is active: these modules return their weights after it, which is no attention.
    """
    n_calls = 0

    def ask(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        nonlocal n_calls
        module = context.module
        if context.method_name != "__call__" or not _is_transformers_attention(module):
            return call(*args, **kwargs)
        arguments = inspect.signature(context.orig_method).bind(*args, **kwargs)
        arguments.apply_defaults()
        _refuse_dropout(module, arguments.arguments)
        asked = arguments.arguments.get("output_attentions", True)
        if not asked:
            arguments.arguments["output_attentions"] = True
        n_calls = this = n_calls + 1
        outputs = call(*arguments.args, **arguments.kwargs)
        if n_calls == this:  # no attention module ran inside it
            weights = outputs[-1] if isinstance(outputs, tuple) and len(outputs) > 1 else None
            if getattr(weights, "ndim", None) == 4:
                recorder.roles[module.path] = transformers_role(module)
                recorder.record(module, weights)
            else:
                recorder.silent[module.path] = (
                    f"{type(module).__name__} returns no weights of shape [batch, head, query, key]"
                )
        return outputs if asked else outputs[:-1]

    return ask


def _is_transformers_attention(module: nn.Module) -> bool:
    return any(
        cls.__module__.startswith("transformers.") and cls.__name__.endswith("Attention")
        for cls in type(module).__mro__
    )


def _refuse_dropout(module: nn.Module, arguments: dict) -> None:
    config = getattr(module, "config", None)
    rates = [getattr(config, name, 0.0) for name in DROPOUT]
    if not arguments.get("deterministic", True) and any(rates):
        raise ValueError(
            f"{type(module).__name__} runs with attention dropout {max(rates)}, and transformers hands its weights "
            "out after dropout, when they are no probabilities any more. Capture with train=False "
            "(deterministic=True), or set attention dropout to 0 in the config."
        )
