"""Parameters of a linen module to and from a safetensors file, with what made them; nothing is unpickled."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxflow.zoo import package_of


def file_of(name: str) -> str:
    """Give the name of a model's weights file."""
    return f"{name}.safetensors"


def load(
    module: nn.Module,
    name: str,
    *,
    vocabulary: Sequence[str],
    inputs: Sequence[Any],
    dtype: str = "float32",
    directory: Path | None = None,
) -> Any:
    """Bind a module to the weights that ship with the package, or to others of the same model.

    Args:
        module: The module they are for.
        name: Of the model.
        vocabulary: As in `read`.
        inputs: As in `read`.
        dtype: As in `read`.
        directory: Where the weights file lies; by default, the model's package.

    Returns:
        The bound module.

    Raises:
        ValueError: as `read`.
        FileNotFoundError: for a directory without them.
    """
    with resources.as_file(resources.files(package_of(name))) as package:
        path = (directory or package) / file_of(name)
        return module.bind({"params": read(module, path, name=name, vocabulary=vocabulary, inputs=inputs, dtype=dtype)})


def rounded(params: Any, dtype: str) -> Any:
    """Round parameters to what a file of that dtype gives back."""
    return jax.tree.map(lambda array: jnp.asarray(array).astype(dtype).astype(array.dtype), params)


def write(
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
        name: Of the model.
        vocabulary: Its tokens, none with a blank.
        made_by: What the file says about its making (seed, steps, version).
        dtype: What to store them in: "float32", or "float16" for half the size.
    """
    flat = {key: np.asarray(array, dtype) for key, array in flatten_dict(jax.device_get(params), sep="/").items()}
    # The words go with the weights: a row of the embedding means nothing without its word.
    metadata = {"format": _format(name), "vocabulary": " ".join(vocabulary), **made_by}
    # Not save_file: its files are readable by their owner alone, and these go into a package.
    path.write_bytes(safetensors.numpy.save(flat, metadata=metadata))


def read(
    module: nn.Module,
    path: Path,
    *,
    name: str,
    vocabulary: Sequence[str],
    inputs: Sequence[Any],
    dtype: str = "float32",
) -> Any:
    """Read parameters and check that they are the module's.

    Args:
        module: The module they are for.
        path: File to read.
        name: Of the model.
        vocabulary: Its tokens.
        inputs: What the module is initialised with: arrays, or their `jax.ShapeDtypeStruct`s.
        dtype: What they are stored in; they come back as the module has them.

    Returns:
        The tree for `{"params": ...}`.

    Raises:
        ValueError: for a file that is damaged, of another format or vocabulary, or whose arrays are not the
            module's.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            flat = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or a damaged one: {error}") from error
    if metadata.get("format") != _format(name):
        raise ValueError(
            f"{path} has the format {metadata.get('format')!r}; expected {_format(name)!r}. Was it written by "
            f"`python -m {package_of(name)}.train` of this version?"
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


def _format(name: str) -> str:
    return f"jaxflow-{name}-1"


def _describe(array: Any) -> str:
    return "nothing" if array is None else f"{array.dtype}{list(array.shape)}"
