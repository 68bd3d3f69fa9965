"""Records of plain values and arrays, written to JSON or NPZ and read back exactly; nothing is ever pickled."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxflow._printable import to_json
from jaxflow.explain._npz import DTYPE, Archive

FORMAT = "jaxflow explanation"
FORMAT_VERSION = 5
MOST_AXES = 8  # of an array


def dump(record: dict[str, Any], suffix: str) -> bytes:
    """Turn `record`, dictionaries and sequences of plain values and arrays, into the content of a `.json` or `.npz`.

    Raises:
        ValueError: another suffix; a value that is neither plain nor an array of numbers, finite or NaN.
    """
    if suffix not in (".json", ".npz"):
        raise ValueError(f"Cannot save as {suffix!r}: expected a name that ends in .html, .json or .npz.")
    arrays: dict[str, np.ndarray] = {}
    in_json = suffix == ".json"

    def plain(value: Any) -> Any:
        match value:
            case dict():
                return {str(key): plain(item) for key, item in value.items()}
            case list() | tuple():
                return [plain(item) for item in value]
            case np.ndarray() | np.generic() | jax.Array():
                array = np.asarray(value)
                if array.dtype.kind not in "biuf":
                    raise ValueError(f"Cannot save an array of dtype {array.dtype}; expected numbers.")
                reference = {"array": len(arrays), "dtype": str(array.dtype), "shape": list(array.shape)}
                arrays[f"array_{len(arrays)}"] = array
                return reference | ({"data": _numbers(array)} if in_json else {})
            case None | bool() | int() | float() | str():
                return value
        raise ValueError(f"Cannot save a {type(value).__name__}; expected plain values and arrays.")

    content = {"format": FORMAT, "format_version": FORMAT_VERSION, "content": plain(record)}
    header = to_json(content).encode()
    if in_json:
        return header
    file = io.BytesIO()
    arrays["header"] = np.frombuffer(header, np.uint8)
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _numbers(array: np.ndarray) -> list[Any]:
    """List an array's numbers as JSON knows them: NaN, a score that is unknown, is null."""
    numbers = array.ravel().tolist()
    return numbers if array.dtype.kind != "f" else [None if number != number else number for number in numbers]


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: what stood there before stays if the disk is full, and readers meet the one or the other.

    A link is written through. Several threads or processes may write to one path; the last one counts.

    Raises:
        OSError: it cannot be written there; the message names `path`.
    """
    target = Path(os.path.realpath(path))
    try:
        before = target.stat() if target.exists() else None
        if before is not None and not stat.S_ISREG(
            before.st_mode
        ):  # a pipe or a device, which nothing can take the place of
            target.write_bytes(data)
            return
        temporary = target.with_name(
            f".{secrets.token_hex(8)}.tmp"
        )  # short, since a name may be as long as names can be
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
                file.write(data)
            if before is not None:
                temporary.chmod(stat.S_IMODE(before.st_mode))
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error


@dataclasses.dataclass(frozen=True)
class Saved:
    """A record that was opened: all but the arrays, which are read when `fill` is called.

    Attributes:
        outline: the record, with arrays of 0 that take no memory in the place of the arrays, of their dtypes and shapes.
        fill: reads the arrays, and returns the record; raises a ValueError where one is damaged or is not as announced.
    """

    outline: dict[str, Any]
    fill: Callable[[], dict[str, Any]]


def load(path: Path) -> dict[str, Any]:
    """Read a record back, arrays as NumPy arrays, sequences as tuples; errors as those of `open_saved`."""
    return open_saved(path).fill()


def open_saved(path: Path) -> Saved:
    """Read a record but for its arrays, so that what they are can be checked before memory is taken for them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged, was not written by `dump`, is of another format version, or holds Python
            objects (which would have to be unpickled, and are not).
    """
    if path.suffix not in (".json", ".npz"):
        raise ValueError(f"Cannot load {path.name!r}: expected a name that ends in .json or .npz (pages hold no data).")
    data = path.read_bytes()
    try:
        archive = Archive(data) if path.suffix == ".npz" else None
        header = _parsed(data if archive is None else archive.read_bytes("header"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as a {FORMAT}: it is damaged or cut off ({error}).") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{path} is no {FORMAT}: it was not written by Explanation.save.")
    if header.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {header.get('format_version')}; this jaxflow reads version {FORMAT_VERSION}. "
            "Read it with the version of jaxflow that wrote it, or explain anew."
        )

    def restored(take: Callable[[dict[str, Any]], np.ndarray]) -> dict[str, Any]:
        try:
            record = _restored(header.get("content"), take)
            if not isinstance(record, dict):
                raise ValueError(f"its content is {type(record).__name__}; expected an object")
        except (ValueError, TypeError, OverflowError, MemoryError, RecursionError) as error:
            raise ValueError(f"{path} is damaged: an array is missing or does not fit ({error}).") from error
        return record

    def read(reference: dict[str, Any]) -> np.ndarray:
        if archive is None:
            return _from_numbers(reference)
        return archive.read(f"array_{reference['array']}", reference["dtype"], reference["shape"])

    return Saved(restored(_outline), lambda: restored(read))


def _parsed(text: bytes) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no number of JSON")

    return json.loads(text, parse_constant=refuse)


def _restored(value: Any, take: Callable[[dict[str, Any]], np.ndarray]) -> Any:
    match value:
        case {"array": _, "dtype": _, "shape": _}:
            return take(_checked(value))
        case dict():
            return {key: _restored(item, take) for key, item in value.items()}
        case list():
            return tuple(_restored(item, take) for item in value)
    return value


def _checked(reference: dict[str, Any]) -> dict[str, Any]:
    """Check what a file says of an array: its number, its dtype, its shape."""
    number, dtype, shape = reference["array"], reference["dtype"], reference["shape"]
    if not isinstance(number, int) or isinstance(number, bool):
        raise ValueError(f"an array has the number {number!r}; expected a whole number")
    if not isinstance(dtype, str) or not DTYPE.fullmatch(dtype):
        raise ValueError(f"array {number} is {dtype!r:.40}; expected bool, whole numbers or floats")
    is_shape = isinstance(shape, list) and all(type(length) is int and length >= 0 for length in shape)
    if not is_shape or len(shape) > MOST_AXES:
        raise ValueError(f"array {number} has the shape {shape!r:.40}; expected up to {MOST_AXES} lengths")
    return reference


def _outline(reference: dict[str, Any]) -> np.ndarray:
    return np.broadcast_to(np.zeros((), reference["dtype"]), reference["shape"])


def _from_numbers(reference: dict[str, Any]) -> np.ndarray:
    """Make an array of the numbers that JSON lists; null is NaN."""
    numbers, dtype, shape = reference.get("data"), np.dtype(reference["dtype"]), reference["shape"]
    if not isinstance(numbers, list) or len(numbers) != math.prod(shape):
        raise ValueError(f"array {reference['array']} has not as many numbers as its shape {shape} says")
    kinds = {"f": (int, float, type(None)), "b": (bool,)}.get(dtype.kind, (int,))
    if any(type(number) not in kinds for number in numbers):
        raise ValueError(f"array {reference['array']} is {dtype}, and lists something else")
    return np.asarray(numbers, dtype).reshape(shape)
