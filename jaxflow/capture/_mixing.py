"""Refuse a model that moves information from token to token outside of attention, or keep that as a remark."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from jaxflow._attention import Attention
from jaxflow.capture._tracing.mixing import find_mixing
from jaxflow.capture._tracing.program import Scope, Value
from jaxflow.capture._tracing.sites import Site
from jaxflow.models import Model

MOST = 6  # places that a message names


def mixing_of(model: Model, program: Scope, sites: Sequence[Site], sown: Collection[Value] = ()) -> tuple[str, ...]:
    """Say what else mixes tokens in a traced model, a sentence without a full stop for each place.

    Args:
        model: the model.
        program: its program.
        sites: the attention in it.
        sown: values in it that are attention weights too.

    Raises:
        ValueError: something does, and `model.mixing` is "refuse".
    """
    if model.mixing == "none":
        return ()
    found = tuple(find_mixing(program, sites, sown))
    if found and model.mixing == "refuse":
        raise ValueError(_refusal(model.name, found))
    return found


def remarked(attention: Attention, mixing: tuple[str, ...]) -> Attention:
    """Return attention that says what else mixes tokens."""
    provenance = dataclasses.replace(attention.provenance, mixing=mixing)
    return dataclasses.replace(attention, provenance=provenance) if mixing else attention


def listed(places: Sequence[str]) -> str:
    """List places, line by line, the first few of many."""
    more = [f"  and at {len(places) - MOST} more places"] if len(places) > MOST else []
    return "\n".join([*(f"  {place}" for place in places[:MOST]), *more])


def _refusal(name: str, places: Sequence[str]) -> str:
    return (
        f"{name} moves information from token to token by something other than attention, so a network of its attention would "
        f"lack ways:\n{listed(places)}\nTo take the attention all the same, say so: as_model(model, mixing='accept'); what is "
        "left out is then noted in Attention.mixing and in every view. Methods that ask the model itself, such as "
        "LeaveOneOut(), leave nothing out."
    )
