"""Do two rows of scores order tokens alike?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import ArrayLike, Float, Real

Row = Real[ArrayLike, " token"] | Sequence[float]  # of scores


def rank_correlation(scores: Row, other: Row) -> float:
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
    a, b = finite_row(scores), finite_row(other)
    if a.shape != b.shape or len(a) < 2:
        raise ValueError(f"got {len(a)} and {len(b)} scores; expected as many of both, 2 or more.")
    from scipy.stats import rankdata  # late: it would be a third of the time that importing jaxflow takes

    middle = (len(a) + 1) / 2
    x, y = rankdata(a) - middle, rankdata(b) - middle
    spread = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / spread) if spread else float("nan")


def finite_row(scores: Row) -> Float[np.ndarray, " token"]:
    """Return scores as float64.

    Raises:
        ValueError: they are no row of finite numbers.
    """
    row = np.asarray(scores, np.float64)
    if row.ndim != 1 or not len(row):
        raise ValueError(f"scores has shape {row.shape}; expected one row of numbers, such as attribution.encoder[0].")
    if not np.isfinite(row).all():
        raise ValueError(
            f"scores holds {(~np.isfinite(row)).sum()} values that are not finite; expected finite numbers."
        )
    return row
