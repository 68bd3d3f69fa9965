"""Pad a text on the right to one of few lengths, so that few programs are compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxflow.models._model import Model

# Up to so many tokens, lengths are multiples of so many.
STEPS = ((64, 8), (256, 32), (1024, 128))
LAST_STEP = 256
OF_TEXT = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
OF_TARGET = ("decoder_input_ids", "decoder_attention_mask", "decoder_position_ids")


@dataclasses.dataclass(frozen=True)
class Padded:
    """A model's inputs, padded.

    Attributes:
        kwargs: the inputs by name.
        lengths: how many tokens each stack reads, and how many there are with padding.
    """

    kwargs: dict[str, Any]
    lengths: dict[str, tuple[int, int]]

    def with_lengths(self, lengths: Mapping[str, int]) -> dict[str, Any]:
        """Return the inputs cut to so many tokens of each stack."""
        sides = list(lengths)
        first, last = sides[0], sides[-1]
        return {
            name: value[..., : lengths[first if name in OF_TEXT else last]] if name in (*OF_TEXT, *OF_TARGET) else value
            for name, value in self.kwargs.items()
        }


def padded_length(n_tokens: int, limit: int | None = None) -> int:
    """Return the length that a text is padded to: no more than `limit`, unless it is longer itself."""
    step = next((step for longest, step in STEPS if n_tokens <= longest), LAST_STEP)
    padded = -(-n_tokens // step) * step
    return padded if limit is None else max(n_tokens, min(padded, limit))


def pad_inputs(model: Model, args: tuple, kwargs: Mapping[str, Any]) -> Padded | None:
    """Pad one example, or a batch of one length.

    Args:
        model: the model.
        args: what it is called with.
        kwargs: what it is called with.

    Returns:
        The padded inputs; None where padding might change something: a model that does not say that it ignores it, inputs other
        than tokens, an encoder's text without `attention_mask`, a decoder that makes its own inputs.
    """
    facts = model.facts
    arrays = {name: np.asarray(value) for name, value in kwargs.items() if np.ndim(value)}
    if args or not facts.ignores_padding or "input_ids" not in arrays or set(arrays) - {*OF_TEXT, *OF_TARGET}:
        return None
    first, last = facts.stacks[0], facts.stacks[-1]
    if (first == "encoder" and "attention_mask" not in arrays) or ((first != last) != ("decoder_input_ids" in arrays)):
        return None
    limits = {first: facts.n_positions}
    if facts.generation is not None and facts.generation.max_length is not None:
        limits[last] = facts.generation.max_length
    ids = {first: arrays["input_ids"]} | ({last: arrays["decoder_input_ids"]} if first != last else {})
    lengths = {side: (each.shape[-1], padded_length(each.shape[-1], limits.get(side))) for side, each in ids.items()}
    padded = dict(kwargs)
    for name, array in arrays.items():
        n_tokens, n_padded = lengths[first if name in OF_TEXT else last]
        if array.shape != ids[first if name in OF_TEXT else last].shape:
            return None
        padded[name] = np.zeros((*array.shape[:-1], n_padded), array.dtype)
        padded[name][..., :n_tokens] = array
    return Padded(padded, lengths)
