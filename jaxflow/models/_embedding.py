"""A model as a function of its token embeddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import get_opaque_trace_state
from jaxtyping import Array, Float

from jaxflow.models._as_model import as_model
from jaxflow.models._model import Model


def run_embedded(
    model: Model,
    args: tuple,
    kwargs: Mapping[str, Any],
    *,
    embedding: str | None = None,
    added: Mapping[str, Array] | None = None,
) -> tuple[Any, dict[str, Float[Array, "*batch _token _width"]]]:
    """Run a model once, and return what it returns and its token embeddings.

    Args:
        model: its token embeddings are the results of modules: of `nn.Embed` of linen, also inside a function, or of `nnx.Embed`.
        args: what it is called with.
        kwargs: what it is called with.
        embedding: a fragment of the path of the module that embeds tokens; "/" begins and ends a path. By default, it is the
            module with as many rows as the vocabulary has words (`Facts.n_words`), or, where the model does not say, the
            module that is called with one of the model's own inputs.
        added: what is added to the embeddings, by stack.

    Returns:
        Outputs, and the embeddings by stack, "encoder" and "decoder", before anything was added.

    Raises:
        ValueError: no token embedding is found (none is inside a transformation of the model's own that is not `jit`), or more
            than one per stack.
    """
    model = as_model(model)
    stacks = model.facts.stacks

    def run() -> tuple[Any, _Embeddings]:
        leaves = jax.tree.leaves((args, kwargs))
        found = _Embeddings(stacks, embedding, model.facts.n_words, leaves, added or {})
        return model.embed(args, kwargs, found.see), found

    outputs, watcher = run()
    if not watcher.found and (watcher.is_within or not watcher.seen):
        # Inside of a jit of the model's own nothing is known as an input, nothing can be handed out, and nothing runs again.
        with jax.disable_jit():
            outputs, watcher = run()
    if not watcher.seen and not jax.tree.leaves(model.parameters):
        raise ValueError(
            f"{model.name} is a function, and no embedding is seen in what it computes: to differentiate by embeddings, "
            "pass the module that has them. Scores by hiding tokens or by attention need none."
        )
    if not 0 < len(watcher.found) <= len(stacks):
        listed = "\n".join(f"  {line}" for line in watcher.seen) or "  none"
        raise ValueError(
            f"{len(watcher.found)} embeddings of tokens were found in {model.name}; expected one for each of {stacks}. "
            "Name it by a fragment of its path, embedding='/tokens/'; within vmap, remat or scan it cannot be taken. Its "
            f"embeddings, in the order of their calls:\n{listed}"
        )
    return outputs, dict(watcher.found)


@dataclasses.dataclass
class _Embeddings:
    """The embedding modules that run in one call of a model.

    Attributes:
        stacks: as in `Facts`.
        embedding: a fragment of the path of the module that embeds tokens; None if it is told by `n_words` or `given`.
        n_words: the number of its rows; None if it is told by `given`.
        given: the model's inputs: it is called with one of them.
        added: what is added to token embeddings, by stack.
        trace: the trace that the model runs in.
        found: token embeddings, and their stacks.
        seen: a line for each embedding module that ran, for messages.
        is_within: whether one ran in a trace of its own, inside a transformation in the model.
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

    def see(self, path: str, n_rows: int, inputs: Sequence[Any], outputs: Array) -> Array:
        """Take what an embedding module returns, and return what it is to return: the `Embed` of `Model.embed`."""
        if get_opaque_trace_state(convention="flax") != self.trace:
            self.is_within = True
            self.seen.append(f"{path} ({n_rows} rows, within a transformation)")
            return outputs
        self.seen.append(f"{path} ({n_rows} rows)")
        if self.embedding is not None:
            is_token = self.embedding in path
        elif self.n_words is not None:
            is_token = n_rows == self.n_words
        else:
            is_token = any(value is leaf for value in inputs for leaf in self.given)
        if not is_token:
            return outputs
        if self.stacks[-1] == "decoder" and "decoder" in path.split("/"):  # the encoder may read sound, and no tokens
            stack = "decoder"
        else:
            stack = self.stacks[len(self.found)] if len(self.found) < len(self.stacks) else "too many"
        self.found.append((stack, outputs))
        return outputs + self.added[stack] if stack in self.added else outputs
