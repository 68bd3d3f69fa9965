"""A model's outputs: the logits in them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from jaxflow._attention import AnyArray, at_least_float32, numpy_of


def logits_of(
    outputs: Any, position: int | Int[ArrayLike, " *batch"] | None = None
) -> Float[AnyArray, "*batch label"] | Float[AnyArray, "*batch token label"]:
    """Return a model's logits, or those of one position.

    Args:
        outputs: logits, or an object with the field `logits`.
        position: the position whose logits are returned, one or one per example; None for all. Negative ones count from the
            end.

    Returns:
        `[*batch, label]` or, of all positions, `[*batch, token, label]`; float32 at least.

    Raises:
        ValueError: outputs without logits; a position that does not exist, or of logits that are not per position.
    """
    logits = getattr(outputs, "logits", outputs)
    if not hasattr(logits, "dtype") or not logits.ndim:
        raise ValueError(
            f"the model returned {type(outputs).__name__}, which neither is an array of logits nor has a field logits: pass a "
            "function of the outputs as target."
        )
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(
            f"the model returned {logits.dtype} of shape {jnp.shape(logits)}; expected logits, of a floating dtype."
        )
    logits = at_least_float32(numpy_of(logits).asarray(logits))
    if position is None:
        return logits
    if logits.ndim < 2:
        raise ValueError(f"position is given, but logits have shape {logits.shape}: expected [*batch, token, label].")
    return jnp.moveaxis(pick(jnp.moveaxis(logits, -1, 0), position), 0, -1)


def pick(values: Float[AnyArray, "*batch choice"], index: int | Int[ArrayLike, "*#batch"]) -> Float[Array, "*batch"]:
    """Take one entry of the last axis: the same for all, or one per example.

    Raises:
        ValueError: the entry does not exist.
    """
    index = count_from_start(index, values.shape[-1])
    index = jnp.broadcast_to(jnp.asarray(index), values.shape[:-1])
    return jnp.take_along_axis(values, index[..., None], axis=-1)[..., 0]


def count_from_start(index: int | Int[ArrayLike, " *batch"], n_choices: int) -> Any:
    """Return numbers that may count from the end as they count from the start, after a check that they exist.

    Raises:
        ValueError: one does not exist. Traced numbers are returned as they are.
    """
    if isinstance(index, jax.core.Tracer):
        return index
    found = np.asarray(index)
    if not ((-n_choices <= found) & (found < n_choices)).all():
        raise ValueError(f"{index} does not exist: there are {n_choices}, 0 to {n_choices - 1}.")
    return np.where(found < 0, found + n_choices, found).astype(np.int32)
