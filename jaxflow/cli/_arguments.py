"""The types of arguments, each with what was expected where it does not fit."""

from __future__ import annotations

import argparse


def heads(value: str) -> str | int:
    """Read "mean", "max" or the index of a head."""
    return value if value in ("mean", "max") else whole_number(value, "mean, max or the index of a head")


def hide(value: str) -> str | int:
    """Read "mask", "replace" or the id of a token."""
    return value if value in ("mask", "replace") else whole_number(value, "mask, replace or the id of a token")


def output(value: str) -> int | str:
    """Read a position, one from the end (-1), "all", or the name of a token."""
    return int(value) if value.removeprefix("-").isdecimal() and value.isascii() else value


def positive(value: str) -> int:
    """Read a number of tokens."""
    number = whole_number(value, "a number of tokens, 1 or more")
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value!r}; expected a number of tokens, 1 or more")
    return number


def residual(value: str) -> float:
    """Read a share."""
    number = _number(value)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{value!r}; expected a number from 0 to 1")
    return number


def not_negative(value: str) -> float:
    """Read a finite number of 0 or more."""
    number = _number(value)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{value!r}; expected a number, 0 or more")
    return number


def names(value: str) -> list[str]:
    """Read names between commas."""
    return [name.strip() for name in value.split(",") if name.strip()]


def whole_number(value: str, expected: str) -> int:
    """Read a whole number of 0 or more."""
    if not value.isascii() or not value.isdigit():
        raise argparse.ArgumentTypeError(f"{value!r}; expected {expected}")
    return int(value)


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return -1.0
