"""A reasoning model with its trained weights and its tokenizer."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp

from jaxflow.zoo import weights
from jaxflow.zoo.logic.language import Language
from jaxflow.zoo.logic.model import FormulaTransformer
from jaxflow.zoo.logic.tokenizer import FormulaTokenizer

STORED = "float16"


def tokenizer_of(module: FormulaTransformer, language: Language) -> FormulaTokenizer:
    """Give the tokenizer of a network that reads a language."""
    return FormulaTokenizer(language, model_max_length=module.n_source, max_depth=module.n_path)


def load(
    module: FormulaTransformer, language: Language, *, directory: Path | None = None
) -> tuple[FormulaTransformer, FormulaTokenizer]:
    """Bind a network to its weights; arguments and errors as of `jaxflow.zoo.weights.load`."""
    ids = [jax.ShapeDtypeStruct((1, n), jnp.int32) for n in (module.n_source, module.n_target)]
    bound = weights.load(module, language.name, vocabulary=module.labels, inputs=ids, dtype=STORED, directory=directory)
    return bound, tokenizer_of(module, language)
