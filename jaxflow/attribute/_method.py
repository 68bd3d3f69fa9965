"""What makes an object a method, and methods by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxflow.attribute._attribution import Attribution, sum_over_spans
from jaxflow.attribute._evidence import Evidence


@runtime_checkable
class Method(Protocol):
    """A way to score the inputs of a model. A class with this one function is a method, and needs no base class.

    It may say more: `name`, what it is called, and `needs`, what it asks of a model: a set of "attention", "gradients",
    "contributions", "embeddings" and "passes" (forward passes with tokens hidden). A target is refused for a method that says it
    needs none of the last four. A class that has also `attribute_each(evidences)` attributes a list of examples at once.

    Example:
        >>> class LastLayerMaximum:
        ...     def attribute(self, evidence):
        ...         heads = np.asarray(evidence.attention.encoder)[-1]  # [head, query, key]
        ...         return heads.max(0)[list(evidence.positions)]
        >>> isinstance(LastLayerMaximum(), Method)
        True
    """

    def attribute(self, evidence: Evidence) -> Attribution | Float[ArrayLike, "output input"]:
        """Return an `Attribution`, or scores `[output, input]`, or `[input]` for one position; inputs are tokens."""


@runtime_checkable
class AttributesEach(Method, Protocol):
    """A method that may attribute several examples at once."""

    def attribute_each(self, evidences: Sequence[Evidence]) -> list[Attribution]:
        """Return what `attribute` returns of each."""


METHODS: dict[
    str, Method
] = {}  # all that have a name; they are entered where all are known, since some take others by name


def as_method(method: Method | str) -> Method:
    """Return the method of that name, or the method itself.

    Raises:
        ValueError: no such name.
        TypeError: an object that is no method.
    """
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(f"{method!r} is no method; expected one of {', '.join(METHODS)}, or an object.")
        return METHODS[method]
    if isinstance(method, type) or not callable(getattr(method, "attribute", None)):
        got = f"the class {method.__name__}" if isinstance(method, type) else type(method).__name__
        raise TypeError(
            f"method is {got}; expected a name ({', '.join(METHODS)}), one of the methods such as AttentionFlow(), or an object "
            "with a function attribute(evidence)."
        )
    return method


def as_attribution(found: Any, evidence: Evidence) -> Attribution:
    """Return what a method found as an `Attribution` of NumPy arrays.

    Raises:
        ValueError: scores of another shape.
    """
    if isinstance(found, Attribution):
        return found
    scores = np.atleast_2d(np.asarray(found, np.float64))
    n_encoder, n_decoder = (len(evidence.tokens.get(side, ())) for side in ("encoder", "decoder"))
    n_rows = 1 if evidence.joint else len(evidence.positions)
    if scores.shape not in ((n_rows, n_encoder + n_decoder), (n_rows, n_encoder)) or not scores.size:
        raise ValueError(
            f"The method returned scores of shape {np.shape(found)}; expected {(n_rows, n_encoder + n_decoder)}, one for each "
            "explained position and input, or an Attribution."
        )
    is_whole = scores.shape[1] == n_encoder + n_decoder
    scored = Attribution(
        encoder=scores[:, :n_encoder] if n_encoder else None,
        decoder=scores[:, n_encoder:] if n_decoder and is_whole else None,
        positions=np.asarray([0] if evidence.joint else evidence.positions),
    )
    return sum_over_spans(scored, evidence.spans._replace(outputs=None))
