"""Bootstrap: how sure a mean over texts is."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """Intervals of means over texts, by drawing as many texts again and again. Source: Efron 1979, by percentiles.

    Attributes:
        level: share of the resampled means inside of an interval, in (0, 1).
        n_resamples: how many times texts are drawn.
        seed: same seed, same intervals.
    """

    level: float = 0.95
    n_resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no interval."""
        if not 0 < self.level < 1 or self.n_resamples < 1:
            raise ValueError(
                f"level is {self.level} and n_resamples {self.n_resamples}; expected a share in (0, 1), and 1 or more."
            )

    def interval(self, values: Float[np.ndarray, "text ..."]) -> Float[np.ndarray, "2 ..."]:
        """Find the interval of each mean over texts.

        All numbers of a text are drawn together, so the intervals of methods and metrics are paired.

        Args:
            values: of each text; NaN where there is none.

        Returns:
            `[2, *shape]`, lower and upper end; NaN where no text has a value.

        Example:
            >>> Bootstrap(n_resamples=1000).interval(np.arange(100.0)).round()
            array([44., 55.])
        """
        drawn = np.random.default_rng(self.seed).integers(len(values), size=(self.n_resamples, len(values)))
        counts = np.zeros((self.n_resamples, len(values)))
        np.add.at(counts, (np.arange(self.n_resamples)[:, None], drawn), 1)
        there = np.isfinite(values)
        total = np.tensordot(counts, np.where(there, values, 0.0), axes=1)
        number = np.tensordot(counts, there.astype(np.float64), axes=1)
        means = np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)
        ends = np.full((2, *values.shape[1:]), np.nan)
        some = there.any(0)
        ends[:, some] = np.nanquantile(means[:, some], [(1 - self.level) / 2, (1 + self.level) / 2], axis=0)
        return ends
