"""A model in, its attention out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxflow._attention import Attention
from jaxflow.capture._huggingface import capture_huggingface
from jaxflow.capture._jaxpr import capture_traced
from jaxflow.capture._kinds import kind_of
from jaxflow.capture._linen import DEFAULT_NAME, capture_linen
from jaxflow.capture._nnx import capture_nnx
from jaxflow.capture._recompute import attention_weights
from jaxflow.capture._roles import Role

__all__ = ["attention_weights", "capture"]


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
              layers must declare `variable_axes={"intermediates": 0}`;
            - a `flax.nnx` module, or a method of one. What it sows as `nnx.Intermediate` serves,
              or it is traced. It runs as a copy;
            - any other function, or object that can be called, of which nothing is asked. It is traced, and every softmax of
              queries times keys that weighs values is found in what it computes. Arrays among the arguments are traced; other
              arguments are passed as they are.
        *args: what the model is called with.
        variables: the variables of an unbound linen module, as its `apply` takes them.
        sown: the name under which a linen or NNX module sows its attention. With another name than the default no
            linen module is made to sow: what is sown as `sown` is all that is taken.
        roles: which stack attention belongs to, where that cannot be told or is told wrongly: a fragment of its path ->
            "encoder", "decoder" or "cross", such as `{"": "decoder", "cross": "cross"}`. Of several that fit, the last
            counts; "/" begins and ends a path. A path is that of the module; in a function, the scopes (`jax.named_scope`)
            and jitted functions around the softmax, and then its number in order of execution: `/decoder/layer_0/3/`.
        **kwargs: what the model is called with. A linen module takes those of `apply` too: rngs, method, mutable,
            capture_intermediates.

    Returns:
        What the model returns without capture, and its attention, `[*batch, layer, head, query, key]`:
        probabilities after the softmax and before dropout, in the model's own dtype. A decoder-only model has
        `decoder` alone, an encoder-decoder all three. Of modules, the paths tell ("encoder", "decoder", "cross"
        in a component), and in a decoder whether keys and queries are one array; of functions, what queries and keys are
        computed of. A model of which nothing tells is an `encoder`, causal or not. `attention.backend` says how it
        was taken: "transformers", "linen", "nnx" (sown) or "traced".

    Raises:
        TypeError: `model` is nothing that can be run here.
        ValueError: attention is missing, in whole or in part (fused, not sown, lost in an `nn.scan`, in a `while` or `cond`,
            in chunks); its layers differ in shape; the stack it belongs to cannot be told. The message says what to do.

    Not supported: decoding step by step with a cache. `nn.scan(reverse=True)` gives its layers in reverse. A module
    with `nn.jit` inside is compiled anew by each call of capture; put `jax.jit` around capture instead. A traced function runs
    operation by operation unless `jax.jit` is around capture; its `jax.checkpoint` is without effect in gradients through
    capture, and functions with derivatives of their own have plain ones if attention is inside. With attention sinks, rows
    sum to less than 1.

    >>> import jax, flax.linen as nn
    >>> model = nn.MultiHeadDotProductAttention(num_heads=2)
    >>> x = jax.random.normal(jax.random.key(0), (1, 5, 8))
    >>> variables = model.init(jax.random.key(1), x)
    >>> outputs, attention = capture(model, x, variables=variables)
    >>> outputs.shape, attention.encoder.shape, attention.backend
    ((1, 5, 8), (1, 1, 2, 5, 5), 'linen')
    >>> outputs, attention = capture(lambda x: model.apply(variables, x), x)
    >>> attention.encoder.shape, attention.backend
    ((1, 1, 2, 5, 5), 'traced')

    Source: probabilities as in Metzger et al. 2022 (2205.15389), which leaves open how they are obtained.
    """
    kind = kind_of(model, variables=variables, sown=sown, roles=roles)
    if kind == "transformers":
        return capture_huggingface(model, args, kwargs)
    if kind == "linen":
        return capture_linen(model, args, kwargs, variables=variables, sown=sown, roles=roles)
    if kind == "nnx":
        return capture_nnx(model, args, kwargs, sown=sown, roles=roles)
    return capture_traced(model, args, kwargs, roles=roles)
