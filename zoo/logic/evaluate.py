"""Let a model answer many formulas, and let the checker judge every answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxflow.zoo.logic import Formula, FormulaTokenizer, FormulaTransformer, Language
from zoo.command import Table
from zoo.logic.data import Example

_BATCH = 256


def answers(
    module: FormulaTransformer, formulas: Sequence[Formula], tokenizer: FormulaTokenizer, *, params: Any
) -> list[list[str]]:
    """Let the model write an answer to each formula, the likeliest token each time, up to its end token or its last position."""
    rows = tokenizer([str(formula) for formula in formulas])["input_ids"]
    written: list[list[str]] = []
    for start in range(0, len(formulas), _BATCH):
        ids = rows[start : start + _BATCH]
        n_rows = len(ids)
        ids = np.pad(ids, ((0, _BATCH - n_rows), (0, module.n_source - ids.shape[1])))  # One shape, compiled once.
        for row in np.asarray(_greedy(module, params, ids))[:n_rows]:
            end = np.append(row, tokenizer.eos_token_id).tolist().index(tokenizer.eos_token_id)
            written.append(tokenizer.convert_ids_to_tokens(row[1:end]))
    return written


@partial(jax.jit, static_argnums=0)
def _greedy(
    module: FormulaTransformer, params: Any, input_ids: Int[Array, "batch source"]
) -> Int[Array, "batch target"]:
    bound = module.bind({"params": params})
    memory = bound.read(input_ids, input_ids != 0)

    def goes_on(state: tuple[Array, Array]) -> Array:
        i, tokens = state
        return (i < module.n_target - 1) & ~(tokens == module.eos_token_id).any(1).all()

    def write(state: tuple[Array, Array]) -> tuple[Array, Array]:
        i, tokens = state
        logits = bound.write(tokens, memory, input_ids != 0)
        return i + 1, tokens.at[:, i + 1].set(logits[:, i].argmax(-1).astype(tokens.dtype))

    tokens = jnp.zeros((len(input_ids), module.n_target), jnp.int32).at[:, 0].set(module.decoder_start_token_id)
    return jax.lax.while_loop(goes_on, write, (jnp.int32(0), tokens))[1]


def right(language: Language, examples: Sequence[Example], written: Sequence[Sequence[str]]) -> np.ndarray:
    """Judge answers: bool [example], False also for what is no answer at all."""

    def judge(example: Example, symbols: Sequence[str]) -> bool:
        try:
            trace = language.read(symbols)
        except ValueError:
            return False
        return language.is_right(example.formula, trace)

    return np.array([judge(example, symbols) for example, symbols in zip(examples, written, strict=True)])


def accuracy_table(examples: Sequence[Example], judged: np.ndarray) -> Table:
    """Count what is right, for all examples and by the size of the formula."""
    sizes = np.array([len(example.formula.symbols()) for example in examples])
    groups = [("all", sizes > 0), *((f"{size} symbols", sizes == size) for size in np.unique(sizes))]
    return [(name, int(group.sum()), float(judged[group].mean())) for name, group in groups]
