"""What a model reads: a text as inputs, its inputs by name, the words and the padding of each stack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from jaxflow._attention import Attention


def encode(tokenizer: Any, text: str) -> dict[str, np.ndarray]:
    """Turn one text into a model's inputs, `[1, token]` each.

    Raises:
        ValueError: no tokenizer, an empty text, or one longer than the tokenizer says the model reads; never cut.
    """
    if tokenizer is None:
        raise ValueError(
            f"A text is given ({text[:40]!r}), but no tokenizer: pass tokenizer=, as load_model returns it."
        )
    if not text.strip():
        raise ValueError("The text is empty: there is no token to explain.")
    inputs = {name: np.asarray(values) for name, values in tokenizer([text]).items()}
    n_tokens, limit = inputs["input_ids"].shape[-1], tokenizer.model_max_length
    if n_tokens > limit:
        raise ValueError(
            f"The text is {n_tokens} tokens long; the model reads {limit} at most. It is not cut, since that would explain "
            "another text: shorten or split it."
        )
    return inputs


def reads(attention: Attention) -> dict[str, tuple[int, str, str]]:
    """Say of each stack how many tokens it reads, and by what names a model is given them and their padding mask."""
    if attention.decoder is None:
        assert attention.encoder is not None
        return {"encoder": (attention.encoder.shape[-1], "input_ids", "attention_mask")}
    n_target = attention.decoder.shape[-1]
    if attention.cross is None:
        return {"decoder": (n_target, "input_ids", "attention_mask")}
    n_source = attention.cross.shape[-1]
    if attention.encoder is None:  # what the decoder attends to came ready
        return {
            "encoder": (n_source, "encoder_input_ids", "encoder_attention_mask"),
            "decoder": (n_target, "input_ids", "attention_mask"),
        }
    return {
        "encoder": (n_source, "input_ids", "attention_mask"),
        "decoder": (n_target, "decoder_input_ids", "decoder_attention_mask"),
    }


def name_tokens(given: Sequence[str] | None, tokenizer: Any, ids: Any, n_tokens: int) -> tuple[str, ...]:
    """Name a stack's tokens: as given, by the tokenizer, or by position.

    Raises:
        ValueError: more or fewer words than tokens.
    """
    if given is None and tokenizer is not None and ids is not None:
        given = words_of(tokenizer, np.ravel(ids))
    words = tuple(map(str, range(n_tokens) if given is None else given))
    if len(words) != n_tokens:
        raise ValueError(f"tokens holds {len(words)} words; the model's attention is over {n_tokens} tokens.")
    return words


def patch_grid(model: Any, n_tokens: int) -> tuple[int, int] | None:
    """Return how many patches of an image, down and across, are a vision model's last inputs, as its config says; None if none.

    Before them may come tokens of no patch, such as the class token.
    """
    config = getattr(model, "config", None)
    image, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if image is None or patch is None:
        return None
    (height, width), (tall, wide) = ((size, size) if isinstance(size, int) else tuple(size) for size in (image, patch))
    down, across = height // tall, width // wide
    return (down, across) if 0 < down * across <= n_tokens else None


def name_patches(grid: tuple[int, int], n_tokens: int) -> tuple[str, ...]:
    """Name the last tokens by row and column of the grid, from 0 at the top left, and those before them by position."""
    down, across = grid
    first = n_tokens - down * across
    return (*map(str, range(first)), *(f"{row},{column}" for row in range(down) for column in range(across)))


def words_of(tokenizer: Any, ids: Int[np.ndarray, " token"]) -> list[str]:
    """Name tokens; by number those that the tokenizer does not know, as models have spare ones."""
    words = tokenizer.convert_ids_to_tokens(ids)
    return [f"#{number}" if word is None else word for word, number in zip(words, ids.tolist(), strict=True)]


def padding_mask(mask: Any, name: str, side: str, shape: tuple[int, ...]) -> Bool[np.ndarray, "*batch token"] | None:
    """Return what a model was given as padding mask, if it says so for each token.

    Raises:
        ValueError: a mask of another shape.
    """
    if mask is None:
        return None
    if np.shape(mask) != shape:
        raise ValueError(
            f"{name} has shape {np.shape(mask)}, which does not say for each of the {shape[-1]} tokens whether it is "
            f"padding: pass {side}_mask of shape {shape}."
        )
    return np.asarray(mask, bool)
