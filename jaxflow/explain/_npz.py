"""Arrays of a NumPy archive, each read only if it is asked for, and only if it is as large as was announced."""

from __future__ import annotations

import contextlib
import io
import lzma
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

DTYPE = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")
# An archive may hold so many bytes, and for each byte of the file so many more. Scores hardly shrink.
FREE, PER_BYTE = 2**26, 200
MOST_HEADER = 10_000  # bytes of an array's own header
# All that zipfile, its decompressors and NumPy's header raise where bytes are damaged.
DAMAGE = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, OverflowError, RuntimeError, SyntaxError, MemoryError,
    NotImplementedError, OSError, struct.error, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip


class Archive:
    """The arrays of an `.npz`, none of which is read before it is asked for, and none is ever unpickled."""

    def __init__(self, data: bytes) -> None:
        """Read the list of arrays.

        Raises:
            ValueError: no archive, or a damaged one.
        """
        with _as_damage():
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        self._left = FREE + PER_BYTE * len(data)

    def read_bytes(self, name: str) -> bytes:
        """Return an array of bytes, `[byte]`, uint8.

        Raises:
            ValueError: no such array, or a damaged one, or a larger one than such a file can hold.
        """
        with _as_damage():
            size = self._zip.getinfo(f"{name}.npy").file_size
        return self._read(name, np.dtype(np.uint8), None, size).tobytes()

    def read(self, name: str, dtype: str, shape: Sequence[int]) -> np.ndarray:
        """Return the array of that name, if it has this dtype and shape.

        Raises:
            ValueError: no such array, another one, or a damaged one.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        return self._read(name, np.dtype(dtype), tuple(shape), size + MOST_HEADER)

    def _read(self, name: str, dtype: np.dtype, shape: tuple[int, ...] | None, most: int) -> np.ndarray:
        with _as_damage():
            member = self._zip.getinfo(f"{name}.npy")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
                raise ValueError(f"{name} is packed in a way that save does not use")
            if member.file_size > most:
                raise ValueError(f"{name} unpacks to {member.file_size} bytes; expected {most} at most")
            self._left -= member.file_size
            if self._left < 0:
                raise ValueError(f"it unpacks to more than {PER_BYTE} times its size")
            with self._zip.open(member) as file:
                content = file.read(member.file_size + 1)  # to the end, where the checksum is compared
            return _array(name, content, dtype, shape)


def _array(name: str, content: bytes, dtype: np.dtype, shape: tuple[int, ...] | None) -> np.ndarray:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{name} has version {version} of NumPy's format; expected 1.0 or 2.0")
    own_shape, is_fortran, own = readers[version](file)
    if own.hasobject:
        raise ValueError(f"{name} holds Python objects, which are never unpickled")
    if own != dtype or (shape is not None and own_shape != shape):
        expected = dtype if shape is None else f"{dtype}{list(shape)}"
        raise ValueError(f"{name} is {own}{list(own_shape)}; expected {expected}")
    values = np.frombuffer(file.read(), own)
    return values.reshape(own_shape, order="F" if is_fortran else "C").copy()


@contextlib.contextmanager
def _as_damage() -> Iterator[None]:
    """Turn whatever damaged bytes raise into a ValueError."""
    try:
        yield
    except DAMAGE as error:
        reason = error.args[0] if isinstance(error, KeyError) and error.args else error
        if "pickle" in str(reason) and "never" not in str(reason):  # NumPy's advice is to allow pickles
            reason = "an array's header is none that save writes"
        raise ValueError(f"{reason or type(error).__name__}") from error
