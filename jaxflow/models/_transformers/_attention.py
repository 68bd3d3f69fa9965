"""Make the attention modules of transformers return their weights, and tell their stacks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from jaxflow.models._recorder import Recorder
from jaxflow.models._recording import Role
from jaxflow.models._sowing import Interceptor
from jaxflow.models._transformers._config import DECODERS, EITHER, is_decoder

CROSS = ("crossattention", "encoder_attn", "EncDecAttention")  # names of their modules for cross-attention
# What the configs of transformers call the dropout of attention; "dropout_rate" is T5's, for all there is.
DROPOUT = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop", "dropout_rate")


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


def transformers_role(module: nn.Module) -> Role:
    """Tell the stack of an attention module of transformers, by its path and its model's kind."""
    config: Any = getattr(module, "config", None)
    kind = getattr(config, "model_type", None)
    if any(name in CROSS for name in module.path):
        return "cross"
    if kind in DECODERS or kind in EITHER:
        return "decoder" if is_decoder(config) else "encoder"
    return next((name for name in module.path if name in ("encoder", "decoder")), "encoder")
