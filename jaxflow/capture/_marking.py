"""Mark attention where it is sown, so that a target can be differentiated by it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax

from jaxflow._attention import Attention
from jaxflow.capture._fusing import Run, Stacks
from jaxflow.capture._marks import Marks
from jaxflow.capture._ordering import stack
from jaxflow.capture._sown import Sown


def run_marked(run: Run, marks: Marks) -> tuple[Any, Mapping, Stacks]:
    """Run a model once, and mark each layer's attention.

    Args:
        run: runs the model once, and keeps what it is told to keep of each layer's weights.
        marks: where to mark them; learns how to lay gradients out.

    Returns:
        What `run` returns.

    Raises:
        ValueError: attention inside an `nn.vmap`.
    """

    def mark(sown: Sown, weights: jax.Array) -> jax.Array:
        if sown.vmaps:
            raise ValueError(
                f"The attention of {sown} lies inside an nn.vmap, where gradients by it are not taken apart. Take nn.vmap out "
                "of the model, and map the call of attention_gradients with jax.vmap."
            )
        return marks.mark((sown.path, sown.index), weights)

    outputs, state, stacks = run(mark)
    marks.join = _joining({role: [sown for sown, _ in layers] for role, layers in stacks.items()})
    return outputs, state, stacks


def _joining(places: dict[Any, list[Sown]]) -> Callable[[Mapping[Hashable, jax.Array]], Attention]:
    """Return what lays gradients out as the attention of these places; it holds no array of the run."""
    return lambda gradients: Attention(
        **{
            role: stack([(sown, gradients[sown.path, sown.index]) for sown in layers])
            for role, layers in places.items()
        }
    )
