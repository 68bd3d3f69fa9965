"""A model as a function of its token embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from flax.core.scope import union_filters
from jaxtyping import Array, Float

from jaxflow.capture.huggingface import is_huggingface
from jaxflow.capture.roles import is_decoder
from jaxflow.capture.t5 import mended_t5


def run_embedded(
    model: Any,
    args: tuple,
    kwargs: dict,
    *,
    variables: Mapping | None = None,
    embedding: str | None = None,
    added: Mapping[str, Array] | None = None,
) -> tuple[Any, dict[str, Float[Array, "*batch token width"]]]:
    """Run a model once, and return what it returns and its token embeddings.

    Args:
        model: a Flax class of transformers 4, or a linen module, bound or with `variables`.
        args: what it is called with.
        kwargs: what it is called with.
        variables: of an unbound linen module.
        embedding: a fragment of the path of the `nn.Embed` that embeds tokens; "/" begins and ends a path. By default, in
            transformers the one as large as the vocabulary, in other modules the one called with an input of the model itself.
        added: what is added to the embeddings, by stack.

    Returns:
        Outputs, and the embeddings by stack, "encoder" and "decoder", before anything was added.

    Raises:
        ValueError: no token embedding is found, or more than one per stack.
    """
    found: list[tuple[str, Array]] = []
    seen: list[str] = []
    given = jax.tree.leaves((args, kwargs))
    stacks = _stacks(model)

    def intercept(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        outputs = call(*args, **kwargs)
        if not isinstance(module, nn.Embed) or context.method_name != "__call__":
            return outputs
        path = f"/{'/'.join(module.path)}/"
        seen.append(f"{path} ({module.num_embeddings} rows)")
        if embedding is not None:
            is_token = embedding in path
        elif is_huggingface(model):
            is_token = module.num_embeddings == model.config.vocab_size
        else:
            is_token = any(value is leaf for value in (*args, *kwargs.values()) for leaf in given)
        if not is_token:
            return outputs
        if stacks[-1] == "decoder" and "decoder" in module.path:  # the encoder may read no tokens, but sound
            stack = "decoder"
        else:
            stack = stacks[len(found)] if len(found) < len(stacks) else "too many"
        found.append((stack, outputs))
        return outputs if added is None or stack not in added else outputs + added[stack]

    with nn.intercept_methods(intercept), mended_t5():
        outputs = call_model(model, args, kwargs, variables)
    if not 0 < len(found) <= len(stacks):
        listed = "\n".join(f"  {path}" for path in seen) or "  none"
        raise ValueError(
            f"{len(found)} embeddings of tokens were found in {type(model).__name__}; expected one for each of {stacks}. Name it "
            f"by a fragment of its path, embedding='/tokens/'. Its nn.Embed, in the order of their calls:\n{listed}"
        )
    return outputs, dict(found)


def call_model(model: Any, args: Sequence[Any], kwargs: Mapping[str, Any], variables: Mapping | None) -> Any:
    """Return what a model returns, without change to what it is bound with.

    Raises:
        TypeError: a model that is not supported here.
        ValueError: variables that are missing, or given to a model that has its own.
    """
    if is_huggingface(model):
        if variables is not None:
            raise ValueError(f"{type(model).__name__} holds its own parameters: other ones go in as params=.")
        return model(*args, **kwargs)
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"got {type(model).__name__}; expected an instance of a Flax class of transformers 4, or a flax.linen module "
            "(bound, or with variables=)."
        )
    scope = model.scope
    if scope is None:
        if variables is None:
            raise ValueError(f"{type(model).__name__} is unbound: pass variables=, or bind it first.")
        return model.apply(variables, *args, **kwargs)
    if variables is not None:
        raise ValueError(f"{type(model).__name__} is bound and holds its own variables: leave out variables=.")
    module, variables = model.unbind()
    mutable = union_filters(scope.mutable, ())
    return module.apply(variables, *args, **{"rngs": dict(scope.rngs), **kwargs}, mutable=mutable)[0]


def first_stack(model: Any) -> str:
    """Return the stack whose tokens a model is given first."""
    return _stacks(model)[0]


def _stacks(model: Any) -> tuple[str, ...]:
    config = getattr(model, "config", None)
    if not is_huggingface(model):
        if hasattr(model, "decoder_start_token_id"):
            return ("encoder", "decoder")
        return ("decoder",) if hasattr(model, "eos_token_id") else ("encoder",)  # a model that writes says how it ends
    if getattr(config, "is_encoder_decoder", False):
        return ("encoder", "decoder")  # in the order in which all of them run
    return ("decoder",) if is_decoder(config) else ("encoder",)
