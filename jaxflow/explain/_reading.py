"""What a model reads: a text, a mapping or arrays as the inputs of one example, with the names and the padding of its tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import ArrayLike, Bool, Int

from jaxflow._attention import Attention, SourceMask, TargetMask
from jaxflow.explain._chat import ChatTokenizer, Message, chat_text, is_chat
from jaxflow.explain._token_names import TokenName, name_tokens, plain_names
from jaxflow.explain._words import Span
from jaxflow.models import Model


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """One example: a model's inputs, with what is known about them. `explain` takes it where the inputs alone do not say it.

    Attributes:
        inputs: a text or a chat (with a tokenizer), a mapping of the model's own inputs by name, an array, or a tuple of them by
            position.
        tokens: names of the input's tokens: the encoder's, or those of a decoder without encoder; by default the tokenizer's, row
            and column of the patches of an image, or positions.
        decoder_tokens: names of the decoder's tokens, where there is an encoder too.
        encoder_mask: `[1, source]`, False where padded; the input `attention_mask` by default.
        decoder_mask: `[1, target]`, likewise; the input `decoder_attention_mask` by default.
        words: spans of tokens that are words, `(start, stop, word)`, which a page shows beside the tokens; those of the text by
            default.
        produced: `[target]`, the token that each position of a decoder produced; the likeliest by default.
    """

    inputs: Any
    tokens: Sequence[str] | None = None
    decoder_tokens: Sequence[str] | None = None
    encoder_mask: SourceMask | None = None
    decoder_mask: TargetMask | None = None
    words: Sequence[Span] | None = None
    produced: Int[ArrayLike, " target"] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """An example as a model is called with it.

    Attributes:
        args: inputs by position.
        kwargs: inputs by name.
        example: what is said about them.
        tokenizer: what read it: of a chat, one that adds nothing to what the chat template holds.
        text: the text that they were made of; None for other inputs.
        messages: of a chat.
        n_prompt: how many of the decoder's first tokens were not generated; None where nothing was.
        sequence: `[target]`, all tokens of the decoder, where some were generated.
        written_spans: spans of the decoder's tokens that were written, where spans of a unit of text were asked for.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    example: Example
    tokenizer: Any = None
    text: str | None = None
    messages: Sequence[Message] | None = None
    n_prompt: int | None = None
    sequence: Int[np.ndarray, " target"] | None = None
    written_spans: Sequence[Span] | None = None


def read(inputs: Any, tokenizer: Any) -> Reading:
    """Turn what `explain` is given into a model's inputs.

    Raises:
        ValueError: a text without tokenizer, an empty one, or one longer than the model reads.
        TypeError: nothing that can be inputs.
    """
    example = inputs if isinstance(inputs, Example) else Example(inputs)
    given = example.inputs
    if isinstance(given, str):
        return Reading((), encode(tokenizer, given), example, tokenizer, text=given)
    if is_chat(given):
        text, reader = chat_text(tokenizer, given), ChatTokenizer(tokenizer)
        return Reading((), encode(reader, text), example, reader, text=text, messages=given)
    if isinstance(given, Mapping) or (
        hasattr(given, "keys") and hasattr(given, "items")
    ):  # a tokenizer's BatchEncoding too
        return Reading(
            (),
            {name: _as_array(value, name, is_first=name.endswith("input_ids")) for name, value in given.items()},
            example,
            tokenizer,
        )
    if isinstance(given, tuple):
        return Reading(
            tuple(_as_array(value, f"input {i}", is_first=i == 0) for i, value in enumerate(given)),
            {},
            example,
            tokenizer,
        )
    if isinstance(given, np.ndarray | jax.Array):
        return Reading((given,), {}, example, tokenizer)
    mend = ""
    if isinstance(given, bytes | bytearray):
        mend = " Bytes are no text: inputs.decode('utf-8') is."
    elif isinstance(given, list):
        mend = " Words are joined to a text, ' '.join(words); ids are an array, np.array([ids])."
    elif isinstance(given, int):
        mend = " Ids of tokens are one array, np.array([ids])."
    raise TypeError(
        f"inputs is {type(given).__name__}; expected a text, a chat, a mapping of the model's inputs by name, an array, a "
        f"tuple of inputs by position, an Example, or a list of these.{mend}"
    )


