"""Which words never share a training sentence, so that held-out sentences are new combinations."""

from jaxflow.zoo.agreement import lexicon

_INDEX = {word: i for i, word in enumerate(lexicon.CONTENT_WORDS)}
_SQUARE = 5


def held_out(noun: str, word: str) -> bool:
    """Tell whether a noun and another content word are kept apart in training.

    A Latin square over the indices of the content words: `(i + j) mod 5 = 0`. For each noun one word in five is held
    out. The rule needs no seed and is symmetric.

    Args:
        noun: A noun's lemma, such as "key".
        word: Any content word; a noun by its lemma.

    Returns:
        Whether no training sentence has both.

    Example:
        >>> held_out("key", "cabinet"), held_out("cabinet", "key"), held_out("key", "door")
        (True, True, False)
    """
    return (_INDEX[noun] + _INDEX[word]) % _SQUARE == 0


HELD_OUT: dict[str, frozenset[str]] = {
    noun: frozenset(word for word in lexicon.CONTENT_WORDS if word != noun and held_out(noun, word))
    for noun in lexicon.LEMMAS
}
"""For each noun, all content words that it is kept apart from."""
