"""Trained parameters into a safetensors file, with the settings that made them; `jaxflow.zoo` reads it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict

from jaxflow.zoo._weights import format_of


def rounded(params: Any, dtype: str) -> Any:
    """Round parameters to the values that a file of this dtype gives back."""
    return jax.tree.map(lambda array: jnp.asarray(array).astype(dtype).astype(array.dtype), params)


def write_weights(
    params: Any,
    path: Path,
    *,
    name: str,
    vocabulary: Sequence[str],
    made_by: dict[str, str],
    dtype: str = "float32",
) -> None:
    """Write parameters.

    Args:
        params: The tree of a linen module.
        path: File to write.
        name: Of the model, as `load_model` takes it.
        vocabulary: Its tokens, in order, none with a blank.
        made_by: For the metadata: seed, steps, version.
        dtype: Of the stored arrays: "float32", or "float16" for half the size.
    """
    flat = {key: np.asarray(array, dtype) for key, array in flatten_dict(jax.device_get(params), sep="/").items()}
    # The words go with the weights: a row of the embedding means nothing without its word.
    metadata = {"format": format_of(name), "vocabulary": " ".join(vocabulary), **made_by}
    # Not save_file: only its owner could read the file, and this one goes into a package.
    path.write_bytes(safetensors.numpy.save(flat, metadata=metadata))
