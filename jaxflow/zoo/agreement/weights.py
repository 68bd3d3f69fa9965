"""Parameters to and from a safetensors file, with what made them; nothing is unpickled."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxflow.zoo.agreement.model import AgreementEncoder
from jaxflow.zoo.agreement.tokenizer import VOCABULARY

FORMAT = "jaxflow-agreement-1"


def write(params: dict[str, Any], path: Path, *, made_by: dict[str, str]) -> None:
    """Write parameters in float32.

    Args:
        params: The tree of `AgreementEncoder`.
        path: File to write.
        made_by: What the file says about its making (seed, steps, version).
    """
    flat = flatten_dict(jax.device_get(params), sep="/")
    # The words go with the weights: a row of the embedding means nothing without its word.
    metadata = {"format": FORMAT, "vocabulary": " ".join(VOCABULARY), **made_by}
    # Not save_file: its files are readable by their owner alone, and these go into a package.
    path.write_bytes(safetensors.numpy.save(flat, metadata=metadata))


def read(module: AgreementEncoder, path: Path) -> dict[str, Any]:
    """Read parameters and check that they are the module's.

    Args:
        module: The module they are for.
        path: File to read.

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
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} has the format {metadata.get('format')!r}; expected {FORMAT!r}. Was it written by "
            "`python -m jaxflow.zoo.agreement.train` of this version?"
        )
    if metadata.get("vocabulary") != " ".join(VOCABULARY):
        raise ValueError(f"{path} was trained on another vocabulary than this version's; train it anew")
    ids = jax.ShapeDtypeStruct((1, module.n_positions), jnp.int32)
    expected = flatten_dict(jax.eval_shape(module.init, jax.random.key(0), ids)["params"], sep="/")
    wrong = [
        f"{key}: got {_describe(flat.get(key))}, expected {_describe(expected.get(key))}"
        for key in sorted({*flat, *expected})
        if _describe(flat.get(key)) != _describe(expected.get(key))
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{path} does not fit the module: {'; '.join(wrong[:3])}{more}")
    return unflatten_dict({key: jnp.asarray(array) for key, array in flat.items()}, sep="/")


def _describe(array: Any) -> str:
    return "nothing" if array is None else f"{array.dtype}{list(array.shape)}"
