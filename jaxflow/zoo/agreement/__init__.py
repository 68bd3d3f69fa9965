"""`agreement`: a trained encoder that tells whether the verb to come is singular or plural.

It reads an English sentence up to the verb ("the keys to the old cabinet near the doors") and answers from
its first token, [CLS]. The words it knows and the sentences it was trained on:
`jaxflow.zoo.agreement.lexicon` and `.grammar`. How it was trained and how good it is: the model card,
README.md beside this file. `python -m jaxflow.zoo.agreement.train` makes it anew.
"""

from pathlib import Path

import jax
import jax.numpy as jnp

from jaxflow.zoo import weights
from jaxflow.zoo.agreement.model import AgreementEncoder
from jaxflow.zoo.agreement.tokenizer import VOCABULARY, tokenizer
from jaxflow.zoo.tokenizer import WordTokenizer

__all__ = ["NAME", "AgreementEncoder", "load"]

NAME = "agreement"


def load(directory: Path | None = None) -> tuple[AgreementEncoder, WordTokenizer]:
    """Load the trained model.

    Args:
        directory: Where `agreement.safetensors` lies, such as the `--output` of a training of your own. By
            default, the package.

    Returns:
        The module, bound to its parameters, and its tokenizer.

    Raises:
        ValueError: for weights that do not fit the module.
        FileNotFoundError: for a directory without them.

    Example:
        >>> model, tokenizer = load()
        >>> logits = model(**tokenizer("the keys to the old cabinet"))
        >>> model.labels[int(logits[0].argmax())]
        'plural'
    """
    module = AgreementEncoder()
    ids = jax.ShapeDtypeStruct((1, module.n_positions), jnp.int32)
    bound = weights.load(module, NAME, vocabulary=VOCABULARY, inputs=[ids], directory=directory)
    return bound, tokenizer(module.n_positions)
