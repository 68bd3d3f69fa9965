"""plot_patches: a vision model's scores over the patches of the image that it read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import ArrayLike, Float, Real

from jaxflow.explain import grey, ground
from jaxflow.views._named_scores import Given, check_grid, check_row, cut, read_scores
from jaxflow.views.plot._sizes import Size, check_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from jaxflow.explain import Explanation

MOST_SPECIAL = 8  # tokens that are no patches: [CLS], one for distillation, registers
TITLE, LARGEST = 14.0, 234.0  # points


def plot_patches(
    given: Given,
    image: Real[ArrayLike, "height width *channel"] | None = None,
    *,
    row: int = 0,
    grid: tuple[int, int] | None = None,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw each patch's score over the image, which is shown in grey so that colour is score alone.

    Patches are the last tokens, row by row from the top left, behind those of no patch ([CLS], registers), which are left out.

    Args:
        given: an `Explanation`, an unbatched `Attribution`, or scores `[input]` or `[output, input]`.
        image: `[height, width]` or `[height, width, channel]`, in [0, 1] or whole numbers up to 255, before the model's
            normalisation; one, three or four channels, the last. By default the one that the explanation has read.
        row: which of the explained outputs; 0 is that of [CLS] where all are explained.
        grid: patches down and across; by default what the explanation says, or else the one of the image's proportions that
            leaves the fewest other tokens.
        size: "column" (3.25 in) or "page" (6.75 in, the default) wide at most.
        ax: axes to draw into; by default those of a new figure (see `plot_tokens`).

    Returns:
        The axes. `ax.collections[0].get_array()` are the scores that are drawn, `[down, across]`.

    Raises:
        ValueError: no image, or one or a grid that does not fit; a batch, a row that does not exist, another size.
        ImportError: matplotlib is not installed.

    Example:
        >>> ax = plot_patches([1.0, 0.1, 0.2, 0.3, 0.4], np.zeros((32, 32, 3)))
        >>> ax.collections[0].get_array().tolist()
        [[0.1, 0.2], [0.3, 0.4]]
    """
    shown = read_scores(given)
    row = check_row(shown, row)
    width = check_width(size, ax)
    brightness = _brightness(image, shown.explanation)
    down, across = check_grid(shown, grid) or _find_grid(brightness.shape, shown.scores.shape[1])
    from jaxflow.views.plot import _drawing as drawing

    if ax is None:
        breadth = min(width - drawing.BAR, LARGEST)
        height = breadth * brightness.shape[0] / brightness.shape[1]
        ax = drawing.new_axes(breadth + drawing.BAR, height + TITLE, shown.explanation)
        ax.set_position((0, 0, breadth / (breadth + drawing.BAR), height / (height + TITLE)))
    scores = np.ma.masked_invalid(shown.scores[row, -down * across :].reshape(down, across))
    ax.imshow(ground(brightness), cmap="gray", vmin=0, vmax=1, extent=(0, across, down, 0), interpolation="antialiased")
    cmap, norm = drawing.glaze(scores.filled(np.nan))  # of patches alone: the score of [CLS] is none of the image's
    drawn = ax.pcolormesh(scores, cmap=cmap, norm=norm, linewidth=0)
    unknown = [(float(x), float(y), 1.0, 1.0) for y, x in np.argwhere(np.ma.getmaskarray(scores))]
    drawing.hatch_boxes(ax, unknown, drawing.UNKNOWN)
    ax.set(xlim=(0, across), ylim=(down, 0), xticks=[], yticks=[])
    ax.set_aspect((brightness.shape[0] / down) / (brightness.shape[1] / across))
    ax.spines[:].set_visible(False)
    drawing.write(ax, 0, 1, cut(shown.titles[row], longest=40), transform=ax.transAxes, ha="left", va="bottom")
    drawing.add_bar(ax, drawn)
    return ax


def _brightness(
    image: Real[ArrayLike, "height width *channel"] | None, explanation: Explanation | None
) -> Float[np.ndarray, "height width"]:
    """Take the image that is given, or that was read."""
    if image is None and explanation is not None:
        image = explanation.image
    if image is None:
        raise ValueError(
            "No image: the explanation holds none, as one of a vision model does, whose input is pixel_values. Pass image=."
            if explanation is not None
            else "No image: scores alone hold none. Pass image=, or the explanation that they are of."
        )
    return grey(image)


def _find_grid(shape: tuple[int, ...], n_tokens: int) -> tuple[int, int]:
    """Find how many square patches there are down and across."""
    height, width = shape
    for n_special in range(min(MOST_SPECIAL, n_tokens - 1) + 1):
        n_patches = n_tokens - n_special
        down = round((n_patches * height / width) ** 0.5)
        if down and n_patches % down == 0 and down * width == n_patches // down * height:
            return down, n_patches // down
    raise ValueError(
        f"{n_tokens} tokens make no grid of square patches over an image of {height} x {width} pixels, with up to {MOST_SPECIAL} "
        "other tokens in front: give grid=(down, across)."
    )
