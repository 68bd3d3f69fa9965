"""A model in, its attention out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from jaxflow.attention import Attention
from jaxflow.capture.huggingface import capture_huggingface, is_huggingface
from jaxflow.capture.linen import DEFAULT_NAME, capture_linen
from jaxflow.capture.roles import Role

__all__ = ["capture"]


def capture(
    model: Any,
    *args: Any,
    variables: Mapping | None = None,
    sown: str = DEFAULT_NAME,
    roles: Mapping[str, Role] | None = None,
    **kwargs: Any,
) -> tuple[Any, Attention]:
    """Run a model once and take the attention of all its layers, in the order in which they ran.

    It costs the plain run and the memory of all weights. A pure function of its array arguments: `jax.jit`,
    `vmap` and `grad` go through it. Nothing is patched, so other threads and later calls see the model as it was.

    Args:
        model: one of
            - an instance of a Flax class of transformers 4;
            - a `flax.linen` module, bound, or unbound with `variables`. It need not have been written for this:
              `nn.MultiHeadDotProductAttention` is made to sow its weights. Modules that compute attention by
              themselves sow it: `self.sow("intermediates", "attention_weights", weights)`. An `nn.scan` over
              layers must declare `variable_axes={"intermediates": 0}`.
        *args: what the model is called with.
        variables: the variables of an unbound linen module, as its `apply` takes them.
        sown: the name under which a linen module sows its attention. With another name than the default no
            module is made to sow: what is sown as `sown` is all that is taken.
        roles: which stack the modules of a linen model belong to, where their paths do not tell or tell it wrongly:
            a fragment of the path -> "encoder", "decoder" or "cross", such as `{"": "decoder", "cross": "cross"}`. Of
            several that fit, the last counts; "/" begins and ends a path.
        **kwargs: what the model is called with. A linen module takes those of `apply` too: rngs, method, mutable,
            capture_intermediates.

    Returns:
        What the model returns without capture, and its attention, `[*batch, layer, head, query, key]`:
        probabilities after the softmax and before dropout, in the model's own dtype. A decoder-only model has
        `decoder` alone, an encoder-decoder all three. Of linen modules, the paths tell ("encoder", "decoder", "cross"
        in a component), and in a decoder whether keys and queries are one array; a model whose paths tell nothing
        is an `encoder`, causal or not.

    Raises:
        TypeError: `model` is nothing that can be run here.
        ValueError: attention is missing, in whole or in part (fused, not sown, lost in an `nn.scan`); its layers
            differ in shape; the stack it belongs to cannot be told. The message says what to do.

    Not supported: decoding step by step with a cache. `nn.scan(reverse=True)` gives its layers in reverse. A module
    with `nn.jit` inside is compiled anew by each call of capture; put `jax.jit` around capture instead.

    >>> import jax, flax.linen as nn
    >>> model = nn.MultiHeadDotProductAttention(num_heads=2)
    >>> x = jax.random.normal(jax.random.key(0), (1, 5, 8))
    >>> variables = model.init(jax.random.key(1), x)
    >>> outputs, attention = capture(model, x, variables=variables)
    >>> outputs.shape, attention.encoder.shape
    ((1, 5, 8), (1, 1, 2, 5, 5))

    Source: probabilities as in Metzger et al. 2022 (2205.15389), which leaves open how they are obtained.
    """
    if is_huggingface(model):
        if variables is not None or sown != DEFAULT_NAME or roles is not None:
            raise ValueError(
                f"{type(model).__name__} holds its own parameters and sows nothing, and its stacks are known: variables=, "
                "sown= and roles= are for linen modules. Other parameters go in as params=."
            )
        return capture_huggingface(model, args, kwargs)
    if isinstance(model, nn.Module):
        return capture_linen(model, args, kwargs, variables=variables, sown=sown, roles=roles)
    raise TypeError(_not_a_model(model))


def _not_a_model(model: Any) -> str:
    accepted = (
        "Accepted: an instance of a Flax class of transformers 4, or a flax.linen module (bound, or with "
        "variables=). Attention that you have as arrays needs no capture: Attention(encoder=array)."
    )
    if isinstance(model, type):
        return f"got the class {model.__name__}; expected an instance of it. {accepted}"
    if isinstance(model, str):
        return f"got the text {model!r}; load the model first: model, tokenizer = load_model({model!r}). {accepted}"
    if any(cls.__module__.startswith("flax.nnx") for cls in type(model).__mro__):
        return f"got the NNX module {type(model).__name__}: not supported yet. {accepted}"
    if callable(model):
        name = getattr(model, "__qualname__", type(model).__name__)
        return f"got the function {name}: plain functions are not supported yet. {accepted}"
    return f"got {type(model).__name__}. {accepted}"
