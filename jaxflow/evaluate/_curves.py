"""Tokens removed, or added, one by one in the order of their scores."""

from __future__ import annotations

import numpy as np
from flax import struct
from jaxtyping import ArrayLike, Bool, Float, Int

from jaxflow.evaluate._erasure import Value, erased_values, ranked
from jaxflow.evaluate._ranks import Row


@struct.dataclass
class ErasureCurves:
    """The model's number while tokens are taken away, and while they are given back.

    Attributes:
        without: `[step]`, value without the best `counts` tokens: the deletion curve, from the whole input down.
        alone: `[step]`, value of the best `counts` tokens alone: the activation (or insertion) curve, up to the whole input.
            Read backwards, it is the pruning curve: the worst tokens are taken away first.
        counts: `[step]`, of tokens, from 0 to all of the candidates.
    """

    without: Float[np.ndarray, " step"]
    alone: Float[np.ndarray, " step"]
    counts: Int[np.ndarray, " step"]

    @property
    def deletion(self) -> float:
        """Area under the deletion curve, over the share of tokens. Less is better: the number soon falls.

        Source: the deletion metric of RISE, Petsiuk et al. 2018 (1806.07421), section 4.2.
        """
        return self._area(self.without)

    @property
    def activation(self) -> float:
        """Area under the activation curve, over the share of tokens. More is better: the number is soon reached.

        Source: AUAC of Ali et al. 2022 (2202.07304), section 5; the insertion metric of RISE, Petsiuk et al. 2018.
        """
        return self._area(self.alone)

    @property
    def pruning(self) -> float:
        """Area under `(alone - whole)^2`, over the share of tokens. Less is better: what scores least can go.

        Source: AU-MSE of Ali et al. 2022 (2202.07304), section 5.
        """
        return self._area((self.alone - self.without[0]) ** 2)

    def _area(self, values: Float[np.ndarray, " step"]) -> float:
        return float(np.trapezoid(values, self.counts / self.counts[-1]))


def erasure_curves(
    value: Value,
    scores: Row,
    *,
    n_steps: int | None = None,
    candidates: Bool[ArrayLike, " token"] | None = None,
) -> ErasureCurves:
    """Take tokens away from the best-scored on, and give them back from the best-scored on.

    Args:
        value: the model with tokens hidden, as in `erase`: called once, with masks `[2 * step + 3, token]`.
        scores: of one output, as in `erase`.
        n_steps: how many times tokens are taken away, in shares as equal as they can be; one by one if None.
        candidates: tokens that may be hidden; all by default. The others are always kept and never counted.

    Returns:
        `ErasureCurves`.

    Raises:
        ValueError: as `erase`; fewer steps than one.

    Example:
        >>> weights = np.array([1.0, 6.0, 3.0])  # of a model that adds up what it is shown
        >>> curves = erasure_curves(lambda kept: kept @ weights, scores=[0, 2, 1])
        >>> curves.without, curves.alone, round(curves.deletion, 3)
        (array([10.,  4.,  1.,  0.]), array([ 0.,  6.,  9., 10.]), 3.333)
    """
    if n_steps is not None and n_steps < 1:
        raise ValueError(f"n_steps is {n_steps}; expected 1 or more, or None for one token at a time.")
    order, may_hide = ranked(scores, candidates)
    counts = curve_counts(len(order), n_steps)
    _, without, alone = erased_values(value, order, may_hide, counts)
    return ErasureCurves(without=without, alone=alone, counts=counts)


def curve_counts(n_candidates: int, n_steps: int | None) -> Int[np.ndarray, " step"]:
    """Say how many tokens are gone at each step, from none to all."""
    return np.unique(np.round(np.linspace(0, n_candidates, min(n_steps or n_candidates, n_candidates) + 1))).astype(int)
