"""Names of tokens: the pieces of text that they are, as the tokenizer that made them spells them."""

from __future__ import annotations

import re
import weakref
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxflow._printable import visible
from jaxflow.explain._offsets import offsets_of
from jaxflow.explain._spelling import Piece, spelling_of, texts_of

Kind = Literal["word", "part", "special"]
# What tokenizers add to a text, where only the names are known.
SPECIAL = re.compile(r"\[(CLS|SEP|PAD|MASK|UNK|BOS|EOS)\]|</?(s|pad|unk|mask|bos|eos|start|end)>|<\|\w+\|>")


class TokenName(NamedTuple):
    """The name of a token.

    Attributes:
        name: what is read, on one line and never empty: the token's piece of the text, without the blank before it. A letter
            that several tokens share is named in each as a part of it: `好(1/2)`.
        kind: "word" for the first token and for one that a blank stands before; "part" for one that goes on with the token
            before it; "special" for one that is not of the text, such as [CLS].
    """

    name: str
    kind: Kind


def name_tokens(
    tokenizer: Any,
    ids: Int[np.ndarray, " token"] | Sequence[int],
    *,
    text: str | None = None,
    are_apart: bool = False,
) -> list[TokenName]:
    """Name tokens, by asking the tokenizer what each is in the text.

    Names of byte-level tokens are the text that their bytes are, those of SentencePiece have no "▁", and those of WordPiece no
    "##".

    Args:
        tokenizer: as `explain` takes it.
        ids: `[token]`, in the order of the text: tokens that share a letter are named together.
        text: what the first of them were made of, if it is known. It tells of tokenizers that do not (those of whole words, and
            WordPiece of signs) whether a blank stands before a token.
        are_apart: whether the tokens are no text, such as the likeliest of each position; each is named by itself.

    Returns:
        A name for each; `#7` for an id that the tokenizer has no token for, as models have spare ones.

    Example:
        >>> from jaxflow import load_model
        >>> _, tokenizer = load_model("agreement")
        >>> name_tokens(tokenizer, tokenizer("keys'")["input_ids"][0], text="keys'")[1:]
        [TokenName(name='keys', kind='word'), TokenName(name="'", kind='part')]
    """
    numbers = [int(number) for number in np.ravel(np.asarray(ids))]
    tokens = _tokens(tokenizer, numbers)
    special, verbatim = _added(tokenizer)
    spell = spelling_of(tokenizer)
    blanks = None
    named: list[TokenName] = []
    start = 0
    while start < len(numbers):
        number, token = numbers[start], tokens[start]
        is_first = are_apart or not named or named[-1].kind == "special"
        if token is None:
            named.append(TokenName(f"#{number}", "word"))
        elif number in special:
            named.append(TokenName(visible(token), "special"))
        elif number in verbatim:
            named.append(_named(token, Piece(token), is_first=is_first))
        else:
            stop = start + 1
            while not are_apart and stop < len(numbers) and tokens[stop] is not None and numbers[stop] not in special:
                if numbers[stop] in verbatim:
                    break
                stop += 1
            pieces = spell([token or "" for token in tokens[start:stop]])
            if blanks is None and any(piece.gap is None for piece in pieces):
                # The usual case of such a tokenizer, told without reading the text again.
                are_words = text is not None and text.split() == tokens[start:stop]
                blanks = [] if are_words else _blanks(tokenizer, numbers, text)
            for i, (piece, content) in enumerate(zip(pieces, texts_of(pieces), strict=True), start=start):
                if piece.gap is None:
                    piece = piece._replace(gap=blanks[i] if blanks and i < len(blanks) else True)
                named.append(_named(content, piece, is_first=is_first and i == start))
        start = len(named)
    return named


