"""Let a model generate: go on from a given text, token by token."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxflow._attention import AnyArray
from jaxflow.models._as_model import as_model
from jaxflow.models._facts import Generation
from jaxflow.models._model import N_NEW_TOKENS, Model
from jaxflow.models._outputs import logits_of
from jaxflow.models._padding import pad_inputs, padded_length
from jaxflow.models._programs import run_once
from jaxflow.models._token_ids import check_token_ids


def generate(
    model: Any,
    inputs: Mapping[str, np.ndarray],
    *,
    max_new_tokens: int | None = None,
    num_beams: int = 1,
    sample: bool = False,
    seed: int = 0,
) -> tuple[Int[np.ndarray, " target"], int]:
    """Let a model generate: a class of transformers by its own `generate`, any other model by its logits.

    A model of the user's own is a bound linen module, an NNX module or a function with these attributes: `eos_token_id`, the
    token that ends the generation; `max_length`, of the longest sequence that its decoder reads; and, with an encoder,
    `decoder_start_token_id`. Called with `input_ids=` (with an encoder also `decoder_input_ids=`) it returns causal logits,
    `[1, token, vocabulary]`. Its attribute `labels` names the tokens.

    Args:
        model: the model.
        inputs: `input_ids [1, token]` and `attention_mask`, as the tokenizer returns them.
        max_new_tokens: at most so many tokens are generated, and no more than fit, of which a warning tells. By default 20 for
            transformers, else as many as fit.
        num_beams: beams of the search, for transformers alone.
        sample: draw tokens instead of taking the likeliest.
        seed: of the draws.

    Returns:
        The decoder's tokens, int64: those that were given first, then the generated ones, up to and with the end token. And
        how many were given.

    Raises:
        ValueError: a model that does not generate, that ends at once, or that has no room left to generate in; a text that
            holds the end token; beams for a model that has none.
    """
    model = as_model(model)
    generation = model.facts.generation
    if generation is None:
        raise ValueError(
            f"{model.name} does not generate: expected a causal or sequence-to-sequence model of transformers 4 "
            "with a language-model head, or one with eos_token_id and max_length. explain takes it as it is."
        )
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; expected 1 or more.")
    check_token_ids(model, (), inputs)
    given: dict[str, np.ndarray] = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
    n_prompt = 1 if generation.has_encoder else given["input_ids"].shape[-1]
    n_new = _n_new(model, given, max_new_tokens)
    sequence = model.generate(given, max_new_tokens=n_new, num_beams=num_beams, sample=sample, seed=seed)
    if sequence is None:
        if num_beams != 1:
            raise ValueError(f"num_beams is {num_beams}; {model.name} takes the likeliest token or draws: 1.")
        sequence = _by_logits(model, generation, given, n_new=n_new, sample=sample, seed=seed)
    ended = np.flatnonzero(np.isin(sequence[n_prompt:], np.asarray(generation.end_tokens, np.int64)))
    if len(ended):
        sequence = sequence[: n_prompt + ended[0] + 1]
    if len(sequence) == n_prompt or (len(ended) and ended[0] == 0):
        raise ValueError(
            f"{model.name} ended at once and wrote nothing: there is no token to explain. Give another text, or a "
            "continuation."
        )
    return sequence, n_prompt


def continued(
    model: Any, inputs: Mapping[str, np.ndarray], tokenizer: Any, continuation: str, *, text: str | None = None
) -> tuple[Int[np.ndarray, " target"], int]:
    """Join what a decoder is given, a prompt or its start token, and a continuation.

    A prompt that is a text is read as one text with its continuation, so that a tokenizer puts blanks where it would. Where the
    tokens of the prompt would be others then, or a word is gone on with, a warning says so.

    Args:
        model: a model that generates, as in `generate`.
        inputs: `input_ids [1, token]`, as the tokenizer returns them.
        tokenizer: the model's; it encodes the continuation.
        continuation: a text.
        text: the prompt, if it is a text.

    Returns:
        The decoder's tokens, int64, and how many of them were given, as in `generate`.

    Raises:
        ValueError: a model that does not generate; an empty continuation.
    """
    model = as_model(model)
    generation = model.facts.generation
    if generation is None:
        raise ValueError(f"{model.name} does not generate, so it continues nothing: leave `continuation` out.")
    if not continuation.strip():
        raise ValueError("The continuation is empty: there is no token to explain.")
    if generation.has_encoder:
        start = generation.start_token
        return np.array([start, *np.ravel(tokenizer(text_target=continuation)["input_ids"])], np.int64), 1
    prompt = np.ravel(inputs["input_ids"])
    written = np.ravel(tokenizer(continuation, add_special_tokens=False)["input_ids"])
    apart = np.array([*prompt, *written], np.int64)
    try:
        whole = apart if text is None else np.ravel(tokenizer([text + continuation])["input_ids"]).astype(np.int64)
    except ValueError:  # of words that stand for themselves
        return apart, len(prompt)
    if len(whole) <= len(prompt) or not np.array_equal(whole[: len(prompt)], prompt):
        warnings.warn(
            "As one text, prompt and continuation would have other tokens where they meet. They are read as they are given, one "
            "after the other.",
            stacklevel=3,
        )
        return apart, len(prompt)
    if text is not None and text[-1:].isalnum() and continuation[:1].isalnum():
        warnings.warn(
            f"The continuation goes on with the last word of the prompt, {text.split()[-1] + continuation.split()[0]!r}. If it "
            f"is to begin a new word, put a blank before it: {' ' + continuation[:20]!r}.",
            stacklevel=3,
        )
    return whole, len(prompt)


def _n_new(model: Model, given: dict[str, np.ndarray], max_new_tokens: int | None) -> int:
    """Return how many tokens are generated at most.

    Raises:
        ValueError: no room for one; a text of a model of the user's own that holds the token that ends what is generated.
    """
    generation = model.facts.generation
    assert generation is not None
    start = [generation.start_token] if generation.has_encoder else given["input_ids"][0].tolist()
    for end in () if model.generates_by_itself else generation.end_tokens:
        if end in start:
            raise ValueError(
                f"The text has the token that ends what {model.name} writes, number {end}: leave it out, so "
                "that there is something to write after it."
            )
    default = N_NEW_TOKENS if generation.max_length is None or model.generates_by_itself else None
    wanted = default if max_new_tokens is None else max_new_tokens
    if generation.max_length is None:
        assert wanted is not None
        return wanted
    room = generation.max_length - len(start)
    if room < 1:
        raise ValueError(
            f"The text is {len(start)} tokens long, all that {model.name} reads and writes: shorten it, so that "
            "there is room for what it writes."
        )
    if max_new_tokens is not None and max_new_tokens > room:
        warnings.warn(
            f"max_new_tokens is {max_new_tokens}, and {model.name} reads and writes {generation.max_length} tokens at most: "
            f"after {len(start)} there is room for {room}, so no more are written.",
            stacklevel=3,
        )
    return room if wanted is None else min(room, wanted)


def _by_logits(
    model: Model, generation: Generation, given: dict[str, np.ndarray], *, n_new: int, sample: bool, seed: int
) -> Int[np.ndarray, " target"]:
    """Generate by a model's logits. Every step reads a sequence of one length, so that one program is compiled."""
    side, start, read = "input_ids", given["input_ids"][0], {}
    if generation.has_encoder:
        side, start, read = "decoder_input_ids", np.array([generation.start_token]), given
    n_longest = padded_length(len(start) + n_new, generation.max_length)
    run = jax.jit(model.call) if model.split() is None else functools.partial(run_once, model)

    def step(tokens: Int[np.ndarray, "1 token"]) -> Float[np.ndarray, "1 token vocabulary"]:
        n_tokens = tokens.shape[1]
        # Attention is causal: what is put behind the tokens is not read.
        inputs = {**read, side: np.pad(tokens, ((0, 0), (0, n_longest - n_tokens)))}
        padded = pad_inputs(model, (), inputs) if read else None
        logits = logits_of(run(**(inputs if padded is None else padded.kwargs)))
        return np.asarray(logits)[:, :n_tokens]

    return generate_with(step, start, max_new_tokens=n_new, ends=generation.end_tokens, sample=sample, seed=seed)


