"""Train the model `propositional`: `python -m jaxflow.zoo.propositional.train --output DIR`.

Needs the extra `train` (optax). The same settings on the same machine and versions give the same weights.
"""

from jaxflow.zoo import command
from jaxflow.zoo.logic.loading import tokenizer_of
from jaxflow.zoo.logic.model import FormulaTransformer
from jaxflow.zoo.logic.train import recipe_of
from jaxflow.zoo.propositional import LANGUAGE, network
from jaxflow.zoo.training import Settings

SETTINGS = Settings(steps=5_000, batch_size=256, n_examples=30_000, learning_rate=1.5e-3)


def recipe(module: FormulaTransformer | None = None) -> command.Recipe:
    """Give what makes the model, or one of other sizes."""
    module = network() if module is None else module
    return recipe_of(module, tokenizer_of(module, LANGUAGE), SETTINGS)


if __name__ == "__main__":
    command.main(recipe())