def find_token(tokenizer: Any, name: str) -> int | None:
    """Return the token of that name: one that begins a word, or else any, or else the one that the tokenizer spells so.

    After a blank, such as " Paris", it must begin a word. The names of a vocabulary are found once for each tokenizer: of 50,000
    tokens in 0.4 s. One without `get_vocab` is asked for the token itself.
    """
    tokenizer = getattr(tokenizer, "plain_tokenizer", tokenizer)
    if not hasattr(tokenizer, "get_vocab"):
        number = int(tokenizer.convert_tokens_to_ids(name))
        return number if _tokens(tokenizer, [number])[0] == name else None
    n_tokens = len(tokenizer) if hasattr(tokenizer, "__len__") else None
    known = _known.get(tokenizer)
    if known is None or known[0] != n_tokens:
        known = _known[tokenizer] = n_tokens, _vocabulary(tokenizer)
    return known[1].get(name)


_known: weakref.WeakKeyDictionary[Any, tuple[int | None, dict[str, int]]] = weakref.WeakKeyDictionary()


def _vocabulary(tokenizer: Any) -> dict[str, int]:
    """Return the tokens by all that they are called, what is meant first taking the place of the others."""
    vocabulary = {token: int(number) for token, number in tokenizer.get_vocab().items()}
    names = name_tokens(tokenizer, list(vocabulary.values()), are_apart=True)
    pieces = spelling_of(tokenizer)(list(vocabulary))
    begins = [piece.gap is not False or piece.content[:1] in (" ", b" ") for piece in pieces]
    found = dict(vocabulary)
    for is_meant in (False, True):
        for number, named, begun in zip(vocabulary.values(), names, begins, strict=True):
            if begun is is_meant:
                found[named.name] = number
                if begun and named.kind == "word":
                    found[f" {named.name}"] = number
    return found


def plain_names(names: Sequence[str]) -> list[TokenName]:
    """Take names as they are given: each a word, or special if it is written as tokens are that tokenizers add.

    Example:
        >>> [token.kind for token in plain_names(["[CLS]", "keys"])]
        ['special', 'word']
    """
    return [TokenName(visible(name), "special" if SPECIAL.fullmatch(name) else "word") for name in names]


def join_names(tokens: Sequence[TokenName]) -> str:
    """Join tokens to the text that they are.

    Example:
        >>> join_names([TokenName("the", "word"), TokenName("key", "word"), TokenName("s", "part")])
        'the keys'
    """
    return "".join(name if kind == "part" or not i else f" {name}" for i, (name, kind) in enumerate(tokens))


def _named(content: str, piece: Piece, *, is_first: bool) -> TokenName:
    """Leave out a blank before a word; any other blank is seen in the name."""
    if content[:1] == " " and content[1:2].strip() and not piece.gap:
        return TokenName(visible(content[1:]), "word")
    return TokenName(visible(content), "word" if is_first or piece.gap else "part")


def _tokens(tokenizer: Any, numbers: Sequence[int]) -> list[str | None]:
    """Return tokens as the tokenizer writes them; None for ids that it has none for."""

    def ask(some: list[int]) -> list[str | None]:
        return list(tokenizer.convert_ids_to_tokens(some))

    def one(number: int) -> str | None:
        try:
            return ask([number])[0] if number >= 0 else None
        except (IndexError, KeyError, OverflowError):
            return None

    try:
        return ask(list(numbers)) if min(numbers, default=0) >= 0 else [one(number) for number in numbers]
    except (IndexError, KeyError, OverflowError):
        return [one(number) for number in numbers]


def _added(tokenizer: Any) -> tuple[set[int], set[int]]:
    """Return the ids of tokens that are not of the text, and of those that are and were added as they are read."""
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    special = set(getattr(tokenizer, "all_special_ids", ()))
    special |= {number for number, token in added.items() if getattr(token, "special", False)}
    return special, set(added) - special


def _blanks(tokenizer: Any, numbers: Sequence[int], text: str | None) -> list[bool]:
    """Tell of the first tokens whether a blank of the text stands before them; of none where the text is not theirs."""
    if text is None:
        return []
    try:
        ids, offsets = offsets_of(tokenizer, text)
    except ValueError:
        return []
    if list(numbers[: len(ids)]) != ids:
        return []
    ends = [0, *(stop for _, stop in offsets[:-1])]
    return [text[end:start][-1:].isspace() for end, (start, _) in zip(ends, offsets, strict=True)]
