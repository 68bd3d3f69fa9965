"""What a model recorded -> its attention: layers sorted by stack, and stacked in order of execution."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxflow._attention import Attention, Provenance
from jaxflow.capture._ordering import listed, shape, stack
from jaxflow.capture._roles import recorded_roles
from jaxflow.models import Keep, Layer, Model, Path, Role, UnclearRolesError

Stacks = dict[Role, list[Layer]]


@dataclasses.dataclass(frozen=True)
class Recorded:
    """One run of a model.

    Attributes:
        outputs: what the model returned.
        stacks: the layers of each stack, in order of execution.
        backend: as in `Recording`.
    """

    outputs: Any
    stacks: Stacks
    backend: str

    @property
    def attention(self) -> Attention:
        """The attention of all layers."""
        return stacked(self.stacks, self.backend)


def stacked(stacks: Stacks, backend: str) -> Attention:
    """Stack the layers of each stack, in the order in which they ran; errors as in `stack`."""
    return Attention(**{role: stack(layers) for role, layers in stacks.items()}, provenance=Provenance(backend))


def record_stacks(model: Model, args: tuple, kwargs: Mapping[str, Any], keep: Keep | None = None) -> Recorded | None:
    """Run a model once, record its attention, and sort it by stack; arguments as in `Model.record`.

    Returns:
        The run; None for a model that records nothing and must be traced.

    Raises:
        ValueError: as `Model.record`; the stack of some attention cannot be told.
    """
    recorded = model.record(args, kwargs, keep)
    if recorded is None:
        return None
    outputs, recording = recorded
    roles = recorded_roles(
        model.name,
        dict.fromkeys(place.path for place, _ in recording.layers),
        known=recording.known,
        self_attention=recording.self_attention,
        said=model.roles,
    )
    return Recorded(outputs, by_stack(model.name, recording.layers, roles), recording.backend)


def by_stack(model: str, layers: Sequence[Layer], roles: Mapping[Path, Role]) -> Stacks:
    """Sort layers by the stack that they belong to.

    Args:
        model: its name, for messages.
        layers: in order of execution.
        roles: the stack of each path.

    Raises:
        UnclearRolesError: self-attention with more or fewer keys than queries.
    """
    stacks = {
        role: [layer for layer in layers if roles[layer[0].path] == role] for role in dict.fromkeys(roles.values())
    }
    for role, members in stacks.items():
        oblong = [layer for layer in members if shape(layer)[-1] != shape(layer)[-2]]
        if oblong and role != "cross":
            raise UnclearRolesError(
                f"The {role} of {model} has attention whose keys are more or fewer than its queries:\n{listed(oblong)}\n"
                'If it is cross-attention, say so by a fragment of its path: capture(..., roles={"cross": "cross"}). If '
                "it is one step of decoding with a cache, capture the pass over the whole sequence instead (decode=False)."
            )
    return stacks
