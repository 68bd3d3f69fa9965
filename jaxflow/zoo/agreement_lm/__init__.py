"""`agreement-lm`: a trained decoder that generates the verb of an English sentence, in its number, and the ending.

It reads a sentence up to the verb ("the keys to the old cabinet") and generates word by word, up to the full stop.
`endings` has the words that it knows besides those of `agreement`. The model card, README.md beside this file, says how
it was trained and how good it is. `python -m zoo.agreement_lm.train` trains it again, in a checkout.
"""

from pathlib import Path

import jax
import jax.numpy as jnp

from jaxflow.zoo._tokenizer import WordTokenizer
from jaxflow.zoo._weights import bind_weights
from jaxflow.zoo.agreement_lm import _endings as endings
from jaxflow.zoo.agreement_lm._model import AgreementDecoder
from jaxflow.zoo.agreement_lm._tokenizer import BOS, VOCABULARY, tokenizer

__all__ = ["BOS", "NAME", "VOCABULARY", "AgreementDecoder", "endings", "load", "tokenizer"]

NAME = "agreement-lm"


def load(directory: Path | None = None) -> tuple[AgreementDecoder, WordTokenizer]:
    """Load the trained model.

    Args:
        directory: With `agreement-lm.safetensors`, such as the `--output` of your own training. By default, the package.

    Returns:
        The module, bound to its parameters, and its tokenizer.

    Raises:
        ValueError: for weights that do not fit the module.
        FileNotFoundError: for a directory without weights.

    Example:
        >>> model, tokenizer = load()
        >>> logits = model(**tokenizer("the keys to the old cabinet"))
        >>> model.labels[int(logits[0, -1].argmax())]
        'are'
    """
    module = AgreementDecoder()
    ids = jax.ShapeDtypeStruct((1, module.max_length), jnp.int32)
    bound = bind_weights(module, NAME, vocabulary=VOCABULARY, inputs=[ids], directory=directory)
    return bound, tokenizer(module.max_length)
