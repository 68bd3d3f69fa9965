"""What a model says of itself: its stacks, labels and lengths, and how it generates."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

LENGTHS = ("max_position_embeddings", "n_positions", "n_source")  # names of the longest text


@dataclasses.dataclass(frozen=True)
class Generation:
    """How a model generates: what its decoder starts from, and what ends it.

    Attributes:
        has_encoder: whether the given text goes to an encoder, and the decoder starts from `start_token`.
        start_token: the decoder's first token; None without an encoder, where the decoder goes on from the given text.
        end_tokens: tokens that end the generation; it keeps the first of them.
        max_length: the longest sequence that the decoder reads, in tokens; None if the model does not say.
    """

    has_encoder: bool = False
    start_token: int | None = None
    end_tokens: tuple[int, ...] = ()
    max_length: int | None = None


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a model says of itself. All is optional: the default is an encoder of which nothing else is known.

    Attributes:
        stacks: the stacks whose tokens are inputs of the model, in the order in which they run: `("encoder",)`, `("decoder",)`
            or `("encoder", "decoder")`.
        labels: the name of each label, where logits are over labels.
        n_words: size of the vocabulary. Where `labels` is None and there are as many logits, they are over the tokenizer's
            tokens.
        is_multi_label: whether labels are independent of each other: their probabilities are sigmoids, not a softmax.
        n_positions: the longest text, in tokens, padding included.
        patches: patches of an image, (down, across): they are the last tokens of a vision model.
        generation: how the model generates; None if it does not.
        ignores_padding: whether tokens that are put behind a text change nothing, as long as `attention_mask` hides them from an
            encoder; a decoder does not look ahead. Texts of several lengths share a compiled program then.
    """

    stacks: tuple[str, ...] = ("encoder",)
    labels: tuple[str, ...] | None = None
    n_words: int | None = None
    is_multi_label: bool = False
    n_positions: int | None = None
    patches: tuple[int, int] | None = None
    generation: Generation | None = None
    ignores_padding: bool = False


def facts_of(model: Any) -> Facts:
    """Read the facts of a module or function of the user's own, from its attributes and those of its `config`.

    Attributes that are read: `labels` or `id2label`; `n_positions`, `n_source` or `max_length`; `image_size` and `patch_size`;
    `problem_type`; `ignores_padding`; and of a model that generates `eos_token_id`, `max_length` and, with an encoder,
    `decoder_start_token_id`.
    """
    config = getattr(model, "config", None)
    generation = generation_of(model)
    labels = getattr(model, "labels", None)
    lengths = (_size(owner, name) for name in LENGTHS for owner in (model, config))
    n_positions = next((length for length in lengths if length is not None), _size(model, "max_length"))
    stacks: tuple[str, ...] = ("encoder",)
    if hasattr(model, "decoder_start_token_id"):
        stacks = ("encoder", "decoder")
    elif generation is not None:
        stacks = ("decoder",)
    return Facts(
        stacks=stacks,
        labels=labels_of(config) if labels is None else tuple(map(str, labels)),
        is_multi_label=is_multi_label(config),
        n_positions=n_positions,
        patches=patch_grid(model) or patch_grid(config),
        generation=generation,
        ignores_padding=bool(getattr(model, "ignores_padding", False)),
    )


def generation_of(model: Any) -> Generation | None:
    """Read how a model of the user's own generates; None if it has no `eos_token_id`."""
    end = getattr(model, "eos_token_id", None)
    if end is None:
        return None
    start = getattr(model, "decoder_start_token_id", None)
    return Generation(start is not None, start, (int(end),), _size(model, "max_length"))


def labels_of(config: Any) -> tuple[str, ...] | None:
    """Read the names of labels from a configuration's `id2label`."""
    names = getattr(config, "id2label", None)
    return tuple(str(names[index]) for index in sorted(names)) if names else None


def is_multi_label(config: Any) -> bool:
    """Read from a configuration whether labels are independent of each other."""
    return getattr(config, "problem_type", None) == "multi_label_classification"


def patch_grid(config: Any) -> tuple[int, int] | None:
    """Read the number of patches of an image, (down, across), from `image_size` and `patch_size`, in pixels."""
    image, patch = _sides(config, "image_size"), _sides(config, "patch_size")
    if image is None or patch is None:
        return None
    down, across = image[0] // patch[0], image[1] // patch[1]
    return (down, across) if down * across else None


def _size(owner: Any, name: str) -> int | None:
    value = getattr(owner, name, None)
    return int(value) if isinstance(value, int | np.integer) else None


def _sides(owner: Any, name: str) -> tuple[int, int] | None:
    size = getattr(owner, name, None)
    if isinstance(size, int):
        return size, size
    return tuple(size) if isinstance(size, list | tuple) and len(size) == 2 else None
