"""Ask a model about a text: its inputs, its decision, and compiled functions of its parameters that answer."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool

from jaxflow._attention import Attention
from jaxflow.attribute import gradient_norm, input_x_gradient, integrated_gradients
from jaxflow.capture import (
    Target,
    arguments,
    attention_gradients,
    call_model,
    evaluate,
    is_encoder_decoder,
    is_huggingface,
    take_apart,
)
from jaxflow.evaluate._decisions import Question, Reference
from jaxflow.evaluate._masking import batched, hide
from jaxflow.explain import encode, words_of

WIDTHS = 8  # inputs are padded to multiples of so many tokens, so that few programs are compiled
BATCH = 32  # masks that go through the model at once
STEPS = 16  # of integrated gradients


@dataclasses.dataclass(frozen=True)
class Asked:
    """One text, as a model reads it, and what is asked about it.

    Attributes:
        text: the text.
        tokens: `[token]`, names of its tokens.
        inputs: the model's inputs, `[1, padded token]`, and where it has one the decoder's start.
        candidates: `[padded token]`, tokens that may be hidden: neither special ones nor padding.
        outputs: positions that are explained.
        decision: what the model decided, as `Question.find` returns it.
    """

    text: str
    tokens: tuple[str, ...]
    inputs: dict[str, np.ndarray]
    candidates: Bool[np.ndarray, " token"]
    outputs: tuple[int, ...]
    decision: Reference


@dataclasses.dataclass(frozen=True)
class Model:
    """A model, taken apart into its parameters and compiled functions of these, of inputs by name, and of a decision.

    Attributes:
        parameters: those of the trained model.
        predict: `(parameters, inputs)` -> what the question reads.
        attend: `(parameters, inputs, decision)` -> attention, and gradients of the target by it.
        numbers: `(parameters, inputs, decision, kept [mask, token])` -> value and target for each mask.
        gradient: `(parameters, inputs, decision)` -> scores, an `Attribution`; so are the next two.
        input_x_gradient: likewise.
        integrated_gradients: likewise.
    """

    parameters: Any
    predict: Callable[..., Any]
    attend: Callable[..., tuple[Attention, Attention]]
    numbers: Callable[..., tuple[Any, Any]]
    gradient: Callable[..., Any]
    input_x_gradient: Callable[..., Any]
    integrated_gradients: Callable[..., Any]


def compile_model(model: Any, question: Question, variables: Mapping | None = None) -> Model:
    """Take a model apart.

    Raises:
        TypeError: a model that is not supported here.
        ValueError: variables that are missing, or given to a model that has its own.
    """
    bind, parameters = take_apart(model, variables)

    def predict(parameters: Any, inputs: dict[str, Any]) -> Any:
        bound, own = bind(parameters)
        return question.read(call_model(bound, **inputs, **own), inputs)

    def target_of(inputs: dict[str, Any], decision: Reference) -> Target:
        return lambda outputs: question.target(decision)(question.read(outputs, inputs))

    def attend(parameters: Any, inputs: dict[str, Any], decision: Reference) -> tuple[Attention, Attention]:
        bound, own = bind(parameters)
        return attention_gradients(bound, target=target_of(inputs, decision), **inputs, **own)[1:]

    def numbers(parameters: Any, inputs: dict[str, Any], decision: Reference, kept: Any) -> tuple[Any, Any]:
        found, batch = predict(parameters, hide(inputs, kept)), (len(kept),)
        value, target = question.value(decision), question.target(decision)
        return evaluate(value, found, batch), evaluate(target, found, batch)

    def by(method: Callable, **options: Any) -> Callable[..., Any]:
        def score(parameters: Any, inputs: dict[str, Any], decision: Reference) -> Any:
            bound, own = bind(parameters)
            return method(bound, target=target_of(inputs, decision), **options, **inputs, **own)

        return jax.jit(score)

    return Model(
        parameters=parameters,
        predict=jax.jit(predict),
        attend=jax.jit(attend),
        numbers=jax.jit(numbers),
        gradient=by(gradient_norm),
        input_x_gradient=by(input_x_gradient),
        integrated_gradients=by(integrated_gradients, steps=STEPS),
    )


def read_text(model: Any, tokenizer: Any, text: str) -> tuple[dict[str, np.ndarray], tuple[str, ...], np.ndarray]:
    """Turn a text into inputs that are padded, the names of its tokens, and which of them may be hidden.

    Raises:
        ValueError: as `encode`; a model that takes no `attention_mask` to hide tokens by; fewer than 2 tokens to hide.
    """
    inputs = encode(tokenizer, text)
    ids = inputs["input_ids"]
    n_tokens = ids.shape[-1]
    special = np.isin(ids[0], tokenizer.all_special_ids)
    if (~special).sum() < 2:
        raise ValueError(
            f"The text {text!r} has {(~special).sum()} tokens that can be hidden, special ones excepted; ranks and erasure need "
            "2 or more. Leave it out, or give a longer one."
        )
    inputs = arguments(model, (), {"attention_mask": np.ones_like(ids), **inputs})  # those that it takes
    if "attention_mask" not in inputs:
        raise ValueError(
            f"{type(model).__name__} takes no attention_mask to hide tokens by: measure scores one by one, by "
            "masked_value(replacement=), erase and erasure_curves."
        )
    width = min(-(-n_tokens // WIDTHS) * WIDTHS, max(n_tokens, min(tokenizer.model_max_length, _n_positions(model))))
    pad = width - n_tokens
    fill = {"input_ids": getattr(tokenizer, "pad_token_id", None) or 0}
    padded = {
        name: np.pad(values, ((0, 0), (0, pad)), constant_values=fill.get(name, 0)) for name, values in inputs.items()
    }
    if is_encoder_decoder(model):
        config = getattr(model, "config", model)
        padded["decoder_input_ids"] = np.array([[config.decoder_start_token_id]])
    return padded, tuple(words_of(tokenizer, ids[0])), np.pad(~special, (0, pad))


def ask(model: Model, question: Question, text: str, read: tuple) -> Asked:
    """Let a model decide on a text, as `read_text` read it."""
    inputs, tokens, candidates = read
    positions = tuple(question.outputs(len(tokens)))
    found = model.predict(model.parameters, inputs)
    decision = jax.device_get(question.find(found, np.asarray(positions[0])))
    return Asked(text, tokens, inputs, candidates, positions, decision)


def numbers_of(model: Model, asked: Asked, parameters: Any) -> Callable[[Bool[np.ndarray, "mask token"]], Any]:
    """Return a function of masks: value and target for each, in batches through one compiled program."""
    run = functools.partial(model.numbers, parameters, asked.inputs, asked.decision)
    return batched(run, len(asked.candidates), BATCH)


def _n_positions(model: Any) -> int:
    """Return how many tokens a model has positions for, as far as it says so, padding included."""
    config = getattr(model, "config", model)
    for name in ("max_position_embeddings", "n_positions", "n_source", "max_length"):
        length = getattr(config, name, None)
        if length is not None and (name != "max_length" or not is_huggingface(model)):
            return int(length) - (2 if name == "max_position_embeddings" and is_huggingface(model) else 0)
    return 2**31
