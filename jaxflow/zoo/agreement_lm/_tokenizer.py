"""English words to tokens, for whole sentences."""

from jaxflow.zoo._tokenizer import PAD, WordTokenizer
from jaxflow.zoo.agreement import _lexicon as lexicon
from jaxflow.zoo.agreement._tokenizer import text_of, words_of
from jaxflow.zoo.agreement_lm._endings import WORDS

BOS = "[BOS]"
VOCABULARY = (PAD, BOS, *dict.fromkeys((*lexicon.WORDS, *WORDS)))


def tokenizer(max_length: int) -> WordTokenizer:
    """Make the tokenizer of `agreement-lm`, with [BOS] before every text.

    Args:
        max_length: The longest sequence of its model, read and generated, with [BOS].

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
        purpose="finishes short English sentences with a verb that agrees with the subject",
    )
