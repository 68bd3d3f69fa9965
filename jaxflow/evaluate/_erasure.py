"""Hide the best-scored tokens, or all others: does the model's number change, or stay?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from flax import struct
from jaxtyping import ArrayLike, Bool, Float, Int

from jaxflow.evaluate._ranks import Row, finite_row

# Which tokens to keep, `[*shape, token]` -> the model's number with the others hidden, `[*shape]`: the probability of what it
# predicted, in ERASER. `masked_value` makes one of a model.
Value = Callable[[Bool[np.ndarray, "*shape token"]], Float[ArrayLike, "*shape"]]
BINS = (0.01, 0.05, 0.1, 0.2, 0.5)  # of tokens; ERASER, section 4.2


@struct.dataclass
class Faithfulness:
    """What hiding the best-scored tokens does, and what keeping them alone does.

    Attributes:
        whole: value of the whole input.
        without: `[bin]`, value without its best tokens.
        alone: `[bin]`, value of its best tokens alone.
        bins: `[bin]`, share of the tokens that counted as best.
    """

    whole: float
    without: Float[np.ndarray, " bin"]
    alone: Float[np.ndarray, " bin"]
    bins: Float[np.ndarray, " bin"]

    @property
    def comprehensiveness(self) -> Float[np.ndarray, " bin"]:
        """`[bin]`, `whole - without`. More is better: they were needed. ERASER, equation 1."""
        return self.whole - self.without

    @property
    def sufficiency(self) -> Float[np.ndarray, " bin"]:
        """`[bin]`, `whole - alone`. Less is better: they were enough. ERASER, equation 2."""
        return self.whole - self.alone

    @property
    def log_odds(self) -> Float[np.ndarray, " bin"]:
        """`[bin]`, `log(without / whole)`, of values that are probabilities. Less is better: they were needed.

        Comprehensiveness on a scale that goes on where a probability is nearly 0. NaN where a value is not above 0.

        Source: Shrikumar et al. 2017 (1704.02685), as averaged over the best tokens by Chen et al. 2019 (1808.02610).
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self.without / self.whole
            return np.where((self.without > 0) & (self.whole > 0), np.log(ratio), np.nan)

    @property
    def aopc_comprehensiveness(self) -> float:
        """The mean over bins (a term for no tokens at all is no part of it); more is better."""
        return float(np.mean(self.comprehensiveness))

    @property
    def aopc_sufficiency(self) -> float:
        """The mean over bins; less is better."""
        return float(np.mean(self.sufficiency))

    @property
    def aopc_log_odds(self) -> float:
        """The mean over bins; less is better."""
        return float(np.mean(self.log_odds))


def erase(
    value: Value,
    scores: Row,
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
    order, may_hide = ranked(scores, candidates)
    counts = bin_counts(len(order), bins)
    whole, without, alone = erased_values(value, order, may_hide, counts)
    return Faithfulness(whole=whole, without=without, alone=alone, bins=np.asarray(bins, np.float64))


def ranked(
    scores: Row, candidates: Bool[ArrayLike, " token"] | None
) -> tuple[Int[np.ndarray, " candidate"], Bool[np.ndarray, " token"]]:
    """Order the candidates by their scores, the best first, of equal ones the earlier.

    Returns:
        Their positions, and which tokens are candidates.

    Raises:
        ValueError: scores that are no row of finite numbers; candidates that do not fit.
    """
    row = finite_row(scores)
    may_hide = np.ones(len(row), bool) if candidates is None else np.asarray(candidates, bool)
    if may_hide.shape != row.shape or not may_hide.any():
        raise ValueError(
            f"candidates has shape {may_hide.shape} and {may_hide.sum()} of them; expected one or more of {len(row)} tokens."
        )
    return np.flatnonzero(may_hide)[np.argsort(-row[may_hide], kind="stable")], may_hide


def bin_counts(n_candidates: int, bins: Sequence[float]) -> Int[np.ndarray, " bin"]:
    """Say how many candidates count as best in each bin: its share of them, rounded up.

    Raises:
        ValueError: bins that are no shares.
    """
    shares = np.asarray(bins, np.float64)
    if shares.ndim != 1 or not len(shares) or not ((shares > 0) & (shares <= 1)).all():
        raise ValueError(f"bins is {shares.tolist()}; expected shares in (0, 1], at least one.")
    # 0.1 * 30 is 3.0000000000000004, whose ceiling is 4.
    return np.ceil(shares * n_candidates - 1e-9).astype(np.int64)


def erasing_masks(
    order: Int[np.ndarray, " candidate"], may_hide: Bool[np.ndarray, " token"], counts: Int[np.ndarray, " step"]
) -> Bool[np.ndarray, "mask token"]:
    """Return the masks of what is kept: all; all but the best `counts`; these alone (with what is never hidden)."""
    best = np.zeros((len(counts), len(may_hide)), bool)
    for kept, count in zip(best, counts, strict=True):
        kept[order[:count]] = True
    return np.concatenate([np.ones((1, len(may_hide)), bool), ~best, best | ~may_hide])


def erased_values(
    value: Value,
    order: Int[np.ndarray, " candidate"],
    may_hide: Bool[np.ndarray, " token"],
    counts: Int[np.ndarray, " step"],
) -> tuple[float, Float[np.ndarray, " step"], Float[np.ndarray, " step"]]:
    """Return the value of the whole input, and without the best `counts` tokens, and of these alone.

    Raises:
        ValueError: a value of another shape than one number for each mask.
    """
    masks = erasing_masks(order, may_hide, counts)
    values = np.asarray(value(masks), np.float64)
    if values.shape != (len(masks),):
        raise ValueError(f"value returned shape {values.shape} for masks {masks.shape}; expected ({len(masks)},).")
    return float(values[0]), values[1 : 1 + len(counts)], values[1 + len(counts) :]
