"""A chat: a list of messages -> the text that the tokenizer's chat template makes of them, and where in it its turns are."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from jaxflow.explain._offsets import offsets_of
from jaxflow.explain._words import short

Message = Mapping[str, Any]  # "role" and "content"


def is_chat(inputs: Any) -> TypeGuard[Sequence[Message]]:
    """Whether inputs are messages, each with a role and a content."""
    return (
        isinstance(inputs, list)
        and bool(inputs)
        and all(isinstance(each, Mapping) and {"role", "content"} <= set(each) for each in inputs)
    )


class ChatTokenizer:
    """A tokenizer that adds no token to a text, since the chat template holds them all; else the one that it is made of."""

    def __init__(self, tokenizer: Any) -> None:
        """Keep the tokenizer."""
        self.plain_tokenizer = tokenizer

    def __call__(self, text: Any, **options: Any) -> Any:
        """Return the ids of texts."""
        return self.plain_tokenizer(text, **{"add_special_tokens": False, **options})

    def __getattr__(self, name: str) -> Any:
        """Return what the tokenizer has."""
        if name == "plain_tokenizer":  # of a copy that has nothing yet
            raise AttributeError(name)
        return getattr(self.plain_tokenizer, name)


def chat_text(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Write a chat as a text, ready for the next answer unless it ends with one.

    Raises:
        ValueError: no tokenizer, or one without chat template; content that is no text; a chat that the template refuses.
        ImportError: jinja2 is missing, which templates are written in.
    """
    if not getattr(tokenizer, "chat_template", None):
        kind = "no tokenizer" if tokenizer is None else f"a {type(tokenizer).__name__} without chat template"
        raise ValueError(
            f"A chat of {len(messages)} messages is given, and {kind}: pass the tokenizer of a model that chats, or write the "
            "chat as a text."
        )
    plain = [{**message, "content": _content(message, number)} for number, message in enumerate(messages)]
    try:
        return str(
            tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=plain[-1]["role"] != "assistant")
        )
    except ImportError as error:
        raise ImportError('Chat templates need jinja2: pip install "jaxflow-attention[hf]", or jinja2.') from error
    except Exception as error:  # templates raise what they like
        raise ValueError(f"The chat template of {type(tokenizer).__name__} refuses these messages: {error}") from error


def _content(message: Message, number: int) -> str:
    content = message["content"]
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f"The content of message {number} ({message['role']}) is {content!r:.60}; expected a text, or a list of parts that "
            "are texts."
        )
    return "".join(map(str, texts))


def turn_spans(tokenizer: Any, text: str, messages: Sequence[Message]) -> list[tuple[int, int, str]]:
    """Group the tokens of a chat: what each message says, named by its role, and what the template puts between them.

    Args:
        tokenizer: tells offsets, and adds no tokens.
        text: as `chat_text` writes it.
        messages: the chat.

    Returns:
        `(start, stop, name)` each, which together hold all tokens. A second message of a role is "user 2".

    Raises:
        ValueError: a tokenizer without offsets; a message that the template does not write as it is.
    """
    offsets = offsets_of(tokenizer, text)[1]
    turns: list[tuple[int, int, str]] = []
    seen: collections.Counter[str] = collections.Counter()
    end = 0
    for number, message in enumerate(messages):
        said = _content(message, number).strip()
        start = text.find(said, end)
        if start < 0 or not said:
            raise ValueError(
                f"Message {number} ({message['role']}) is not in the text as it is: it is empty, or the chat template changes "
                "it. Give spans as (start, stop, name) in tokens."
            )
        end = start + len(said)
        role = str(message["role"])
        seen[role] += 1
        tokens = [token for token, (first, last) in enumerate(offsets) if first < end and last > start]
        begin = max(tokens[0], turns[-1][1] if turns else 0)  # a token may be of both
        turns.append((begin, max(tokens[-1] + 1, begin), role if seen[role] == 1 else f"{role} {seen[role]}"))
    found: list[tuple[int, int, str]] = []
    before = 0
    for start, stop, name in [*turns, (len(offsets), len(offsets), "")]:
        if before < start:
            found.append((before, start, short(text[offsets[before][0] : offsets[start - 1][1]]) or "template"))
        if start < stop:
            found.append((start, stop, name))
        before = stop
    return found
