"""Shapley values of tokens in a game of the model itself: what its target is where only some of them are shown."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np

from jaxflow.attribute._attribution import Attribution
from jaxflow.attribute._evidence import Evidence


@dataclasses.dataclass(frozen=True)
class TokenShapley:
    """Share the target among the tokens: what a token adds to it, on average over orders in which tokens are shown.

    `phi_i = E [y(tokens up to i) - y(tokens before i)]`, by sampled orders, each with its reverse. Unlike those of `LeaveOneOut`,
    scores of tokens that can stand in for each other are not 0, and all together are what the target gains from no token shown
    to all shown, exactly. Tokens that may not be hidden (padding; special ones in a comparison) are shown always, and score 0.
    Of a span, the sum of its tokens' values, without standard error.

    `n_permutations * (n - 1) + 2` forward passes for n tokens at most, one for each set of tokens: with 16 orders, 16 times those
    of `LeaveOneOut`. Standard errors fall with the root of the number of orders.

    Attributes:
        n_permutations: how many orders, an even number of 4 or more: half of them are the reverses of the others.
        seed: of the orders, the same for every output.

    Source: Shapley 1953; of a model's inputs, Štrumbelj & Kononenko 2010 and Lundberg & Lee 2017 (1705.07874); orders with their
    reverses, Mitchell et al. 2022 (2104.12199).
    """

    n_permutations: int = 16
    seed: int = 0

    name: ClassVar[str] = "token_shapley"
    adds_up: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"passes"})

    def __post_init__(self) -> None:
        """Refuse orders without reverses, and too few for a standard error."""
        if self.n_permutations < 4 or self.n_permutations % 2:
            raise ValueError(
                f"n_permutations is {self.n_permutations}; expected an even number, 4 or more: orders come with their reverses, "
                "and a standard error rests on two such pairs or more."
            )

    def attribute(self, evidence: Evidence) -> Attribution:
        """Score the inputs of one example for each explained position, by its target.

        Raises:
            ValueError: a model that is no function of which tokens are shown, as `masked_value`; a target that is not finite.
        """
        return evidence.of_target(functools.partial(self._values, evidence), adds_up=True)

    def _values(self, evidence: Evidence, row: int) -> Attribution:
        """Return values and standard errors of one target."""
        (players,) = np.nonzero(evidence.candidates)
        n_pairs, n_tokens = self.n_permutations // 2, len(evidence.candidates)
        rng = np.random.default_rng(self.seed)
        orders = np.array([rng.permutation(players) for _ in range(n_pairs)])
        orders = np.stack([orders, orders[:, ::-1]])  # [2, pair, player]
        is_last = np.arange(n_tokens)[:, None] == orders[..., None, :]  # [2, pair, token, player]
        before = np.cumsum(np.pad(is_last, ((0, 0), (0, 0), (0, 0), (1, 0))), axis=-1) > 0
        kept = np.moveaxis(before, -1, -2) | ~evidence.candidates  # [2, pair, player + 1, token]
        masks, which = np.unique(kept.reshape(-1, n_tokens), axis=0, return_inverse=True)
        values = np.asarray(evidence.shown(masks, row), np.float64)
        if not np.isfinite(values).all():
            raise ValueError(
                f"The target is not finite for {(~np.isfinite(values)).sum()} of {len(masks)} sets of tokens that are shown; "
                "expected a number for each, also where all tokens are hidden."
            )
        added = np.diff(values[which.reshape(kept.shape[:-1])], axis=-1)
        shares = np.zeros((2, n_pairs, n_tokens))
        np.put_along_axis(shares, orders, added, axis=-1)
        pairs = shares.mean(0)
        stack = "encoder" if evidence.tokens.get("encoder") else "decoder"
        scores: dict[str, Any] = {"encoder": None, "decoder": None, stack: pairs.mean(0)[None]}
        error = pairs.std(0, ddof=1) / np.sqrt(n_pairs)
        return Attribution(**scores, positions=np.array([0]), standard_error=error[None])
