"""How a tokenizer spells the text: from its tokens to the pieces of text that they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # as SentencePiece writes a byte that no token holds
BLANK = "▁"  # of SentencePiece
LONGEST_LETTER = 4  # bytes of UTF-8


class Piece(NamedTuple):
    """What a token is in the text.

    Attributes:
        content: text, with its own blanks; or bytes, where tokens may divide a letter.
        gap: whether a blank stands before it that no token holds; None where the tokenizer does not say.
    """

    content: str | bytes
    gap: bool | None = False


Spelling = Callable[[Sequence[str]], list[Piece]]


def spelling_of(tokenizer: Any) -> Spelling:
    """Return how a tokenizer spells texts, by what it has for turning tokens back into text.

    A fast tokenizer of transformers has a decoder that says so; others have a table of bytes, a model of SentencePiece or
    WordPiece, or `convert_tokens_to_string`. Tokens of one that has none of these are words.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return _by_decoder(backend)
    if isinstance(getattr(tokenizer, "byte_decoder", None), Mapping):
        return _by_bytes(tokenizer.byte_decoder)
    if hasattr(tokenizer, "wordpiece_tokenizer"):
        return _by_prefix("##")
    if hasattr(tokenizer, "sp_model"):
        return _by_marks({BLANK: " "}, has_bytes=True)
    if callable(getattr(tokenizer, "convert_tokens_to_string", None)):
        return _by_asking(tokenizer.convert_tokens_to_string)
    return _as_words


def texts_of(pieces: Sequence[Piece]) -> list[str]:
    r"""Turn the contents of neighbouring tokens into text.

    A letter that several tokens share is a part in each, `好(1/2)`; a byte that belongs to no letter is written as `\xe5`.
    """
    if all(isinstance(piece.content, str) for piece in pieces):
        return [str(piece.content) for piece in pieces]
    contents = [c.encode("utf-8", "surrogatepass") if isinstance(c, str) else c for c, _ in pieces]
    try:
        return [content.decode() for content in contents]
    except UnicodeDecodeError:
        pass
    whole = b"".join(contents)
    owners = [number for number, content in enumerate(contents) for _ in content]
    texts = [""] * len(contents)
    for letter, start, stop in _letters(whole):
        sharing = list(dict.fromkeys(owners[start:stop]))
        for place, owner in enumerate(sharing, start=1):
            texts[owner] += letter if len(sharing) == 1 else f"{letter}({place}/{len(sharing)})"
    return texts


def _letters(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Divide bytes into letters, each with its first byte and the one after its last; what is none is a byte by itself."""
    start = 0
    while start < len(data):
        for stop in range(start + 1, min(start + LONGEST_LETTER, len(data)) + 1):
            try:
                letter = data[start:stop].decode()
            except UnicodeDecodeError:
                continue
            break
        else:
            letter, stop = f"\\x{data[start]:02x}", start + 1
        yield letter, start, stop
        start = stop


def _by_decoder(backend: Any) -> Spelling:
    """Read off a tokenizer of the library tokenizers how it joins tokens; without a decoder, how it divides texts."""
    steps = {step["type"]: step for part in (backend.decoder or backend.pre_tokenizer,) for step in _steps(part)}
    suffix = getattr(backend.model, "end_of_word_suffix", None) or steps.get("BPEDecoder", {}).get("suffix")
    prefix = steps.get("WordPiece", {}).get("prefix") or getattr(backend.model, "continuing_subword_prefix", None)
    if suffix:
        return _by_suffix(suffix, in_bytes="ByteLevel" in steps)
    if "ByteLevel" in steps:
        return _by_bytes(_BYTES)
    marks = {}
    if "Metaspace" in steps:
        marks[steps["Metaspace"]["replacement"]] = " "
    if "Replace" in steps and "String" in steps["Replace"]["pattern"]:
        marks[steps["Replace"]["pattern"]["String"]] = steps["Replace"]["content"]
    if marks or "ByteFallback" in steps:
        return _by_marks(marks, has_bytes="ByteFallback" in steps)
    if prefix:
        return _by_prefix(prefix)
    if "Fuse" in steps:
        return _by_marks({}, has_bytes=False)
    return _as_words


def _steps(part: Any) -> list[dict[str, Any]]:
    """List the steps of a decoder or a pre-tokenizer."""
    if part is None:
        return []
    try:
        state = json.loads(part.__getstate__())
    except Exception:  # one that is written in Python cannot say
        return []
    return state.get("decoders") or state.get("pretokenizers") or [state]


def _by_bytes(table: Mapping[str, int]) -> Spelling:
    def spell(tokens: Sequence[str]) -> list[Piece]:
        return [Piece(_bytes(token, table)) for token in tokens]

    return spell


def _bytes(token: str, table: Mapping[str, int]) -> str | bytes:
    """Return the bytes that letters stand for; the token itself where one stands for none, as it was added as it is."""
    try:
        return bytes(table[letter] for letter in token)
    except KeyError:
        return token


def _by_marks(marks: Mapping[str, str], *, has_bytes: bool) -> Spelling:
    def content(token: str) -> str | bytes:
        byte = BYTE.fullmatch(token) if has_bytes else None
        if byte:
            return bytes.fromhex(byte[1])
        for mark, text in marks.items():
            token = token.replace(mark, text)
        return token

    def spell(tokens: Sequence[str]) -> list[Piece]:
        return [Piece(content(token)) for token in tokens]

    return spell


def _by_prefix(prefix: str) -> Spelling:
    def spell(tokens: Sequence[str]) -> list[Piece]:
        return [
            Piece(token[len(prefix) :]) if token.startswith(prefix) and len(token) > len(prefix) else Piece(token, None)
            for token in tokens
        ]

    return spell


def _by_suffix(suffix: str, *, in_bytes: bool) -> Spelling:
    def spell(tokens: Sequence[str]) -> list[Piece]:
        pieces, gap = [], True
        for token in tokens:
            bare = token.removesuffix(suffix)
            pieces.append(Piece(_bytes(bare, _BYTES) if in_bytes else bare, gap))
            gap = bare != token
        return pieces

    return spell


def _by_asking(to_string: Callable[[list[str]], Any]) -> Spelling:
    """Let a tokenizer join tokens: each alone, or together with those that it shares a letter with; and to those before."""

    def text(tokens: Sequence[str]) -> str:
        try:
            joined = to_string(list(tokens))
        except (KeyError, TypeError, ValueError):  # tokens that it would never write
            return ""
        return joined if isinstance(joined, str) else ""

    def spell(tokens: Sequence[str]) -> list[Piece]:
        pieces: list[Piece] = []
        before: Sequence[str] = ()
        while len(pieces) < len(tokens):
            start = len(pieces)
            lengths = range(1, min(LONGEST_LETTER, len(tokens) - start) + 1)
            texts = [text(tokens[start : start + length]) for length in lengths]
            n = next((n for n, one in zip(lengths, texts, strict=True) if one and "\ufffd" not in one), 1)
            own = texts[n - 1] or tokens[start]
            now = tokens[start : start + n]
            both = text([*before, *now])
            gap = False if both == text(before) + own else True if both == f"{text(before)} {own}" else None
            pieces += [Piece(own if n == 1 else f"{own}({k}/{n})", gap and k == 1) for k in range(1, n + 1)]
            before = now
        return pieces

    return spell


def _as_words(tokens: Sequence[str]) -> list[Piece]:
    return [Piece(token, None) for token in tokens]


def _letters_of_bytes() -> dict[str, int]:
    """Tell which byte each letter of GPT-2's tokens stands for: itself where it can be printed, else one of those from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTES = _letters_of_bytes()
