"""capture: a model -> its attention."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from jaxflow._attention import Attention
from jaxflow.capture._head_reduction import Heads, reduce_heads, run_reduced
from jaxflow.capture._mixing import remarked
from jaxflow.capture._recorded import record_stacks
from jaxflow.capture._recorded_check import check_recorded, records
from jaxflow.capture._traced import trace_model, trace_unrecorded
from jaxflow.models import DEFAULT_NAME, Model, Role, as_model, check_token_ids


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
            - a `flax.linen` module, bound, or unbound with `variables`. It need not have been written for this:
              `nn.MultiHeadDotProductAttention` is made to sow its weights, and modules that compute attention by themselves may:
              `self.sow("intermediates", "attention_weights", weights)`. A module that does not sow all its attention is traced;
            - a `flax.nnx` module, or a method of one. What it sows as `nnx.Intermediate` serves,
              or it is traced. It runs as a copy;
            - any other function, or object that can be called. It is traced, and every softmax of queries times keys that
              weighs values is found in what it computes. Arrays among the arguments are traced; other arguments are passed as
              they are;
            - an instance of a Flax class of transformers 4;
            - a `Model`, such as `as_model` returns.
        *args: what the model is called with.
        variables: the variables of an unbound linen module, as its `apply` takes them.
        sown: the name under which a linen or NNX module sows its attention. With another name than the default, modules are
            not made to sow: only what is sown as `sown` is taken.
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
        computed of. A model of which nothing tells is an `encoder`, causal or not. Queries that read another sequence and
        never each other, such as the learned ones of pooling by attention, are a decoder whose tokens see themselves alone.
        `attention.backend` says how it was taken: "transformers", "linen", "nnx" (sown) or "traced".

    Raises:
        TypeError: `model` is nothing that can be run here.
        ValueError: attention is missing, in whole or in part (fused, in a `while` or `cond`, in chunks); its layers differ in
            shape; the stack it belongs to cannot be told; tokens are mixed by something other than attention, and
            `as_model(model, mixing="accept")` does not say that this is accepted. The message says what to do.

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
    adapted = as_model(model, variables=variables, sown=sown, roles=roles)
    check_token_ids(adapted, args, kwargs)
    return run_capture(adapted, args, kwargs)


def run_capture(
    model: Model, args: tuple, kwargs: Mapping[str, Any], *, heads: Heads | None = None
) -> tuple[Any, Attention]:
    """Run a model once and take its attention, of all heads or with one head made of all.

    Args:
        model: the model.
        args: what it is called with.
        kwargs: what it is called with.
        heads: how heads are reduced to one, as in `joint_capacities`; None keeps all. A model that records its attention
            reduces the heads of each layer as soon as they are computed, so that those of one layer are held at a time.

    Returns:
        What the model returns, and its attention, `[*batch, layer, head, query, key]`. Reduced heads are float32 at least;
        rows sum to 1 if those of `heads` do.

    Raises:
        ValueError: as `capture`; heads that do not exist.
    """
    if records(model):
        checked = check_recorded(model, args, kwargs)
        run = functools.partial(record_stacks, model, args, kwargs)
        recorded = None if not checked.serves else run() if heads is None else run_reduced(run, heads)
        if recorded is not None:
            return recorded.outputs, remarked(recorded.attention, checked.mixing)
        outputs, attention = trace_unrecorded(model, args, kwargs, checked.error).run({})
    else:
        outputs, attention = trace_model(model, args, kwargs).run({})
    return outputs, attention if heads is None else reduce_heads(attention, heads)
