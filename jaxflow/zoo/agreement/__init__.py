"""`agreement`: a trained encoder that predicts whether the next verb is singular or plural.

It reads an English sentence up to the verb ("the keys to the old cabinet near the doors"); its prediction is at the first
token, [CLS]. `lexicon` has the words that it knows. The model card, README.md beside this file, says how it was trained
and how good it is. `python -m zoo.agreement.train` trains it again, in a checkout.
"""

from pathlib import Path

import jax
import jax.numpy as jnp

from jaxflow.zoo._tokenizer import WordTokenizer
from jaxflow.zoo._weights import bind_weights
from jaxflow.zoo.agreement import _lexicon as lexicon
from jaxflow.zoo.agreement._model import AgreementEncoder
from jaxflow.zoo.agreement._tokenizer import VOCABULARY, text_of, tokenizer

__all__ = ["NAME", "VOCABULARY", "AgreementEncoder", "lexicon", "load", "text_of", "tokenizer"]

NAME = "agreement"


def load(directory: Path | None = None) -> tuple[AgreementEncoder, WordTokenizer]:
    """Load the trained model.

    Args:
        directory: With `agreement.safetensors`, such as the `--output` of your own training. By default, the package.

    Returns:
        The module, bound to its parameters, and its tokenizer.

    Raises:
        ValueError: for weights that do not fit the module.
        FileNotFoundError: for a directory without weights.

    Example:
        >>> model, tokenizer = load()
        >>> logits = model(**tokenizer("the keys to the old cabinet"))
        >>> model.labels[int(logits[0].argmax())]
        'plural'
    """
    module = AgreementEncoder()
    ids = jax.ShapeDtypeStruct((1, module.n_positions), jnp.int32)
    bound = bind_weights(module, NAME, vocabulary=VOCABULARY, inputs=[ids], directory=directory)
    return bound, tokenizer(module.n_positions)
