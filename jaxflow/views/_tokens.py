"""Tokens as people read them: without a tokenizer's marks for blanks, bytes and the middle of words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

JOINERS = "\u200c\u200d"  # of letters and of emoji
BLANKS = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}
# What tokenizers add to a text.
SPECIAL = re.compile(r"\[(CLS|SEP|PAD|MASK|UNK|BOS|EOS)\]|</?(s|pad|unk|mask|bos|eos|start|end)>|<\|\w+\|>")


class Token(NamedTuple):
    """One token.

    Attributes:
        text: what is read; never empty.
        raw: what the tokenizer calls it.
        is_joined: whether it goes on with the word of the token before it.
        is_special: whether the tokenizer added it to the text.
    """

    text: str
    raw: str
    is_joined: bool
    is_special: bool


def shown_tokens(tokens: Sequence[str]) -> list[Token]:
    """Write the tokens of one stack for reading.

    Bytes ("Ġ" for a blank, as GPT-2 writes them) are taken for such where a token of the text is marked so; "▁" is a blank of
    SentencePiece, "##" the middle of a word of WordPiece. Where there are no such marks, every token is a word.

    Example:
        >>> [shown.text for shown in shown_tokens(["the", "key", "##s"])], shown_tokens(["Ġkeys"])[0].text
        (['the', 'key', 's'], 'keys')
    """
    in_bytes = any(token[:1] in ("Ġ", "Ċ") for token in tokens)
    in_pieces = any(token.startswith("▁") for token in tokens)
    shown: list[Token] = []
    for token in tokens:
        if SPECIAL.fullmatch(token):
            shown.append(Token(token, token, False, True))
            continue
        text, begins = token, True
        if in_bytes:
            text = _decoded(token)
            begins = text[:1].isspace()
        elif in_pieces:
            text = token.replace("▁", " ")
            begins = text[:1] == " "
        elif token.startswith("##") and len(token) > 2:
            text, begins = token[2:], False
        is_first = not shown or shown[-1].is_special
        shown.append(Token(visible(text), token, not begins and not is_first, False))
    return shown


def visible(text: str) -> str:
    """Write a text on one line: blanks at its ends left out, or as signs where there is nothing else; nothing unprintable."""
    inner = text.strip(" ") or text
    if not inner.strip():
        inner = "".join(BLANKS.get(letter, letter) for letter in inner)
    return (
        "".join(
            c if c.isprintable() or c in JOINERS else BLANKS.get(c, c.encode("unicode_escape").decode()) for c in inner
        )
        or "∅"
    )


def runs_from_the_right(texts: Sequence[str]) -> bool:
    """Tell whether most of the letters are of scripts that are written from the right."""
    ways = [unicodedata.bidirectional(letter) for text in texts for letter in text]
    return sum(way in ("R", "AL") for way in ways) > sum(way == "L" for way in ways)


def _decoded(token: str) -> str:
    """Turn the letters that stand for bytes into the text of these; a part of a letter stays as bytes in hexadecimal."""
    try:
        data = bytes(_BYTES[letter] for letter in token)
    except KeyError:  # added to the vocabulary as it is
        return token
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode(errors="backslashreplace")


def _letters_of_bytes() -> dict[str, int]:
    """Tell which byte each letter stands for: itself where it can be printed, else one of those from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTES = _letters_of_bytes()
