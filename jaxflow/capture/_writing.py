"""Let a model write on from what it is given, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jaxflow.capture._targets import logits_of


def generate(
    model: Any,
    inputs: dict[str, np.ndarray],
    *,
    max_new_tokens: int | None = None,
    num_beams: int = 1,
    sample: bool = False,
    seed: int = 0,
) -> tuple[Int[np.ndarray, " target"], int]:
    """Let a model write on: one of transformers by its own `generate`, any other that says how it writes by its logits.

    That other model is a bound linen module, an NNX module or any callable. It has the attributes `eos_token_id` (the token
    that ends what it writes), `max_length` (of the longest sequence its decoder reads) and, with an encoder,
    `decoder_start_token_id`; called with `input_ids=` (and with an encoder `decoder_input_ids=`) it returns logits
    `[1, token, vocabulary]`, of which those of a position depend on no later one. `labels` name the tokens.

    Args:
        model: what writes.
        inputs: `input_ids [1, token]` and the like, as the tokenizer returns them.
        max_new_tokens: as in `explain_generation`, like all that follow.
        num_beams: beams of the search.
        sample: draw tokens.
        seed: of the draws.

    Returns:
        The decoder's tokens, what was given first, up to and with the end token; and how many were given.

    Raises:
        ValueError: a model that does not generate, that ends at once, or that has no room left to write in; a text with the
            token that ends it; beams of a model that has none.
    """
    if not can_generate(model):
        raise ValueError(
            f"{type(model).__name__} does not generate: expected a causal or sequence-to-sequence model of transformers 4 "
            "with a language-model head, or one with eos_token_id and max_length. explain takes it as it is."
        )
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; expected 1 or more.")
    given: dict[str, np.ndarray] = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
    if hasattr(model, "generate"):
        n_prompt = 1 if is_encoder_decoder(model) else given["input_ids"].shape[-1]
        sequences = model.generate(
            **given,
            max_length=n_prompt + (max_new_tokens or 20),
            num_beams=num_beams,
            do_sample=sample,
            prng_key=jax.random.PRNGKey(seed),
        ).sequences
        sequence, end = np.asarray(sequences[0], np.int64), model.generation_config.eos_token_id
    else:
        if num_beams != 1:
            raise ValueError(f"num_beams is {num_beams}; {type(model).__name__} takes the likeliest token or draws: 1.")
        sequence, n_prompt = _write(model, given, max_new_tokens=max_new_tokens, sample=sample, seed=seed)
        end = model.eos_token_id
    ended = np.flatnonzero(
        np.isin(sequence[n_prompt:], np.atleast_1d(np.asarray([] if end is None else end, np.int64)))
    )
    if len(ended):
        sequence = sequence[: n_prompt + ended[0] + 1]
    if len(sequence) == n_prompt or (len(ended) and ended[0] == 0):
        raise ValueError(
            f"{type(model).__name__} ended at once and wrote nothing: there is no token to explain. Give another text, or a "
            "continuation."
        )
    return sequence, n_prompt


def _write(
    model: Any, given: dict[str, np.ndarray], *, max_new_tokens: int | None, sample: bool, seed: int
) -> tuple[Int[np.ndarray, " target"], int]:
    """Write on by a model's logits. Every step reads a sequence of one length, so that one program is compiled."""
    side, start, read = "input_ids", given["input_ids"][0], {}
    if is_encoder_decoder(model):
        side, start, read = "decoder_input_ids", np.array([model.decoder_start_token_id]), given
    if model.eos_token_id in start:
        raise ValueError(
            f"The text has the token that ends what {type(model).__name__} writes, number {model.eos_token_id}: leave it out, so "
            "that there is something to write after it."
        )
    room = model.max_length - len(start)
    if room < 1:
        raise ValueError(
            f"The text is {len(start)} tokens long, all that {type(model).__name__} reads and writes: shorten it, so that "
            "there is room for what it writes."
        )
    n_new = room if max_new_tokens is None else min(room, max_new_tokens)
    run = _program(model)

    def step(tokens: Int[np.ndarray, "1 token"]) -> Float[Array, "1 token vocabulary"]:
        n_tokens = tokens.shape[1]
        # What stands behind the tokens is not read: attention is causal.
        whole = np.pad(tokens, ((0, 0), (0, len(start) + n_new - n_tokens)))
        return run(**read, **{side: whole})[:, :n_tokens]

    sequence = generate_with(step, start, max_new_tokens=n_new, end=model.eos_token_id, sample=sample, seed=seed)
    return sequence, len(start)


