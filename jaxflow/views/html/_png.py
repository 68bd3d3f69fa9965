"""Pixels as a PNG inside a page."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from jaxtyping import UInt8

COLOUR_TYPES = {1: 0, 2: 4}  # grey; grey and alpha


def png_address(pixels: UInt8[np.ndarray, "row column channel"]) -> str:
    """Make a data address of brightness, `[row, column, 1]`, or of brightness and alpha, `[row, column, 2]`."""
    n_rows, n_columns, n_channels = pixels.shape
    # A line starts with its filter: none.
    lines = np.concatenate([np.zeros((n_rows, 1), np.uint8), pixels.reshape(n_rows, -1)], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", n_columns, n_rows, 8, COLOUR_TYPES[n_channels], 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9))
        + chunk(b"IEND", b"")
    )
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
