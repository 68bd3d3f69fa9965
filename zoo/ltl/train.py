"""Train the model `ltl`: `python -m zoo.ltl.train --output DIR`.

Needs the extra `train` (optax). The same settings, machine and versions give the same weights.
"""

from jaxflow.zoo.logic import FormulaTransformer, tokenizer_of
from jaxflow.zoo.ltl import LANGUAGE, make_network
from zoo import command
from zoo.logic.train import recipe_of
from zoo.training import Settings

SETTINGS = Settings(steps=7_000, batch_size=256, n_examples=50_000, learning_rate=1.5e-3)


def recipe(module: FormulaTransformer | None = None) -> command.Recipe:
    """Give the recipe of the model, or of another network for the same language."""
    module = make_network() if module is None else module
    return recipe_of(module, tokenizer_of(module, LANGUAGE), SETTINGS)


if __name__ == "__main__":
    command.main(recipe())