def _as_array(value: Any, name: str, *, is_first: bool) -> Any:
    """Return lists of numbers as one array, as tokenizers hand them over; anything else as it is.

    Raises:
        ValueError: lists of different lengths.
        TypeError: a text or bytes in the place of the first input.
    """
    if isinstance(value, str | bytes) and is_first:
        raise TypeError(
            f"{name} is a {type(value).__name__}, {value[:40]!r}; expected an array. A text is the whole of the inputs, with "
            "tokenizer=: explain(model, text, tokenizer=tokenizer)."
        )
    if not isinstance(value, list) or not value or not _is_of_numbers(value):
        return value
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} holds lists of different lengths; expected one array, [batch, token].") from error


def _is_of_numbers(value: Any) -> bool:
    return all(map(_is_of_numbers, value)) if isinstance(value, list | tuple) else isinstance(value, int | float)


def encode(tokenizer: Any, text: str) -> dict[str, np.ndarray]:
    """Turn one text into a model's inputs, `[1, token]` each.

    Raises:
        ValueError: no tokenizer, an empty text, or one longer than the tokenizer says the model reads; never cut.
        TypeError: no text, or a tokenizer that is none.
    """
    if not isinstance(text, str):
        raise TypeError(f"The text is {type(text).__name__}, {text!r:.60}; expected a str.")
    if tokenizer is None:
        raise ValueError(
            f"A text is given ({text[:40]!r}), but no tokenizer: pass tokenizer=, as load_model returns it."
        )
    if not callable(tokenizer):
        raise TypeError(f"tokenizer is {tokenizer!r:.60}; expected a tokenizer, as load_model returns it.")
    if not text.strip():
        raise ValueError("The text is empty: there is no token to explain.")
    if text.startswith("\ufeff"):
        raise ValueError(
            "The text begins with a byte order mark, U+FEFF, which a model would read as a word: open its file with "
            "encoding='utf-8-sig', or leave it out, text.removeprefix('\\ufeff')."
        )
    inputs = {name: np.asarray(values) for name, values in _tokenized(tokenizer, text).items()}
    n_tokens, limit = inputs["input_ids"].shape[-1], tokenizer.model_max_length
    if not n_tokens:
        raise ValueError(f"The text {text[:40]!r} has no token: the tokenizer leaves out all that it holds.")
    if n_tokens > limit:
        raise ValueError(
            f"The text is {n_tokens} tokens long; the model reads {limit} at most. It is not cut, since that would explain "
            "another text: shorten or split it."
        )
    return inputs


def _tokenized(tokenizer: Any, text: str) -> Mapping[str, Any]:
    """Let a tokenizer read a text.

    Raises:
        ValueError: whatever the tokenizer raises, such as that it has no token for a word, nor for unknown ones.
    """
    try:
        return tokenizer([text])
    except ValueError:
        raise
    except Exception as error:  # those of the library tokenizers have no kind of their own
        raise ValueError(f"{type(tokenizer).__name__} cannot read the text {text[:40]!r}: {error}") from error


def read_by(attention: Attention) -> dict[str, tuple[int, str, str]]:
    """Return of each stack how many tokens it reads, and the names under which a model is given them and their padding mask."""
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


@dataclasses.dataclass(frozen=True, eq=False)
class Names:
    """Names and padding of the tokens of each stack, "encoder" and "decoder"; no names of a stack that is not there.

    Attributes:
        tokens: names, with how they stand in the text.
        masks: `[*batch, token]`, False where padded; None where nothing is.
        patches: how many patches of an image, down and across, the last inputs are; None for other inputs.
    """

    tokens: dict[str, tuple[TokenName, ...]]
    masks: dict[str, Any]
    patches: tuple[int, int] | None


