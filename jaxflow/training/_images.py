"""Scores as the pixels of an image, for viewers that take nothing else."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from jaxflow._palette import BLUE, WHITE, rgb

CELL = 12  # pixels of a score's side where the image is small
SIDE = 512  # pixels of an image's side that cells are made smaller for


def score_images(
    scores: Float[np.ndarray, "*batch output player"], *, largest: float = 1.0
) -> UInt8[np.ndarray, "*batch height width 3"]:
    """Draw matrices of scores, outputs as rows and inputs as columns: white is 0, blue is `largest` or more.

    The size depends on the shape alone, and the colours on nothing but the score, so images of different steps compare.

    Args:
        scores: `[*batch, output, player]`; NaN, where time ran out, is grey.
        largest: the score that has the full colour.

    Returns:
        `[*batch, height, width, 3]`, uint8.

    Example:
        >>> score_images(np.array([[0.0, 1.0]])).shape
        (12, 24, 3)
    """
    scores = np.asarray(scores)
    share = np.clip(scores / largest, 0, 1)[..., None]
    paper, ink = np.array(rgb(WHITE)), np.array(rgb(BLUE))
    pixels = np.where(np.isnan(share), 200, paper + share * (ink - paper))
    cell = max(min(CELL, SIDE // max(scores.shape[-2:])), 1)
    return np.rint(pixels).astype(np.uint8).repeat(cell, axis=-3).repeat(cell, axis=-2)
