"""The door for all that is printed or drawn: no character of a text steers a terminal, ends a line, or turns its direction."""

from __future__ import annotations

import json
from typing import Any

JOINERS = "\u200c\u200d"  # of letters and of emoji; they steer nothing
BLANKS = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}
NOTHING = "∅"  # stands for a name without letters


def printable(text: str) -> str:
    r"""Write what a terminal obeys as an escape instead: controls, marks of direction, surrogates, what has no sign.

    Ends of lines stay.

    Example:
        >>> printable("a\x1b[2J\r\u202eb")
        'a\\x1b[2J\\r\\u202eb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in JOINERS or c == "\n" else _escape(c) for c in text)


def visible(name: str) -> str:
    r"""Write a name on one line, where all that it holds is seen: blanks at its ends and ends of lines as signs.

    Example:
        >>> visible(" a\n"), visible("a b"), visible("")
        ('␣a↵', 'a b', '∅')
    """
    if name.isprintable() and name and name[0] != " " != name[-1]:
        return name
    inner = name.strip(" " + JOINERS)
    before, _, after = name.partition(inner) if inner else (name, "", "")
    middle = "".join(c if c.isprintable() or c in JOINERS else BLANKS.get(c) or _escape(c) for c in inner)
    ends = ["".join(BLANKS.get(c) or _escape(c) for c in end) for end in (before, after)]
    return ends[0] + middle + ends[1] or NOTHING


def to_json(content: Any, *, indent: int | None = None) -> str:
    r"""Write JSON that steers no terminal: what is not printable is an escape, which reads back as it was.

    Raises:
        ValueError: a number that is not finite.

    Example:
        >>> to_json(["é", "\x9b2J", "\U000e0041"])
        '["é", "\\u009b2J", "\\udb40\\udc41"]'
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=indent)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in JOINERS or c == "\n" else json.dumps(c)[1:-1] for c in text)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
