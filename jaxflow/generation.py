"""Generate, then attribute every step: one teacher-forced pass over what was generated serves all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jaxflow.capacities import Heads
from jaxflow.explaining import explain
from jaxflow.explanation import Explanation, Method
from jaxflow.inputs import encode
from jaxflow.network import DecoderLayer, Feedback
from jaxflow.solve import Solver
from jaxflow.words import Span, Unit, text_spans, written_spans


def explain_generation(
    model: Any,
    text: str,
    *,
    tokenizer: Any,
    continuation: str | None = None,
    max_new_tokens: int = 20,
    num_beams: int = 1,
    sample: bool = False,
    seed: int = 0,
    outputs: int | Sequence[int] | None = None,
    together: bool = False,
    spans: Unit | Sequence[Span] | None = None,
    method: Method = "flow",
    heads: Heads = "mean",
    residual: float | None = None,
    decoder_layer: DecoderLayer = "sublayers",
    feedback: Feedback = "prefix",
    correction: Literal["decay", "uniform"] | None = None,
    normalise: bool = False,
    solver: Solver = "certified",
    tolerance: float = 0.0,
    budget_seconds: float | None = None,
    flow_graph: bool | None = None,
    progress: bool = False,
) -> Explanation:
    """Let a model go on from a text, or read a given continuation, and attribute each token it wrote.

    Attention of a decoder is causal, so one pass over the whole sequence holds the rows of every step. Beam search is
    explained by the sequence it returned.

    Args:
        model: a causal or sequence-to-sequence model of transformers 4 with a language-model head.
        text: the prompt, or the source.
        tokenizer: the model's.
        continuation: explain this continuation (or target) instead of one the model writes.
        max_new_tokens: how many tokens the model writes at most.
        num_beams: beams of the search; 1 is greedy.
        sample: draw tokens instead of taking the likeliest.
        seed: of the draws.
        outputs: positions p of the decoder whose next token, at p + 1, was written; None for all of them.
        together: explain these outputs as one set: what can flow to any of them.
        spans: inputs that count as one: "words", "lines" or "paragraphs" of the text, and of what was written; or pairs, as
            in `explain`.
        method: as in `explain`, like all that follow.
        heads: how heads are reduced.
        residual: the residual stream's share.
        decoder_layer: "sublayers" or "parallel".
        feedback: "prefix": tokens written earlier are inputs too. "unrolled": only what was given is an input, and its
            influence passes through what was written.
        correction: None, "decay" or "uniform".
        normalise: let the scores of each output sum to 1.
        solver: as in `max_flow`.
        tolerance: as in `attention_flow`.
        budget_seconds: as in `attention_flow`.
        flow_graph: as in `explain`.
        progress: show a bar.

    Returns:
        `Explanation` whose outputs are the written tokens: `predictions[p]` is the token at p + 1 with its probability.

    Raises:
        ValueError: a model that does not generate; a generation of nothing; an output in the prompt; as `explain`.
    """
    inputs = encode(tokenizer, text)
    sequence, n_prompt = (
        generate(model, inputs, max_new_tokens=max_new_tokens, num_beams=num_beams, sample=sample, seed=seed)
        if continuation is None
        else _continued(model, inputs, tokenizer, continuation)
    )
    written = np.arange(n_prompt - 1, len(sequence) - 1)
    positions = (written if outputs is None else np.atleast_1d(outputs)).tolist()
    for position in positions:
        if position not in written:
            raise ValueError(
                f"Output {position} wrote no token: generated are the tokens after positions {written[0]} to {written[-1]}, "
                f"behind the {n_prompt} that were given."
            )
    wrote = None
    if isinstance(spans, str):
        wrote = written_spans(tokenizer, sequence, spans, start=n_prompt)
        spans = text_spans(tokenizer, text, spans)
    if _is_encoder_decoder(model):
        whole: dict[str, Any] = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
        whole |= {"decoder_input_ids": sequence[None], "spans": spans, "decoder_spans": wrote}
    else:
        whole = {"input_ids": sequence[None], "spans": spans if wrote is None else [*(spans or ()), *wrote]}
    return explain(
        model,
        tokenizer=tokenizer,
        outputs=positions,
        together=together,
        produced=np.append(sequence[1:], -1),
        method=method,
        heads=heads,
        residual=residual,
        decoder_layer=decoder_layer,
        feedback=feedback,
        n_prompt=n_prompt if feedback == "unrolled" else None,
        correction=correction,
        normalise=normalise,
        solver=solver,
        tolerance=tolerance,
        budget_seconds=budget_seconds,
        flow_graph=flow_graph,
        progress=progress,
        **whole,
    )


def generate(
    model: Any,
    inputs: dict[str, np.ndarray],
    *,
    max_new_tokens: int = 20,
    num_beams: int = 1,
    sample: bool = False,
    seed: int = 0,
) -> tuple[Int[np.ndarray, " target"], int]:
    """Let a model of transformers write on, by its own `generate`.

    Returns:
        The decoder's tokens, what was given first, up to and with the end token; and how many were given.

    Raises:
        ValueError: a model that does not generate, or that ends at once.
    """
    if not can_generate(model):
        raise ValueError(
            f"{type(model).__name__} does not generate: expected a causal or sequence-to-sequence model of transformers 4 "
            "with a language-model head. explain takes it as it is."
        )
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; expected 1 or more.")
    given = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
    n_prompt = 1 if _is_encoder_decoder(model) else given["input_ids"].shape[-1]
    sequences = model.generate(
        **given,
        max_length=n_prompt + max_new_tokens,
        num_beams=num_beams,
        do_sample=sample,
        prng_key=jax.random.PRNGKey(seed),
    ).sequences
    sequence = np.asarray(sequences[0], np.int64)
    ends = np.atleast_1d(np.asarray(model.generation_config.eos_token_id or [], np.int64))
    ended = np.flatnonzero(np.isin(sequence[n_prompt:], ends))
    if len(ended):
        sequence = sequence[: n_prompt + ended[0] + 1]
    if len(sequence) == n_prompt or (len(ended) and ended[0] == 0):
        raise ValueError(
            f"{type(model).__name__} ended at once and wrote nothing: there is no token to explain. Give another text, or a "
            "continuation."
        )
    return sequence, n_prompt


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
    """Tell whether `model` is one of transformers that writes tokens."""
    return bool(getattr(model, "can_generate", lambda: False)())


def _is_encoder_decoder(model: Any) -> bool:
    return bool(model.config.is_encoder_decoder)


def _continued(
    model: Any, inputs: dict[str, np.ndarray], tokenizer: Any, continuation: str
) -> tuple[Int[np.ndarray, " target"], int]:
    """Join the prompt, or the decoder's start token, and a continuation that is given."""
    if not can_generate(model):
        raise ValueError(
            f"{type(model).__name__} does not generate, so it continues nothing: leave `continuation` out."
        )
    if not continuation.strip():
        raise ValueError("The continuation is empty: there is no token to explain.")
    if _is_encoder_decoder(model):
        start = model.config.decoder_start_token_id
        return np.array([start, *tokenizer(text_target=continuation)["input_ids"]], np.int64), 1
    prompt = inputs["input_ids"][0]
    written = tokenizer(continuation, add_special_tokens=False)["input_ids"]
    return np.array([*prompt, *written], np.int64), len(prompt)
