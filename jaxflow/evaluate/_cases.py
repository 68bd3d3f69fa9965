"""The texts of a comparison: each as the model reads it, which of its tokens may be hidden, and what the model decided."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Bool

from jaxflow.evaluate._compiled import CompiledModel
from jaxflow.evaluate._decisions import Decided, Decision
from jaxflow.explain import encode, name_tokens
from jaxflow.models import Model, padded_length

# Hidden tokens are masked, or replaced by a token that the tokenizer has for such ends, or by the one with an id.
Hide = Literal["mask", "replace"] | int | np.integer
REPLACEMENTS = ("mask_token_id", "unk_token_id", "pad_token_id", "eos_token_id")  # the first that a tokenizer has


@dataclasses.dataclass(frozen=True)
class ReadText:
    """One text, as a model reads it.

    Attributes:
        text: the text.
        tokens: `[token]`, names of its tokens.
        inputs: the model's inputs, `[1, padded token]`, and where it has one the decoder's start.
        candidates: `[token]`, those that may be hidden: not the special ones, nor the first that a decoder reads.
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


def replacement_of(model: Model, tokenizer: Any, hide: Hide) -> int | None:
    """Return the id of the token that stands in the place of hidden ones; None where they are masked.

    Raises:
        ValueError: no way to hide tokens; a tokenizer that has no token for it, or none of that id.
    """
    if hide == "mask":
        return None
    if hide == "replace":
        found = next((number for name in REPLACEMENTS if (number := getattr(tokenizer, name, None)) is not None), None)
        if found is None:
            raise ValueError(
                "hide='replace' takes the tokenizer's token for masks, unknown words, padding or the end of a text, and it has "
                "none of these: pass the id of a token, hide=7."
            )
        return int(found)
    if isinstance(hide, str | bool) or not isinstance(hide, int | np.integer):
        raise ValueError(f"hide is {hide!r}; expected 'mask', 'replace', or the id of a token.")
    n_words = len(tokenizer.get_vocab()) if model.facts.n_words is None else model.facts.n_words
    if not 0 <= hide < n_words:
        raise ValueError(f"hide is {hide}; expected the id of a token, 0 to {n_words - 1}.")
    return int(hide)


def read_text(model: Model, tokenizer: Any, text: str, *, needs_mask: bool = True) -> ReadText:
    """Turn a text into inputs that are padded, where a model takes an `attention_mask` that hides padding.

    Args:
        model: the model.
        tokenizer: the model's.
        text: the text.
        needs_mask: whether tokens will be hidden by the `attention_mask`.

    Raises:
        ValueError: as `encode`; a model that takes no `attention_mask` where it needs one; fewer than 2 tokens to hide.
    """
    inputs = encode(tokenizer, text)
    ids = inputs["input_ids"]
    n_tokens = ids.shape[-1]
    candidates = ~np.isin(ids[0], tokenizer.all_special_ids)
    if model.facts.stacks == ("decoder",):
        candidates[0] = (
            False  # an attention sink: without it a decoder makes no sense of the rest, whatever the token is
        )
    if candidates.sum() < 2:
        others = "special ones and the first of a decoder" if model.facts.stacks == ("decoder",) else "special ones"
        raise ValueError(
            f"The text {text!r} has {candidates.sum()} tokens that can be hidden, {others} excepted; ranks and erasure need "
            "2 or more. Leave it out, or give a longer one."
        )
    inputs = model.arguments((), {"attention_mask": np.ones_like(ids), **inputs})  # those that it takes
    has_mask = "attention_mask" in inputs
    if needs_mask and not has_mask:
        raise ValueError(
            f"{model.name} takes no attention_mask to hide tokens by: pass hide='replace', for a token in their place."
        )
    longest = tokenizer.model_max_length if model.facts.n_positions is None else model.facts.n_positions
    width = padded_length(n_tokens, min(tokenizer.model_max_length, longest))
    pad = width - n_tokens if has_mask else 0
    fill = {"input_ids": getattr(tokenizer, "pad_token_id", None) or 0}
    padded = {
        name: np.pad(values, ((0, 0), (0, pad)), constant_values=fill.get(name, 0)) for name, values in inputs.items()
    }
    if model.facts.generation is not None and model.facts.generation.has_encoder:
        padded["decoder_input_ids"] = np.array([[model.facts.generation.start_token]])
    tokens = tuple(token.name for token in name_tokens(tokenizer, ids[0], text=text))
    return ReadText(text, tokens, padded, candidates)


def decide(model: CompiledModel, decision: Decision, read: ReadText) -> Case:
    """Let a model decide on a text."""
    positions = tuple(decision.positions(len(read.tokens)))
    found = model.predict(model.parameters, read.inputs)
    return Case(read, positions, jax.device_get(decision.find(found, np.asarray(positions[0]))))
