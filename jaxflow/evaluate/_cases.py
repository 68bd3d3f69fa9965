"""The texts of a comparison: each as the model reads it, which of its tokens may be hidden, and what the model decided."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool

from jaxflow.evaluate._compiled import CompiledModel
from jaxflow.evaluate._decisions import Decided, Decision
from jaxflow.explain import encode, words_of
from jaxflow.models import Model

WIDTHS = 8  # inputs are padded to multiples of so many tokens, so that few programs are compiled


@dataclasses.dataclass(frozen=True)
class ReadText:
    """One text, as a model reads it.

    Attributes:
        text: the text.
        tokens: `[token]`, names of its tokens.
        inputs: the model's inputs, `[1, padded token]`, and where it has one the decoder's start.
        candidates: `[token]`, those that may be hidden: not the special ones, nor the first of a decoder.
    """

    text: str
    tokens: tuple[str, ...]
    inputs: dict[str, np.ndarray]
    candidates: Bool[np.ndarray, " token"]


@dataclasses.dataclass(frozen=True)
class Case:
    """One text, and what is explained of it.

    Attributes:
        read: the text, as the model reads it.
        positions: positions that are explained.
        decided: what the model decided, as `Decision.find` returns it.
    """

    read: ReadText
    positions: tuple[int, ...]
    decided: Decided


def read_text(model: Model, tokenizer: Any, text: str) -> ReadText:
    """Turn a text into inputs that are padded.

    Raises:
        ValueError: as `encode`; a model that takes no `attention_mask` to hide tokens by; fewer than 2 tokens to hide.
    """
    inputs = encode(tokenizer, text)
    ids = inputs["input_ids"]
    n_tokens = ids.shape[-1]
    special = np.isin(ids[0], tokenizer.all_special_ids)
    if model.facts.stacks == ("decoder",) and not special[0]:
        special[0] = True  # an attention sink: without it a decoder makes no sense of anything, whatever the token is
    if (~special).sum() < 2:
        raise ValueError(
            f"The text {text!r} has {(~special).sum()} tokens that can be hidden, special ones excepted; ranks and erasure need "
            "2 or more. Leave it out, or give a longer one."
        )
    inputs = model.arguments((), {"attention_mask": np.ones_like(ids), **inputs})  # those that it takes
    if "attention_mask" not in inputs:
        raise ValueError(
            f"{model.name} takes no attention_mask to hide tokens by: measure scores one by one, by masked_value(replacement=), "
            "erase and erasure_curves."
        )
    longest = tokenizer.model_max_length if model.facts.n_positions is None else model.facts.n_positions
    width = min(-(-n_tokens // WIDTHS) * WIDTHS, max(n_tokens, min(tokenizer.model_max_length, longest)))
    pad = width - n_tokens
    fill = {"input_ids": getattr(tokenizer, "pad_token_id", None) or 0}
    padded = {
        name: np.pad(values, ((0, 0), (0, pad)), constant_values=fill.get(name, 0)) for name, values in inputs.items()
    }
    if model.facts.generation is not None and model.facts.generation.has_encoder:
        padded["decoder_input_ids"] = np.array([[model.facts.generation.start_token]])
    return ReadText(text, tuple(words_of(tokenizer, ids[0])), padded, ~special)


def decide(model: CompiledModel, decision: Decision, read: ReadText) -> Case:
    """Let a model decide on a text."""
    positions = tuple(decision.positions(len(read.tokens)))
    found = model.predict(model.parameters, read.inputs)
    return Case(read, positions, jax.device_get(decision.find(found, np.asarray(positions[0]))))
