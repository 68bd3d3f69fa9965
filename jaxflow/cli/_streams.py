"""What the shell reads and writes: text files, standard input, and signs that a terminal's encoding does not have."""

from __future__ import annotations

import codecs
import os
import sys
from pathlib import Path

# What stands for a sign that an encoding lacks; any other is written as an escape.
SIGNS = {
    "█": "#",
    "▒": "-",
    "│": "|",
    "▶": ">",
    "→": "->",
    "↑": "^",
    "↓": "v",
    "…": "...",
    "—": "-",
    "±": "+-",
    "▁": "_",
}
MARKS = {
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
}


def show_all_signs() -> None:
    """Let standard output and error write all that they can, sign by sign, whatever their encoding is."""
    codecs.register_error("jaxflow", _replaced)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="jaxflow")


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(SIGNS.get(sign) or _escape(sign) for sign in signs), error.end


def print_json(text: str) -> None:
    """Print JSON, of which every sign reads back: what the encoding lacks is an escape, and never another sign."""
    encoding = sys.stdout.encoding or "utf-8"
    codecs.register_error("jaxflow-json", _escaped)
    print(text.encode(encoding, "jaxflow-json").decode(encoding))


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_escape, error.object[error.start : error.end])), error.end


def _escape(sign: str) -> str:
    """Write a character as an escape of JSON; two of them if it takes more than 16 bits."""
    units = sign.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def read_file(path: Path) -> str:
    """Read a text file: UTF-8, with or without a byte order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: another encoding.
    """
    return _decode(path.read_bytes(), str(path))


def read_stdin() -> str:
    """Read standard input, as `read_file` reads a file; nothing where it is closed."""
    if sys.stdin is None:
        return ""
    buffer = getattr(sys.stdin, "buffer", None)
    return sys.stdin.read().removeprefix("\ufeff") if buffer is None else _decode(buffer.read(), "standard input")


def _decode(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = next((kind for mark, kind in reversed(MARKS.items()) if content.startswith(mark)), None)
        seems = "" if kind is None else f" It begins as {kind} does."
        raise ValueError(
            f"{name} is no UTF-8: byte {error.start} is {content[error.start]:#04x}.{seems} Save it as UTF-8 (iconv -t UTF-8)."
        ) from None


def check_page(path: Path) -> None:
    """Refuse a name that no page could be written to, before anything is computed.

    Raises:
        ValueError: another ending than .html; no such directory; one that cannot be written.
        OSError: a name that no file can have.
    """
    if path.suffix != ".html":
        raise ValueError(f"--html {path}: expected a name that ends in .html, such as {path.with_suffix('.html')}.")
    if path.is_dir():
        raise ValueError(f"--html {path}: that is a directory; expected the name of a file.")
    parent = Path(os.path.realpath(path)).parent  # of the file that a link leads to
    if not parent.is_dir():
        raise ValueError(f"--html {path}: there is no directory {parent}. Make it first.")
    if not os.access(parent, os.W_OK):
        raise ValueError(f"--html {path}: the directory {parent} cannot be written to.")
