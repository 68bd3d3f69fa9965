"""Token ids that a model has an embedding for: JAX wraps negative ones, and reads NaN beyond the last, without a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxflow.models._model import Model


def check_token_ids(model: Model, args: tuple, kwargs: Mapping[str, Any]) -> None:
    """Refuse inputs called `input_ids`, or `..._input_ids`, that hold no tokens, or none of the model's.

    Raises:
        ValueError: no token; numbers that are not whole, negative, or beyond the vocabulary, if the model says how large it is.
    """
    inputs = model.arguments(args, kwargs) if args else kwargs
    for name, ids in inputs.items():
        if not name.endswith("input_ids") or not _is_known(ids):
            continue
        values = np.asarray(ids)
        if not values.size:
            raise ValueError(f"{name} has shape {values.shape}: it holds no token. Give one or more, [batch, token].")
        if values.dtype.kind not in "iu":
            raise ValueError(f"{name} is {values.dtype}; expected token ids, whole numbers: {name}.astype('int32').")
        n_words = model.facts.n_words
        if values.ndim < 2 and n_words is not None:
            raise ValueError(f"{name} has shape {values.shape}; expected [batch, token]: {name}[None] for one example.")
        least, most = int(values.min()), int(values.max())
        if least < 0:
            raise ValueError(
                f"{name} holds {least}; expected token ids of 0 or more. JAX would count it from the end of the vocabulary. If "
                "it stands for padding, put the tokenizer's pad_token_id there, and 0 in the attention_mask."
            )
        if n_words is not None and most >= n_words:
            raise ValueError(
                f"{name} holds {most}; {model.name} knows {n_words} tokens, 0 to {n_words - 1}. Was the text read by the "
                "tokenizer of another model?"
            )


def _is_known(ids: Any) -> bool:
    """Whether an input is an array whose values can be looked at here: not traced, and not on other hosts."""
    is_traced = isinstance(ids, jax.core.Tracer) or not getattr(ids, "is_fully_addressable", True)
    return isinstance(ids, np.ndarray | jax.Array) and not is_traced
