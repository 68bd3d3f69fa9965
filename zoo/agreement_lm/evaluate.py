"""Whether verbs agree, and whether sentences are finished as the grammar would finish them."""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxflow.zoo.agreement_lm import BOS, VOCABULARY, AgreementDecoder, endings
from zoo.agreement_lm.grammar import Sentence, is_ending

_BATCH = 256
_NUMBER = {word: i for i, word in enumerate(VOCABULARY)}
_FORMS = np.array([[_NUMBER[pair[number]] for pair in endings.VERBS] for number in (0, 1)])


def encode(sentences: Sequence[Sentence], max_length: int) -> Int[np.ndarray, "sentence token"]:
    """Number the words of whole sentences, [BOS] first: int32, padded to `max_length`."""
    ids = np.zeros((len(sentences), max_length), np.int32)
    for row, sentence in zip(ids, sentences, strict=True):
        words = (BOS, *sentence.start.words, *sentence.ending)
        row[: len(words)] = [_NUMBER[word] for word in words]
    return ids


def verb_number(
    module: AgreementDecoder, sentences: Sequence[Sentence], *, params: Any, outer: bool = False
) -> Int[np.ndarray, " sentence"]:
    """Tell in which number the model would write a verb: 0 if all singular forms together are likelier, 1 else.

    Args:
        module: The decoder.
        sentences: What it reads up to that verb.
        params: Its parameters.
        outer: Ask for the verb after an open relative clause, which the sentences must have, with all words before it.
    """
    before = np.array([len(sentence.start.words) for sentence in sentences])
    if outer:
        before += [_outer_verb(sentence) for sentence in sentences]
    logits = _logits_after(module, encode(sentences, module.max_length), before, params=params)
    return np.logaddexp.reduce(logits[:, _FORMS], axis=-1).argmax(-1)


def write(module: AgreementDecoder, sentences: Sequence[Sentence], *, params: Any) -> list[tuple[str, ...]]:
    """Let the model finish sentences by the likeliest word each time, up to the full stop or `endings.MAX_ENDING` words."""
    ids = encode(sentences, module.max_length)
    starts = np.array([len(sentence.start.words) + 1 for sentence in sentences])
    ids[np.arange(ids.shape[1]) >= starts[:, None]] = 0
    for n_written in range(endings.MAX_ENDING):
        at = starts + n_written
        ids[np.arange(len(ids)), at] = _logits_after(module, ids, at - 1, params=params).argmax(-1)
    found = []
    for row, start in zip(ids, starts, strict=True):
        words = [VOCABULARY[i] for i in row[start : start + endings.MAX_ENDING]]
        found.append(tuple(words[: words.index(endings.END) + 1] if endings.END in words else words))
    return found


def finished(sentences: Sequence[Sentence], written: Sequence[tuple[str, ...]]) -> tuple[int, float]:
    """Count the sentences whose written ending begins with a verb, and the share of these that the grammar makes.

    Others go on with the noun phrase, which is right too.
    """
    forms = {form for pair in endings.VERBS for form in pair}
    right = [is_ending(s.start, words) for s, words in zip(sentences, written, strict=True) if words[0] in forms]
    return len(right), float(np.mean(right)) if right else 0.0


def _outer_verb(sentence: Sentence) -> int:
    forms = [form for pair in endings.VERBS for form in pair]
    return [i for i, word in enumerate(sentence.ending) if word in forms][1]


def _logits_after(
    module: AgreementDecoder,
    ids: Int[np.ndarray, "sentence token"],
    positions: Int[np.ndarray, " sentence"],
    *,
    params: Any,
) -> Float[np.ndarray, "sentence label"]:
    found = []
    for start in range(0, len(ids), _BATCH):
        rows, at = ids[start : start + _BATCH], positions[start : start + _BATCH]
        missing = _BATCH - len(rows)  # One shape, compiled once.
        logits = _logits(module, params, np.pad(rows, ((0, missing), (0, 0))), np.pad(at, (0, missing)))
        found.append(np.asarray(logits)[: len(rows)])
    return np.concatenate(found)


@partial(jax.jit, static_argnums=0)
def _logits(module: AgreementDecoder, params: Any, ids: jax.Array, positions: jax.Array) -> jax.Array:
    logits = cast(jax.Array, module.apply({"params": params}, ids))
    return jnp.take_along_axis(logits, positions[:, None, None], axis=1)[:, 0]
