"""Does an attribution predict what the model does? Pure functions over any scores, ours or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from flax import struct
from jaxtyping import ArrayLike, Bool, Float

# Which tokens to keep, `[*shape, token]` -> the model's number with the others hidden, `[*shape]`: the probability of what it
# predicted, in ERASER.
Value = Callable[[Bool[np.ndarray, "*shape token"]], Float[ArrayLike, "*shape"]]
BINS = (0.01, 0.05, 0.1, 0.2, 0.5)  # of tokens; ERASER, section 4.2


@struct.dataclass
class Faithfulness:
    """What hiding the best-scored tokens does, and what keeping them alone does.

    Attributes:
        comprehensiveness: `[bin]`, value of the whole input less that without its best tokens. More is better: they were needed.
        sufficiency: `[bin]`, value of the whole input less that of its best tokens alone. Less is better: they were enough.
        bins: `[bin]`, share of the tokens that counted as best.
    """

    comprehensiveness: Float[np.ndarray, " bin"]
    sufficiency: Float[np.ndarray, " bin"]
    bins: Float[np.ndarray, " bin"]

    @property
    def aopc_comprehensiveness(self) -> float:
        """The mean over bins (a term for no tokens at all is no part of it); more is better."""
        return float(np.mean(self.comprehensiveness))

    @property
    def aopc_sufficiency(self) -> float:
        """The mean over bins; less is better."""
        return float(np.mean(self.sufficiency))


def erase(
    value: Value,
    scores: Float[ArrayLike, " token"],
    *,
    bins: Sequence[float] = BINS,
    candidates: Bool[ArrayLike, " token"] | None = None,
) -> Faithfulness:
    """Hide the best-scored tokens, and all others, by steps: `comp(k) = y(x) - y(x without top k)`, `suff(k) = y(x) - y(top k)`.

    The top k are the `ceil(bin * n)` candidates of greatest score, of equal ones the earlier. Tokens that are no candidates
    (special tokens, padding) are always kept and never counted.

    Args:
        value: the model with tokens hidden: called once, with masks `[2 * bin + 1, token]`, True for those that are kept.
        scores: of one output; those of `Attribution.encoder[row]`, say. Signed ones count by their sign.
        bins: shares of the candidates, in (0, 1].
        candidates: tokens that may be hidden; all by default.

    Returns:
        `Faithfulness`.

    Raises:
        ValueError: scores that are no row of finite numbers, candidates or bins that do not fit, a value of another shape.

    Example:
        >>> weights = np.array([0.1, 0.6, 0.3])  # of a model that adds up what it is shown
        >>> result = erase(lambda kept: kept @ weights, scores=[0, 2, 1], bins=[0.3, 0.6])
        >>> result.comprehensiveness, result.sufficiency
        (array([0.6, 0.9]), array([0.4, 0.1]))

    Source: DeYoung et al. 2020, ERASER (1911.03429), section 4.2, equations 1 and 2, and AOPC over bins.
    """
    row = _finite_row(scores)
    shares = np.asarray(bins, np.float64)
    if shares.ndim != 1 or not len(shares) or not ((shares > 0) & (shares <= 1)).all():
        raise ValueError(f"bins is {shares.tolist()}; expected shares in (0, 1], at least one.")
    may_hide = np.ones(len(row), bool) if candidates is None else np.asarray(candidates, bool)
    if may_hide.shape != row.shape or not may_hide.any():
        raise ValueError(
            f"candidates has shape {may_hide.shape} and {may_hide.sum()} of them; expected one or more of {len(row)} tokens."
        )
    order = np.flatnonzero(may_hide)[np.argsort(-row[may_hide], kind="stable")]
    # 0.1 * 30 is 3.0000000000000004, whose ceiling is 4.
    counts = np.ceil(shares * len(order) - 1e-9).astype(np.int64)
    best = np.zeros((len(counts), len(row)), bool)
    for kept, count in zip(best, counts, strict=True):
        kept[order[:count]] = True
    masks = np.concatenate([np.ones((1, len(row)), bool), ~best, best | ~may_hide])
    values = np.asarray(value(masks), np.float64)
    if values.shape != (len(masks),):
        raise ValueError(f"value returned shape {values.shape} for masks {masks.shape}; expected ({len(masks)},).")
    whole, without, alone = values[0], values[1 : 1 + len(counts)], values[1 + len(counts) :]
    return Faithfulness(comprehensiveness=whole - without, sufficiency=whole - alone, bins=shares)


def rank_correlation(scores: Float[ArrayLike, " token"], other: Float[ArrayLike, " token"]) -> float:
    """Correlate the ranks of two rows of scores (Spearman's rho); equal scores share the mean of their ranks.

    In [-1, 1]: 1 where both put tokens in the same order. With scores of `leave_one_out`, more is better: the attribution orders
    tokens as their removal does. NaN where all scores of a row are equal, and so put nothing in order.

    Raises:
        ValueError: rows that differ in length, are shorter than 2 or not finite.

    Example:
        >>> rank_correlation([0.1, 0.2, 0.3, 0.3], [1.0, 3.0, 2.0, 2.0])
        0.3333333333333333

    Source: Spearman 1904; as a measure of attributions, Abnar & Zuidema 2020 (2005.00928), section 4 (blank-out).
    """
    a, b = _finite_row(scores), _finite_row(other)
    if a.shape != b.shape or len(a) < 2:
        raise ValueError(f"got {len(a)} and {len(b)} scores; expected as many of both, 2 or more.")
    x, y = _ranks(a) - (len(a) - 1) / 2, _ranks(b) - (len(b) - 1) / 2
    spread = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / spread) if spread else float("nan")


def _ranks(row: Float[np.ndarray, " token"]) -> Float[np.ndarray, " token"]:
    """Rank from 0, equal numbers by the mean of their places."""
    _, group, counts = np.unique(row, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2)[group]


def _finite_row(scores: Float[ArrayLike, " token"]) -> Float[np.ndarray, " token"]:
    row = np.asarray(scores, np.float64)
    if row.ndim != 1 or not len(row):
        raise ValueError(f"scores has shape {row.shape}; expected one row of numbers, such as attribution.encoder[0].")
    if not np.isfinite(row).all():
        raise ValueError(
            f"scores holds {(~np.isfinite(row)).sum()} values that are not finite; expected finite numbers."
        )
    return row