def name(model: Model, reading: Reading, attention: Attention, tokenizer: Any) -> Names:
    """Name what a model has read, and find its padding.

    Raises:
        ValueError: more or fewer names than tokens; a padding mask that does not say it for each token.
    """
    example = reading.example
    stack = attention.decoder if attention.decoder is not None else attention.encoder
    assert stack is not None  # or capture would have raised
    batch = stack.shape[:-4]
    given_inputs = model.arguments(reading.args, reading.kwargs)
    sides = read_by(attention)
    tokens: dict[str, tuple[TokenName, ...]] = {"encoder": (), "decoder": ()}
    masks = {"encoder": example.encoder_mask, "decoder": example.decoder_mask}
    given = {"encoder": example.tokens, "decoder": example.decoder_tokens}
    if "encoder" not in sides and example.decoder_tokens is None:
        given["decoder"] = example.tokens
    elif attention.provenance.reads_only and example.decoder_tokens is None and sides["decoder"][1] not in given_inputs:
        n_queries = sides["decoder"][0]
        given["decoder"] = ["query"] if n_queries == 1 else [f"query {number}" for number in range(n_queries)]
    for side, (n_tokens, ids_name, mask_name) in sides.items():
        tokens[side] = _names(given[side], tokenizer, given_inputs.get(ids_name), n_tokens, reading.text)
        if masks[side] is None:
            masks[side] = padding_mask(given_inputs.get(mask_name), mask_name, side, (*batch, n_tokens))
    patches = model.facts.patches if tokenizer is None and example.tokens is None else None
    if patches is not None and patches[0] * patches[1] > len(tokens["encoder"]):
        patches = None
    if patches is not None:
        tokens["encoder"] = _name_patches(patches, len(tokens["encoder"]))
    return Names(tokens, masks, patches)


def _names(
    given: Sequence[str] | None, tokenizer: Any, ids: Any, n_tokens: int, text: str | None
) -> tuple[TokenName, ...]:
    """Name a stack's tokens: as given, by the tokenizer, or by position."""
    if given is None and tokenizer is not None and ids is not None:
        words = tuple(name_tokens(tokenizer, np.ravel(ids), text=text))
    else:
        words = tuple(plain_names([str(word) for word in (range(n_tokens) if given is None else given)]))
    if len(words) != n_tokens:
        raise ValueError(f"tokens holds {len(words)} words; the model's attention is over {n_tokens} tokens.")
    return words


def _name_patches(grid: tuple[int, int], n_tokens: int) -> tuple[TokenName, ...]:
    """Name the last tokens by row and column of the grid, from 0 at the top left, and those before them by position."""
    down, across = grid
    first = n_tokens - down * across
    patches = (f"{row},{column}" for row in range(down) for column in range(across))
    return tuple(plain_names([*map(str, range(first)), *patches]))


def padding_mask(mask: Any, name: str, side: str, shape: tuple[int, ...]) -> Bool[np.ndarray, "*batch token"] | None:
    """Return what a model was given as padding mask, if it says so for each token.

    Axes of length 1 before the token may differ. Of a mask that says which keys each query sees, `[*batch, query, key]`, those
    that no query sees are padding.

    Raises:
        ValueError: a mask of another shape, or with other values than 0 and 1.
    """
    if mask is None:
        return None
    values = np.asarray(mask)
    if values.shape[-1:] == shape[-1:] and values.size == np.prod(shape):
        values = values.reshape(shape)
    n_tokens = shape[-1]
    by_query = (
        n_tokens > 1 and values.shape[-2:] == (n_tokens, n_tokens) and np.size(values) == np.prod(shape) * n_tokens
    )
    if values.shape != shape and not by_query:
        raise ValueError(
            f"{name} has shape {np.shape(mask)}, which does not say for each of the {shape[-1]} tokens whether it is "
            f"padding: pass {side}_mask of shape {shape}, in Example(inputs, {side}_mask=...)."
        )
    is_additive = np.issubdtype(values.dtype, np.floating) and not (values > 0).any()
    if is_additive or not ((values == 0) | (values == 1)).all():
        other = values[(values != 0) & (values != 1)]
        held = f"holds {other[0]:.4g}" if other.size else f"is {values.dtype} and holds 0 alone"
        raise ValueError(
            f"{name} {held}; expected 1 for tokens and 0 for padding. "
            + (
                "It may be an additive mask, where 0 keeps a token and a large negative number hides it. "
                if is_additive
                else ""
            )
            + f"If the model takes it so, say which tokens are padding: Example(inputs, {side}_mask=...), of shape {shape}."
        )
    known = values.astype(bool)
    return known.reshape(*shape[:-1], n_tokens, n_tokens).max(-2) if by_query else known
