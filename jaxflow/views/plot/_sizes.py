"""How wide a figure is: a column or a page."""

from __future__ import annotations

from typing import Literal

Size = Literal["column", "page"]
WIDTHS = {"column": 3.25, "page": 6.75}  # inches, as the templates of ICML, IEEE and ACM have them within 0.2
POINTS = 72.0  # per inch


def check_width(size: Size | None, ax: object | None) -> float:
    """Return the width in points that a figure is to have; 0 where axes are given, which have one.

    Raises:
        ValueError: a size that is none, or a size and axes.
    """
    if ax is not None:
        if size is not None:
            raise ValueError(f"size is {size!r} and ax is given; expected one of them, since axes have their size.")
        return 0.0
    if size is not None and size not in WIDTHS:
        raise ValueError(
            f"size is {size!r}; expected 'column' ({WIDTHS['column']} in wide) or 'page' ({WIDTHS['page']} in). For another, "
            "pass axes of your own as ax=."
        )
    return POINTS * WIDTHS[size or "page"]
