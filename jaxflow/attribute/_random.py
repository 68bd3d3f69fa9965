"""Chance: what every method must beat."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any, ClassVar

import numpy as np

from jaxflow._attention import Mask, SourceMask, TargetMask
from jaxflow.attribute._attribution import Attribution
from jaxflow.attribute._evidence import Evidence


@dataclasses.dataclass(frozen=True)
class Random:
    """Scores drawn uniformly from [0, 1).

    Attributes:
        seed: same seed and same tokens, same scores.
    """

    seed: int = 0

    name: ClassVar[str] = "random"
    needs: ClassVar[frozenset[str]] = frozenset()

    def attribute(self, evidence: Evidence) -> Attribution:
        """Draw a score for every input and explained position; padding scores 0."""
        words = "\0".join(token for side in evidence.tokens.values() for token in side)
        rng = np.random.default_rng([self.seed, evidence.seed, zlib.crc32(words.encode())])

        def score(_: int, positions: Any) -> Attribution:
            drawn: dict[str, Any] = {"encoder": None, "decoder": None}
            for side, tokens in evidence.tokens.items():
                if tokens:
                    mask = evidence.masks.get(side)
                    scores = rng.random((len(positions), len(tokens)))
                    drawn[side] = scores if mask is None else np.where(np.asarray(mask, bool), scores, 0.0)
            return Attribution(**drawn, positions=np.asarray(positions))

        return evidence.summed(score, by_target=False, adds_up=False)


def random_scores(
    like: Attribution,
    *,
    seed: int = 0,
    encoder_mask: SourceMask | None = None,
    decoder_mask: TargetMask | None = None,
) -> Attribution:
    """Draw a score for every output and token of another attribution, uniformly from [0, 1).

    Args:
        like: an attribution of the same stacks, shapes and positions.
        seed: same seed, same scores.
        encoder_mask: `[*batch, source]`, False where padded: scores are 0 there.
        decoder_mask: `[*batch, target]`, likewise.

    Returns:
        `Attribution` of NumPy arrays, float64.
    """
    rng = np.random.default_rng(seed)

    def draw(scores: Any, mask: Mask | None) -> np.ndarray | None:
        if scores is None:
            return None
        drawn = rng.random(np.shape(scores))
        return drawn if mask is None else np.where(np.asarray(mask, bool)[..., None, :], drawn, 0.0)

    return Attribution(
        encoder=draw(like.encoder, encoder_mask),
        decoder=draw(like.decoder, decoder_mask),
        positions=like.positions,
    )
