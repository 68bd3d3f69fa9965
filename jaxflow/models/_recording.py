"""What a model hands over of its attention when it runs: a recording."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import chex

Path = tuple[str, ...]
Role = Literal["encoder", "decoder", "cross"]
# What to do if tokens are mixed by something other than attention. "none": the kind of model is known to do no such thing.
Mixing = Literal["refuse", "accept", "none"]


class UnclearRolesError(ValueError):
    """Attention of which the modules' paths do not tell the stack; what it is computed of may."""


class NotRecordedError(ValueError):
    """Attention that a model did not hand over, in whole or in part, while it ran; a trace may find it."""


@dataclasses.dataclass(frozen=True)
class LayerPlace:
    """Where one array of attention weights was computed, and the loops around it.

    Attributes:
        path: the module that computed it, or the scopes around it.
        index: its number among the weights of this module, in order of execution (a shared module computes some in each call).
        scans: a number for each scan around it, outermost first; equal numbers are one run of one scan.
        vmaps: how many `nn.vmap` are around it.
    """

    path: Path
    index: int
    scans: tuple[int, ...] = ()
    vmaps: int = 0

    def __str__(self) -> str:
        """Return the path, as flax writes it."""
        return "/".join(self.path) or "(the model itself)"


# A place, and its weights `[*scans, *batch, head, query, key]`: an axis for each scan around it, outermost first.
Layer = tuple[LayerPlace, chex.Array]
# Called with weights `[*batch, head, query, key]` as soon as they are computed; returns what is recorded in their place, an
# array with as many axes.
Keep = Callable[[LayerPlace, chex.Array], chex.Array]


@dataclasses.dataclass(frozen=True)
class Recording:
    """The attention of one run.

    Attributes:
        layers: all attention that the model computed, in order of execution.
        backend: how it was taken, for `Attention.backend`.
        known: the stacks of modules that are known to the adapter, by path.
        self_attention: of modules that tell, by path, whether keys and queries were one array in each of their calls.
    """

    layers: list[Layer]
    backend: str
    known: Mapping[Path, Role] = dataclasses.field(default_factory=dict)
    self_attention: Mapping[Path, set[bool]] = dataclasses.field(default_factory=dict)
