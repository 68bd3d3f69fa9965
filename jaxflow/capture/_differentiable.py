"""A model as a function of what is added to its attention weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import Array

from jaxflow._attention import Attention
from jaxflow.capture._frozen import FrozenModel
from jaxflow.capture._tracing.additions import Place


@dataclasses.dataclass(frozen=True)
class Differentiable:
    """A model on its inputs, as a function of what is added to its attention weights, after the softmax.

    Attributes:
        places: returns where something can be added, by name; raises ValueError where nothing can.
        run: `run(added)`, what is added by name -> what the model returns, and its attention. Without additions, `run({})`
            needs no places. With a second argument, `Scaler`, weights are multiplied instead.
        arrange: gradients by what was added, by name -> `Attention` of gradients, laid out as that of `run`.
        freeze: reads the model as one that can be run beside its frozen self; raises ValueError if it cannot.
        mixing: as in `Attention.mixing`.
    """

    places: Callable[[], Mapping[str, Place]]
    run: Callable[..., tuple[Any, Attention]]
    arrange: Callable[[Mapping[str, Array]], Attention]
    freeze: Callable[[], FrozenModel]
    mixing: tuple[str, ...] = ()

    def zeros(self) -> dict[str, Array]:
        """Return zeros to add at all places, to differentiate by."""
        shapes = {name: place.shape for name, place in self.places().items()}
        return {name: jax.numpy.zeros(shape.shape, shape.dtype) for name, shape in shapes.items()}
