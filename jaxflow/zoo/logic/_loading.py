"""A reasoning model with its trained weights and its tokenizer."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp

from jaxflow.zoo._weights import bind_weights
from jaxflow.zoo.logic._language import Language
from jaxflow.zoo.logic._model import FormulaTransformer
from jaxflow.zoo.logic._tokenizer import FormulaTokenizer

STORED = "float16"


def tokenizer_of(module: FormulaTransformer, language: Language) -> FormulaTokenizer:
    """Give the tokenizer that fits a network and its language."""
    return FormulaTokenizer(language, model_max_length=module.n_source, max_depth=module.n_path)


def load_reasoning(
    module: FormulaTransformer, language: Language, *, directory: Path | None = None
) -> tuple[FormulaTransformer, FormulaTokenizer]:
    """Bind a network to its weights, and give its tokenizer. Arguments and errors: those of `bind_weights`."""
    ids = [jax.ShapeDtypeStruct((1, n), jnp.int32) for n in (module.n_source, module.n_target)]
    bound = bind_weights(module, language.name, vocabulary=module.labels, inputs=ids, dtype=STORED, directory=directory)
    return bound, tokenizer_of(module, language)
