"""How often the model is right, by number of attractors, and how often a rule of thumb is."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import jax
import numpy as np

from jaxflow.zoo._tokenizer import WordTokenizer
from jaxflow.zoo.agreement import AgreementEncoder
from zoo.agreement.grammar import MAX_ATTRACTORS, Example

_BATCH = 256


def encode(examples: Sequence[Example], tokenizer: WordTokenizer) -> np.ndarray:
    """Number the words of examples: int32 [example, model_max_length], padded."""
    input_ids = tokenizer([example.text for example in examples])["input_ids"]
    missing = tokenizer.model_max_length - input_ids.shape[1]
    return np.pad(input_ids, ((0, 0), (0, missing)), constant_values=tokenizer.pad_token_id)


def predict(module: AgreementEncoder, input_ids: np.ndarray, *, params: Any) -> np.ndarray:
    """Give the likelier number (0 singular, 1 plural) for each row: int64 [example]."""
    predicted = []
    for start in range(0, len(input_ids), _BATCH):
        rows = input_ids[start : start + _BATCH]
        full = np.pad(rows, ((0, _BATCH - len(rows)), (0, 0)))  # One shape, compiled once.
        logits = np.asarray(_logits(module, params, full))[: len(rows)]
        predicted.append(logits.argmax(-1))
    return np.concatenate(predicted)


@partial(jax.jit, static_argnums=0)  # Compiled once for a module, however often it is measured.
def _logits(module: AgreementEncoder, params: Any, input_ids: jax.Array) -> jax.Array:
    return cast(jax.Array, module.apply({"params": params}, input_ids))


def without_attention(params: Any, *, layer: int) -> Any:
    """Give the parameters with which the attention of one layer (from 0) adds nothing to the residual stream."""
    name = f"layer_{layer}"
    attention = params[name]["attention"]
    silent = {**attention, "out": jax.tree.map(np.zeros_like, attention["out"])}
    return {**params, name: {**params[name], "attention": silent}}


def accuracy_table(examples: Sequence[Example], predicted: np.ndarray) -> list[tuple[str, int, float]]:
    """Count what is right.

    Args:
        examples: Sentences with their labels.
        predicted: A number for each, as of `predict`.

    Returns:
        Rows of (which sentences, how many of them, share predicted right in [0, 1]): all, with attractors
        of the other number, by number of attractors, by number of attractors of the other number. Rows of
        no sentence are left out.
    """
    right = np.asarray([example.number for example in examples]) == predicted
    n_attractors = np.asarray([len(example.attractors) for example in examples])
    n_other = np.asarray([example.n_other for example in examples])
    groups = [("all", n_attractors >= 0), ("attractors of the other number", n_other > 0)]
    groups += [(f"{_count(n)}", n_attractors == n) for n in range(MAX_ATTRACTORS + 1)]
    groups += [(f"{_count(n)} of the other number", n_other == n) for n in range(1, MAX_ATTRACTORS + 1)]
    return [(name, int(group.sum()), float(right[group].mean())) for name, group in groups if group.any()]


def _count(n: int) -> str:
    return "1 attractor" if n == 1 else f"{n} attractors"


def _last_noun(example: Example) -> int:
    return max([(example.subject, example.number), *_attractors(example)])[1]


def _first_noun(example: Example) -> int:
    return min([(example.subject, example.number), *_attractors(example)])[1]


def _most_nouns(example: Example) -> int:
    numbers = [example.number, *example.attractor_numbers]
    return int(2 * sum(numbers) > len(numbers))


def _attractors(example: Example) -> list[tuple[int, int]]:
    return list(zip(example.attractors, example.attractor_numbers, strict=True))


RULES_OF_THUMB: dict[str, Callable[[Example], int]] = {
    "number of the last noun": _last_noun,
    "number of the first noun": _first_noun,
    "number of most nouns": _most_nouns,
}
"""What a model could do without syntax, each from an example to a number."""
