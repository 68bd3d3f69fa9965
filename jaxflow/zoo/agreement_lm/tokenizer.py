"""The words of whole sentences as tokens."""

from jaxflow.zoo.agreement import lexicon
from jaxflow.zoo.agreement.tokenizer import text_of, words_of
from jaxflow.zoo.agreement_lm import grammar
from jaxflow.zoo.tokenizer import PAD, WordTokenizer

BOS = "[BOS]"
VOCABULARY = (PAD, BOS, *dict.fromkeys((*lexicon.WORDS, *grammar.WORDS)))


def tokenizer(max_length: int) -> WordTokenizer:
    """Make the tokenizer of `agreement-lm`: [BOS] before every text, and the full stop ends it.

    Args:
        max_length: The longest sequence its model reads and writes, with [BOS].

    Example:
        >>> tokens = tokenizer(32)
        >>> tokens.decode(tokens("the guards' keys are lost.")["input_ids"][0], skip_special_tokens=True)
        "the guards' keys are lost."
    """
    return WordTokenizer(
        VOCABULARY,
        model_max_length=max_length,
        split=words_of,
        join=text_of,
        start=BOS,
        example="the keys to the old cabinet near the doors",
    )
