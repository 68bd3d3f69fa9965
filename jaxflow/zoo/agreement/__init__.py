"""`agreement`: a trained encoder that tells whether the verb to come is singular or plural.

It reads an English sentence up to the verb ("the keys to the old cabinet near the doors") and answers from
its first token, [CLS]. The words it knows and the sentences it was trained on:
`jaxflow.zoo.agreement.lexicon` and `.grammar`. How it was trained and how good it is: the model card,
README.md beside this file. `python -m jaxflow.zoo.agreement.train` makes it anew.
"""

from importlib import resources
from pathlib import Path

from jaxflow.zoo.agreement import weights
from jaxflow.zoo.agreement.model import AgreementEncoder
from jaxflow.zoo.agreement.tokenizer import VOCABULARY, WordTokenizer

__all__ = ["AgreementEncoder", "WordTokenizer", "load"]

FILE = "agreement.safetensors"


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
    with resources.as_file(resources.files(__name__)) as package:
        params = weights.read(module, (directory or package) / FILE)
    return (
        module.bind({"params": params}),
        WordTokenizer(VOCABULARY, model_max_length=module.n_positions),
    )
