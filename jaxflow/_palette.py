"""The colours of all pictures: pages, figures, terminals, treescope, and images for training loops.

Blue is a score above 0 or a flow, orange a score below 0 or a minimum cut. Readers with any common kind of colour blindness can
tell the two apart.
"""

from __future__ import annotations

BLUE, ORANGE, GREEN = "#185fa5", "#be500a", "#009e73"
WHITE, INK, SOFT = "#ffffff", "#1c1e21", "#5f646b"
EDGE, GHOST = "#c3ccd4", "#e3e8ed"  # of boxes and hatches; behind the arcs of a flow
GREY = (150, 161, 175)  # of a score of nearly 0 in a terminal, readable on light and on dark ones

# From 0 to the largest score, and from the largest below 0 up to 0 (ColorBrewer's Blues and Oranges).
ABOVE = ("#f7fbff", "#c6dbef", "#6baed6", "#2171b5", "#08306b")
BELOW = ("#7f2704", "#d94801", "#fd8d3c", "#fdd0a2")

# A page's colours by the name of their CSS variable, on light and on dark ground.
PAGE = {
    "paper": ("#fffefb", "#14171a"),
    "ink": (INK, "#e4e4df"),
    "soft": (SOFT, "#a2a7ad"),
    "line": ("#e2e0d9", "#30353a"),
    "wash": ("#f6f4ee", "#1c2024"),
    "flow": (BLUE, "#4fa8dd"),
    "cut": (ORANGE, "#f08a3c"),
    "ghost": ("#c9c6bd", "#4a5057"),
}


def rgb(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue of a colour, 0 to 255 each.

    Example:
        >>> rgb("#185fa5")
        (24, 95, 165)
    """
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def tint(colour: str, share: float) -> str:
    """Mix a colour with white, of which it keeps `share`.

    Example:
        >>> tint("#000000", 0.2)
        '#cccccc'
    """
    return "#" + "".join(f"{round(255 + share * (one - 255)):02x}" for one in rgb(colour))


def css_variables() -> str:
    """Write the page's colours as CSS variables.

    Example:
        >>> css_variables().split("; ")[0]
        '--paper: light-dark(#fffefb, #14171a)'
    """
    return "; ".join(f"--{name}: light-dark({light}, {dark})" for name, (light, dark) in PAGE.items())
