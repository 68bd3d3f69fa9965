"""Records of plain values and arrays, written to JSON or NPZ and read back exactly; nothing is ever pickled."""

from __future__ import annotations

import io
import json
import os
import secrets
import stat
import zipfile
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxflow._printable import to_json

FORMAT = "jaxflow explanation"
FORMAT_VERSION = 5


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


def load(path: Path) -> dict[str, Any]:
    """Read a record back, arrays as NumPy arrays, sequences as tuples.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged, was not written by `dump`, is of another format version, or holds Python
            objects (which would have to be unpickled, and are not).
    """
    if path.suffix not in (".json", ".npz"):
        raise ValueError(f"Cannot load {path.name!r}: expected a name that ends in .json or .npz (pages hold no data).")
    data = path.read_bytes()
    arrays: dict[str, np.ndarray] = {}
    try:
        if path.suffix == ".npz":
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            data = arrays["header"].tobytes()
        header = json.loads(data)
        is_ours = isinstance(header, dict) and header.get("format") == FORMAT
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        pickled = (
            "it holds Python objects, which are never unpickled"
            if "pickle" in str(error)
            else "it is damaged or cut off"
        )
        raise ValueError(f"{path} cannot be read as a {FORMAT}: {pickled} ({error}).") from error
    if not is_ours:
        raise ValueError(f"{path} is no {FORMAT}: it was not written by Explanation.save.")
    if header.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {header.get('format_version')}; this jaxflow reads version {FORMAT_VERSION}. "
            "Read it with the version of jaxflow that wrote it, or explain anew."
        )

    def restored(value: Any) -> Any:
        match value:
            case {"array": number, "dtype": dtype, "shape": shape}:
                array = np.asarray(value["data"], dtype) if "data" in value else arrays[f"array_{number}"]
                if str(array.dtype) != dtype:
                    raise ValueError(f"array {number} is {array.dtype}, not {dtype}")
                return array.reshape(shape)
            case dict():
                return {key: restored(item) for key, item in value.items()}
            case list():
                return tuple(restored(item) for item in value)
        return value

    try:
        record = restored(header["content"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: an array is missing or does not fit ({error}).") from error
    return record