def _program(model: Any) -> Callable[..., Float[Array, "1 token vocabulary"]]:
    if not isinstance(model, nn.Module):
        return jax.jit(lambda **inputs: logits_of(model(**inputs)))
    if model.scope is None:
        raise ValueError(f"{type(model).__name__} is unbound, so it has no variables: model.bind(variables).")
    module, variables = model.unbind()
    return lambda **inputs: _linen_logits(module, variables, inputs)


@partial(jax.jit, static_argnums=0)  # compiled once for a module, however often it writes
def _linen_logits(module: nn.Module, variables: Any, inputs: dict[str, Any]) -> Float[Array, "1 token vocabulary"]:
    return logits_of(module.apply(variables, **inputs))


def generate_with(
    step: Callable[[Int[np.ndarray, "1 token"]], Float[Array, "1 token vocabulary"]],
    tokens: Sequence[int] | Int[np.ndarray, " token"],
    *,
    max_new_tokens: int,
    end: int | None = None,
    sample: bool = False,
    seed: int = 0,
) -> Int[np.ndarray, " token"]:
    """Write on with any function of tokens, one call per token.

    Args:
        step: `step(tokens [1, token]) -> logits [1, token, vocabulary]`, of which the last position's are read.
        tokens: `[token]`, what was given.
        max_new_tokens: how many tokens are written at most.
        end: the token that ends it; kept.
        sample: draw tokens instead of taking the likeliest.
        seed: of the draws.

    Returns:
        `[token]`, given and written. One pass attributes all steps, with the names of all tokens as `labels`:
        `explain(model, result[None], outputs=range(len(tokens) - 1, len(result) - 1), labels=names, produced=np.append(
        result[1:], -1), tokens=[names[i] for i in result])`.

    Raises:
        ValueError: nothing given, nothing to write, logits of another shape.

    Example:
        >>> import jax
        >>> generate_with(lambda tokens: jax.nn.one_hot(tokens + 1, 9), [2, 3], max_new_tokens=4, end=5)
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
        if token == end:
            break
    return sequence


def can_generate(model: Any) -> bool:
    """Tell whether `model` writes tokens: one of transformers that does, or one that says which token ends them."""
    return bool(getattr(model, "can_generate", lambda: False)()) or hasattr(model, "eos_token_id")


def is_encoder_decoder(model: Any) -> bool:
    """Tell whether a model that writes reads its text by an encoder."""
    config = getattr(model, "config", None)
    return hasattr(model, "decoder_start_token_id") if config is None else bool(config.is_encoder_decoder)


def continued(
    model: Any, inputs: dict[str, np.ndarray], tokenizer: Any, continuation: str
) -> tuple[Int[np.ndarray, " target"], int]:
    """Join the prompt, or the decoder's start token, and a continuation that is given; and say how many tokens were given.

    Raises:
        ValueError: a model that does not generate; an empty continuation.
    """
    if not can_generate(model):
        raise ValueError(
            f"{type(model).__name__} does not generate, so it continues nothing: leave `continuation` out."
        )
    if not continuation.strip():
        raise ValueError("The continuation is empty: there is no token to explain.")
    if is_encoder_decoder(model):
        start = getattr(model, "config", model).decoder_start_token_id
        return np.array([start, *np.ravel(tokenizer(text_target=continuation)["input_ids"])], np.int64), 1
    prompt = inputs["input_ids"][0]
    written = tokenizer(continuation, add_special_tokens=False)["input_ids"]
    return np.array([*prompt, *np.ravel(written)], np.int64), len(prompt)
