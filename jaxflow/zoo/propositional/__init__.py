"""`propositional`: a trained encoder-decoder that reads a propositional formula and writes an assignment that satisfies it.

"& a ! b" -> "a !b". What it reads and writes: `jaxflow.zoo.logic`. How it was trained and how good it is: the model card,
README.md beside this file. `python -m jaxflow.zoo.propositional.train` makes it anew.
"""

from pathlib import Path

from jaxflow.zoo.logic import loading
from jaxflow.zoo.logic.language import Language
from jaxflow.zoo.logic.model import FormulaTransformer
from jaxflow.zoo.logic.tokenizer import FormulaTokenizer

__all__ = ["LANGUAGE", "load", "network"]

LANGUAGE = Language(
    name="propositional",
    operators={"!": 1, "&": 2, "|": 1, ">": 1},
    propositions="abcd",
    sizes=range(2, 11),
    longer=range(11, 16),
    max_positions=1,
)


def network() -> FormulaTransformer:
    """Give the network, without parameters."""
    return FormulaTransformer(LANGUAGE.vocabulary, n_target=8)


def load(directory: Path | None = None) -> tuple[FormulaTransformer, FormulaTokenizer]:
    """Load the trained model.

    Args:
        directory: Where `propositional.safetensors` lies, such as the `--output` of a training of your own. By default, the
            package.

    Returns:
        The module, bound to its parameters, and its tokenizer.

    Raises:
        ValueError: for weights that do not fit the module.
        FileNotFoundError: for a directory without them.
    """
    return loading.load(network(), LANGUAGE, directory=directory)
