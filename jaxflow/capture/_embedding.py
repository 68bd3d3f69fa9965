"""A model as a function of its token embeddings."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax.extend.core import get_opaque_trace_state
from jaxtyping import Array, Float

from jaxflow.capture._calling import call_model, checked_kind
from jaxflow.capture._huggingface import is_huggingface
from jaxflow.capture._jaxpr import model_name
from jaxflow.capture._nnx import copied, is_nnx, method_of
from jaxflow.capture._roles import is_decoder
from jaxflow.capture._t5 import mended_t5

# An embedding, its path, what it is called with and what it returns -> what it is to return.
Embed = Callable[[Any, str, Sequence[Any], Array], Array]


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
        model: a Flax class of transformers 4, a linen module, bound or with `variables`, an NNX module or a method of one, or a
            function that calls linen modules.
        args: what it is called with.
        kwargs: what it is called with.
        variables: of an unbound linen module.
        embedding: a fragment of the path of the `nn.Embed` or `nnx.Embed` that embeds tokens; "/" begins and ends a path. By
            default, in transformers the one as large as the vocabulary, in other modules the one called with an input of
            the model itself.
        added: what is added to the embeddings, by stack.

    Returns:
        Outputs, and the embeddings by stack, "encoder" and "decoder", before anything was added.

    Raises:
        ValueError: no token embedding is found, as inside of a transformation of the model's own that is no `jit`, or more than
            one per stack.
    """
    kind, stacks = checked_kind(model, variables), _stacks(model)
    n_words = getattr(model.config, "vocab_size", None) if kind == "transformers" else None

    def run() -> tuple[Any, _Embeddings]:
        watcher = _Embeddings(stacks, embedding, n_words, jax.tree.leaves((args, kwargs)), added or {})
        if kind == "nnx":
            return _watch_nnx(model, args, kwargs, watcher.see), watcher
        return _watch_linen(model, args, kwargs, variables, watcher.see), watcher

    outputs, watcher = run()
    if not watcher.found and (watcher.is_within or not watcher.seen):
        # Inside of a jit of the model's own nothing is known as an input, nothing can be handed out, and nothing runs again.
        with jax.disable_jit():
            outputs, watcher = run()
    if kind == "traced" and not watcher.seen:
        raise ValueError(
            f"{model_name(model)} is a function, and no embedding is seen in what it computes: to differentiate by embeddings, "
            "pass the module that has them. Scores by hiding tokens or by attention need none."
        )
    if not 0 < len(watcher.found) <= len(stacks):
        listed = "\n".join(f"  {line}" for line in watcher.seen) or "  none"
        raise ValueError(
            f"{len(watcher.found)} embeddings of tokens were found in {model_name(model)}; expected one for each of {stacks}. "
            "Name it by a fragment of its path, embedding='/tokens/'; within vmap, remat or scan it cannot be taken. Its "
            f"embeddings, in the order of their calls:\n{listed}"
        )
    return outputs, dict(watcher.found)


@dataclasses.dataclass
class _Embeddings:
    """What is seen of a model's embeddings while it runs once.

    Attributes:
        stacks: those whose tokens the model reads, in the order in which they run.
        embedding: a fragment of the path of that of tokens, where it is said.
        n_words: its number of rows, where it is known by that.
        given: the model's inputs, one of which it is called with, where it is known by neither.
        added: what is added, by stack.
        trace: in which the model runs.
        found: the embeddings of tokens, and their stacks.
        seen: a line for each embedding.
        is_within: whether one ran in a trace of its own, inside of a transformation in the model.
    """

    stacks: tuple[str, ...]
    embedding: str | None
    n_words: int | None
    given: Sequence[Any]
    added: Mapping[str, Array]
    trace: Any = dataclasses.field(default_factory=lambda: get_opaque_trace_state(convention="flax"))
    found: list[tuple[str, Array]] = dataclasses.field(default_factory=list)
    seen: list[str] = dataclasses.field(default_factory=list)
    is_within: bool = False

    def see(self, module: Any, path: str, inputs: Sequence[Any], outputs: Array) -> Array:
        """Take what an embedding returns, and return what it is to return."""
        if get_opaque_trace_state(convention="flax") != self.trace:
            self.is_within = True
            self.seen.append(f"{path} ({module.num_embeddings} rows, within a transformation)")
            return outputs
        self.seen.append(f"{path} ({module.num_embeddings} rows)")
        if self.embedding is not None:
            is_token = self.embedding in path
        elif self.n_words is not None:
            is_token = module.num_embeddings == self.n_words
        else:
            is_token = any(value is leaf for value in inputs for leaf in self.given)
        if not is_token:
            return outputs
        if self.stacks[-1] == "decoder" and "decoder" in path.split("/"):  # the encoder may read no tokens, but sound
            stack = "decoder"
        else:
            stack = self.stacks[len(self.found)] if len(self.found) < len(self.stacks) else "too many"
        self.found.append((stack, outputs))
        return outputs + self.added[stack] if stack in self.added else outputs


def _watch_linen(model: Any, args: tuple, kwargs: dict, variables: Mapping | None, embed: Embed) -> Any:
    """Call a model that is no NNX module, and hand over what its `nn.Embed` return."""

    def intercept(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        outputs = call(*args, **kwargs)
        if not isinstance(module, nn.Embed) or context.method_name != "__call__":
            return outputs
        return embed(module, f"/{'/'.join(module.path)}/", (*args, *kwargs.values()), outputs)

    with nn.intercept_methods(intercept), mended_t5():
        return call_model(model, *args, variables=variables, **kwargs)


def _watch_nnx(model: Any, args: tuple, kwargs: dict, embed: Embed) -> Any:
    """Call a copy of an NNX module, and hand over what its `nnx.Embed` return."""
    from flax import nnx

    method, copy = copied(model)
    embeddings: list[tuple[Any, Any]] = [found for found in nnx.iter_modules(copy) if isinstance(found[1], nnx.Embed)]
    for path, part in embeddings:
        part.__class__ = _watched(part.__class__)
        part.watch = functools.partial(embed, part, f"/{'/'.join(map(str, path))}/")
    return method(copy, *args, **kwargs)


@functools.cache
def _watched(kind: type) -> type:
    """Make a class of embeddings that hand over what they return."""

    class Watched(kind):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.watch((*args, *kwargs.values()), super().__call__(*args, **kwargs))

    return Watched


def first_stack(model: Any) -> str:
    """Return the stack whose tokens a model is given first."""
    return _stacks(model)[0]


def _stacks(model: Any) -> tuple[str, ...]:
    config = getattr(model, "config", None)
    if not is_huggingface(model):
        owner = method_of(model)[1] if is_nnx(model) else model
        if hasattr(owner, "decoder_start_token_id"):
            return ("encoder", "decoder")
        return ("decoder",) if hasattr(owner, "eos_token_id") else ("encoder",)  # a model that writes says how it ends
    if getattr(config, "is_encoder_decoder", False):
        return ("encoder", "decoder")  # in the order in which all of them run
    return ("decoder",) if is_decoder(config) else ("encoder",)
