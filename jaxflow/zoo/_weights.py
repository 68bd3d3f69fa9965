"""Weights of the shipped models, read from safetensors files; nothing is unpickled."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxflow.zoo import package_of


def file_of(name: str) -> str:
    """Give the name of a model's weights file."""
    return f"{name}.safetensors"


def format_of(name: str) -> str:
    """Give what the metadata of a model's weights file has as "format"."""
    return f"jaxflow-{name}-1"


def bind_weights(
    module: nn.Module,
    name: str,
    *,
    vocabulary: Sequence[str],
    inputs: Sequence[Any],
    dtype: str = "float32",
    directory: Path | None = None,
) -> Any:
    """Bind a module to the weights in the package, or to others of the same model.

    Args:
        module: The module.
        name: Of the model, as `load_model` takes it.
        vocabulary: As in `read_weights`.
        inputs: As in `read_weights`.
        dtype: As in `read_weights`.
        directory: With the weights file; by default, the model's package.

    Returns:
        The bound module.

    Raises:
        ValueError: as `read_weights`.
        FileNotFoundError: for a directory without weights.
    """
    with resources.as_file(resources.files(package_of(name))) as package:
        path = (directory or package) / file_of(name)
        params = read_weights(module, path, name=name, vocabulary=vocabulary, inputs=inputs, dtype=dtype)
    return module.bind({"params": params})


def read_weights(
    module: nn.Module,
    path: Path,
    *,
    name: str,
    vocabulary: Sequence[str],
    inputs: Sequence[Any],
    dtype: str = "float32",
) -> Any:
    """Read parameters, and check that they fit the module.

    Args:
        module: The module.
        path: The file.
        name: Of the model, as `load_model` takes it.
        vocabulary: Its tokens, in order.
        inputs: What the module is initialised with: arrays, or their `jax.ShapeDtypeStruct`s.
        dtype: Of the stored arrays. The parameters come back in the dtypes of the module.

    Returns:
        The tree for `{"params": ...}`.

    Raises:
        ValueError: for a damaged file, another format, another vocabulary, or arrays of other names, shapes or dtypes.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            flat = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or a damaged one: {error}") from error
    if metadata.get("format") != format_of(name):
        trainer = package_of(name).removeprefix("jaxflow.") + ".train"
        raise ValueError(
            f"{path} has the format {metadata.get('format')!r}; expected {format_of(name)!r}. Was it written by "
            f"`python -m {trainer}` in a checkout of this version?"
        )
    if metadata.get("vocabulary") != " ".join(vocabulary):
        raise ValueError(f"{path} was trained on another vocabulary than this version's; train it anew")
    own = flatten_dict(jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"], sep="/")
    expected = {key: jax.ShapeDtypeStruct(array.shape, np.dtype(dtype)) for key, array in own.items()}
    wrong = [
        f"{key}: got {_describe(flat.get(key))}, expected {_describe(expected.get(key))}"
        for key in sorted({*flat, *expected})
        if _describe(flat.get(key)) != _describe(expected.get(key))
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{path} does not fit the module: {'; '.join(wrong[:3])}{more}")
    return unflatten_dict({key: jnp.asarray(array, own[key].dtype) for key, array in flat.items()}, sep="/")


def _describe(array: Any) -> str:
    return "nothing" if array is None else f"{array.dtype}{list(array.shape)}"
