"""`ltl`: a trained encoder-decoder that reads a formula of linear temporal logic and writes a trace that satisfies it.

"U a & b X c" (a until b and, next, c) -> "b ; c ; { 1 }". What it reads and writes: `jaxflow.zoo.logic`. How it was trained and
how good it is: the model card, README.md beside this file. `python -m jaxflow.zoo.ltl.train` makes it anew.
"""

from pathlib import Path

from jaxflow.zoo.logic import loading
from jaxflow.zoo.logic.language import Language
from jaxflow.zoo.logic.model import FormulaTransformer
from jaxflow.zoo.logic.tokenizer import FormulaTokenizer

__all__ = ["LANGUAGE", "load", "network"]

LANGUAGE = Language(
    name="ltl",
    operators={"!": 1, "&": 2, "|": 1, ">": 1, "X": 1, "U": 1, "R": 1, "F": 1, "G": 1},
    propositions="abc",
    sizes=range(2, 11),
    longer=range(11, 16),
    max_positions=6,
)


def network() -> FormulaTransformer:
    """Give the network, without parameters."""
    return FormulaTransformer(LANGUAGE.vocabulary, n_target=32)


def load(directory: Path | None = None) -> tuple[FormulaTransformer, FormulaTokenizer]:
    """Load the trained model.

    Args:
        directory: Where `ltl.safetensors` lies, such as the `--output` of a training of your own. By default, the package.

    Returns:
        The module, bound to its parameters, and its tokenizer.

    Raises:
        ValueError: for weights that do not fit the module.
        FileNotFoundError: for a directory without them.
    """
    return loading.load(network(), LANGUAGE, directory=directory)
