"""How much evidence for a target passes along each arc of its contributions, or against it."""

from __future__ import annotations

from typing import Literal, get_args

from jaxtyping import Float

from jaxflow._attention import AnyArray, numpy_of
from jaxflow.capture import Contributions

Sign = Literal["support", "opposition"]


def check_sign(sign: Sign) -> None:
    """Raise unless there is such a sign.

    Raises:
        ValueError: there is none.
    """
    if sign not in get_args(Sign):
        raise ValueError(f"sign is {sign!r}; expected 'support' or 'opposition'.")


def evidence_along(contributions: Contributions, *, sign: Sign) -> dict[str, AnyArray]:
    """Return capacities by stack, `[*batch, layer, query, key]`: see `contribution_capacities`.

    Raises:
        ValueError: no such sign.
    """
    check_sign(sign)
    factor = 1 if sign == "support" else -1
    stacks: dict[str, AnyArray] = {}
    levels, cross, numpy = contributions.levels, contributions.cross, numpy_of(contributions)
    if cross is not None:
        cross = factor * numpy.asarray(cross)
        stacks["cross"] = numpy.maximum(cross, 0)
    if contributions.encoder is not None:
        stacks["encoder"] = _held_apart(factor * numpy.asarray(contributions.encoder), factor * levels["encoder"], None)
    if contributions.decoder is not None:
        stacks["decoder"] = _held_apart(
            factor * numpy.asarray(contributions.decoder), factor * levels["decoder"], cross
        )
    return stacks


def _held_apart(
    arcs: Float[AnyArray, "*batch layer query key"],
    levels: Float[AnyArray, "*batch level token"],
    cross: Float[AnyArray, "*batch layer query source"] | None,
) -> Float[AnyArray, "*batch layer query key"]:
    """Add to the positive arcs what stays of the evidence for the target, from the inputs upwards."""
    numpy = numpy_of(arcs)
    identity = numpy.eye(arcs.shape[-1], dtype=arcs.dtype).reshape((1,) * (arcs.ndim - 3) + arcs.shape[-2:])
    support, opposition = _parts(levels[..., 0, :])
    layers = []
    for layer in range(arcs.shape[-3]):
        plus, minus = _parts(arcs[..., layer, :, :])
        stays, against = support - plus.sum(-2), opposition - minus.sum(-2)
        # A position whose evidence for and against cancelled may send each elsewhere: it holds as much more of both.
        hidden = numpy.maximum(0, -numpy.minimum(stays, against))
        stays, against = stays + hidden, against + hidden
        layers.append(plus + stays[..., None, :] * identity)
        support, opposition = stays + plus.sum(-1), against + minus.sum(-1)
        if cross is not None:
            more, less = _parts(cross[..., layer, :, :])
            support, opposition = support + more.sum(-1), opposition + less.sum(-1)
    return numpy.stack(layers, -3)


def _parts(values: AnyArray) -> tuple[AnyArray, AnyArray]:
    numpy = numpy_of(values)
    return numpy.maximum(values, 0), numpy.maximum(-values, 0)