def generate_with(
    step: Callable[[Int[np.ndarray, "1 token"]], Float[AnyArray, "1 token vocabulary"]],
    tokens: Sequence[int] | Int[np.ndarray, " token"],
    *,
    max_new_tokens: int,
    ends: Sequence[int] = (),
    sample: bool = False,
    seed: int = 0,
) -> Int[np.ndarray, " written"]:
    """Generate by any function from tokens to logits, called once per token.

    Args:
        step: `step(tokens [1, token]) -> logits [1, token, vocabulary]`, of which those of the last position are read.
        tokens: `[token]`, given.
        max_new_tokens: at most so many tokens are generated.
        ends: tokens that end the generation; the end is kept.
        sample: draw tokens instead of taking the likeliest.
        seed: of the draws.

    Returns:
        `[written]`, given and generated, int64.

    Raises:
        ValueError: nothing given, nothing to generate, logits of another shape.

    Example:
        >>> import jax
        >>> generate_with(lambda tokens: jax.nn.one_hot(tokens + 1, 9), [2, 3], max_new_tokens=4, ends=[5])
        array([2, 3, 4, 5])
    """
    sequence = np.asarray(tokens, np.int64)
    if sequence.ndim != 1 or not len(sequence):
        raise ValueError(f"tokens has shape {sequence.shape}; expected one sequence of at least one token, [token].")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; expected 1 or more.")
    keys = jax.random.split(jax.random.key(seed), max_new_tokens)
    for key in keys:
        logits = step(sequence[None])
        if np.ndim(logits) != 3 or np.shape(logits)[:2] != (1, len(sequence)):
            raise ValueError(
                f"step returned logits of shape {np.shape(logits)} for {len(sequence)} tokens; expected "
                f"(1, {len(sequence)}, vocabulary)."
            )
        last = logits[0, -1]
        token = int(jax.random.categorical(key, last) if sample else np.argmax(last))
        sequence = np.append(sequence, token)
        if token in ends:
            break
    return sequence
