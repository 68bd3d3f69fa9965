"""Outputs that have a target each: each is attributed by gradients of its own, and one attribution holds them all."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Array

from jaxflow._progress import progress_bar
from jaxflow.attribute._attribution import Attribution
from jaxflow.attribute._certificate import Certificate
from jaxflow.capture import Target


def attribute_each(
    outputs: Sequence[int], attribute: Callable[[int, int], Attribution], *, progress: bool = False
) -> Attribution:
    """Attribute outputs one by one.

    Args:
        outputs: their positions, at least one.
        attribute: `attribute(row, output)` attributes one of them, the how manieth and where it is.
        progress: show a bar.

    Returns:
        `Attribution` with a row for each, unbatched.
    """
    found = []
    with progress_bar(len(outputs), "outputs", shown=progress) as bar:
        for row, output in enumerate(outputs):
            found.append(jax.device_get(attribute(row, output)))
            bar.update(1)
    certificates = [each.certificate for each in found if each.certificate is not None]
    return Attribution(
        encoder=_joined([each.encoder for each in found]),
        decoder=_joined([each.decoder for each in found]),
        outputs=np.asarray(outputs),
        certificate=_join_certificates(certificates) if certificates else None,
        standard_error=_joined([each.standard_error for each in found]),
    )


def sum_of(targets: Sequence[Target]) -> Target:
    """Make one target of several: their sum, for outputs that are explained together."""
    return lambda outputs: functools.reduce(operator.add, [target(outputs) for target in targets])


def name_of(target: Target | Sequence[Target]) -> str:
    """Name a target that is a function, or several that are."""
    return getattr(target, "__qualname__", "a function") if callable(target) else "a function for each output"


def _join_certificates(certificates: Sequence[Certificate]) -> Certificate:
    rows = {
        name: np.concatenate([getattr(each, name) for each in certificates], axis=-2)
        for name in ("lower", "upper", "trivial", "stage")
    }
    return Certificate(**rows, quantum=np.max([each.quantum for each in certificates], axis=0))


def _joined(rows: Sequence[Array | np.ndarray | None]) -> np.ndarray | None:
    given = [row for row in rows if row is not None]
    return np.concatenate(given, axis=-2) if given else None
