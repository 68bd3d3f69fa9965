"""English text to words and back, and the tokenizer of `agreement`."""

import re
from collections.abc import Iterable

from jaxflow.zoo._tokenizer import PAD, WordTokenizer
from jaxflow.zoo.agreement import _lexicon as lexicon

CLS = "[CLS]"
VOCABULARY = (PAD, CLS, *lexicon.WORDS)
EXAMPLE = "the keys to the old cabinet near the doors"

# A word; the possessive mark, a token of its own; any other sign.
_PIECES = re.compile(r"'s\b|\w+(?:-\w+)*|[^\w\s]")


def words_of(text: str) -> list[re.Match[str]]:
    """Find the words and signs of a text; letter case is ignored.

    Example:
        >>> [word.group() for word in words_of("The guards' keys")]
        ['the', 'guards', "'", 'keys']
    """
    # Also written with the typographic apostrophe.
    return list(_PIECES.finditer(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")))


def text_of(words: Iterable[str]) -> str:
    """Join words to a text: punctuation and "'s" follow the word before them without a blank.

    Example:
        >>> text_of(("near", "the", "child", "'s", "door", ",", "the", "key"))
        "near the child's door, the key"
    """
    return re.sub(r" ('s\b|[',.])", r"\1", " ".join(words))


def tokenizer(n_positions: int) -> WordTokenizer:
    """Make the tokenizer of `agreement`, with [CLS] before every text.

    Args:
        n_positions: The longest sequence its model reads, with [CLS].

    Example:
        >>> tokens = tokenizer(25)
        >>> tokens.convert_ids_to_tokens(tokens("The guards' keys")["input_ids"][0])
        ['[CLS]', 'the', 'guards', "'", 'keys']
    """
    return WordTokenizer(
        VOCABULARY,
        model_max_length=n_positions,
        split=words_of,
        join=text_of,
        start=CLS,
        example=EXAMPLE,
        purpose="tells whether the subject of a short English phrase is singular or plural",
    )
