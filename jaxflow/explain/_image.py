"""The image that a vision model reads, in grey, for scores to be drawn over it in colour."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float, Real, UInt8

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of red, green and blue (ITU-R BT.709)
DARKEST = 0.3  # of what is drawn, lest black hides what is drawn over it


def grey(image: Real[ArrayLike, "height width *channel"]) -> Float[np.ndarray, "height width"]:
    """Turn an image into its brightness in [0, 1].

    Raises:
        ValueError: another shape, or values that are neither in [0, 1] nor whole numbers up to 255.
    """
    pixels = np.asarray(image)
    shape = pixels.shape
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and shape[-1] not in (1, 3, 4)) or 0 in shape:
        hint = " Channels come last: np.moveaxis(image, 0, -1)." if pixels.ndim == 3 and shape[0] in (1, 3, 4) else ""
        raise ValueError(
            f"image has shape {shape}; expected one image, [height, width] or [height, width, channel] of 1, 3 or 4 "
            f"channels.{hint}"
        )
    largest = 255 if np.issubdtype(pixels.dtype, np.integer) else 1
    if not (np.isfinite(pixels) & (pixels >= 0) & (pixels <= largest)).all():
        raise ValueError(
            f"image holds values from {pixels.min():.3g} to {pixels.max():.3g}; expected 0 to {largest} for {pixels.dtype}. Give "
            "the image before the model's normalisation."
        )
    pixels = pixels / largest
    if pixels.ndim == 2 or shape[-1] == 1:
        return pixels.reshape(shape[:2])
    return pixels[..., :3] @ LUMINANCE


def ground(brightness: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    """Make an image light enough to draw on."""
    return DARKEST + (1 - DARKEST) * brightness


def as_read(pixel_values: Any) -> UInt8[np.ndarray, "height width"] | None:
    """Return the brightness of the image in a vision model's input, `[1, channel, height, width]` or channels last.

    A normalised image does not say what its black and white were: they are its darkest and its brightest point. None
    for what is no such input.
    """
    pixels = np.asarray(pixel_values)
    if pixels.ndim != 4 or len(pixels) != 1 or not np.isfinite(pixels).all():
        return None
    image = next((np.moveaxis(pixels[0], axis, -1) for axis in (0, -1) if pixels[0].shape[axis] in (1, 3)), None)
    if image is None:
        return None
    brightness = image[..., 0] if image.shape[-1] == 1 else image @ LUMINANCE
    least, most = brightness.min(), brightness.max()
    return np.rint(255 * (brightness - least) / max(most - least, np.finfo(np.float32).tiny)).astype(np.uint8)
