"""`propositional`: a trained encoder-decoder that reads a propositional formula and generates an assignment that satisfies it.

"& a ! b" -> "a !b". `jaxflow.zoo.logic` has the syntax and the checker of answers. The model card, README.md beside this
file, says how it was trained and how good it is. `python -m zoo.propositional.train` trains it again, in a checkout.
"""

from pathlib import Path

from jaxflow.zoo.logic._language import Language
from jaxflow.zoo.logic._loading import load_reasoning
from jaxflow.zoo.logic._model import FormulaTransformer
from jaxflow.zoo.logic._tokenizer import FormulaTokenizer

__all__ = ["LANGUAGE", "load", "make_network"]

LANGUAGE = Language(
    name="propositional",
    operators={"!": 1, "&": 2, "|": 1, ">": 1},
    propositions="abcd",
    sizes=range(2, 11),
    longer=range(11, 16),
    max_positions=1,
)


def make_network() -> FormulaTransformer:
    """Make the network, without parameters."""
    return FormulaTransformer(LANGUAGE.vocabulary, n_target=8)


def load(directory: Path | None = None) -> tuple[FormulaTransformer, FormulaTokenizer]:
    """Load the trained model.

    Args:
        directory: With `propositional.safetensors`, such as the `--output` of your own training. By default, the package.

    Returns:
        The module, bound to its parameters, and its tokenizer.

    Raises:
        ValueError: for weights that do not fit the module.
        FileNotFoundError: for a directory without weights.
    """
    return load_reasoning(make_network(), LANGUAGE, directory=directory)
