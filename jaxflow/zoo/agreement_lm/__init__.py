"""`agreement-lm`: a trained decoder that writes the verb of an English sentence, in its number, and the rest of it.

It reads a sentence up to the verb ("the keys to the old cabinet") and writes on, word by word, to the full stop. The
sentences it was trained on: `jaxflow.zoo.agreement_lm.grammar`. How it was trained and how good it is: the model
card, README.md beside this file. `python -m jaxflow.zoo.agreement_lm.train` makes it anew.
"""

from pathlib import Path

import jax
import jax.numpy as jnp

from jaxflow.zoo import weights
from jaxflow.zoo.agreement_lm.model import AgreementDecoder
from jaxflow.zoo.agreement_lm.tokenizer import VOCABULARY, tokenizer
from jaxflow.zoo.tokenizer import WordTokenizer

__all__ = ["NAME", "AgreementDecoder", "load"]

NAME = "agreement-lm"


def load(directory: Path | None = None) -> tuple[AgreementDecoder, WordTokenizer]:
    """Load the trained model.

    Args:
        directory: Where `agreement-lm.safetensors` lies, such as the `--output` of a training of your own. By
            default, the package.

    Returns:
        The module, bound to its parameters, and its tokenizer.

    Raises:
        ValueError: for weights that do not fit the module.
        FileNotFoundError: for a directory without them.

    Example:
        >>> model, tokenizer = load()
        >>> logits = model(**tokenizer("the keys to the old cabinet"))
        >>> model.labels[int(logits[0, -1].argmax())]
        'are'
    """
    module = AgreementDecoder()
    ids = jax.ShapeDtypeStruct((1, module.max_length), jnp.int32)
    bound = weights.load(module, NAME, vocabulary=VOCABULARY, inputs=[ids], directory=directory)
    return bound, tokenizer(module.max_length)
