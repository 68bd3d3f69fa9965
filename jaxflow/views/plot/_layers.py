"""plot_layers: which layers bound the flow: the share of the minimum cuts that lies in each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import ArrayLike, Float, Real

from jaxflow._printable import visible
from jaxflow.explain import Explanation, FlowGraph
from jaxflow.views._named_scores import cut
from jaxflow.views._sentences import output_name
from jaxflow.views.plot._sizes import Size, check_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# In points.
LEFT, BOTTOM, TOP, HEIGHT, LARGEST = 34.0, 26.0, 16.0, 72.0, 34.0
NUMBERED = 16.0  # a bar so wide has its share written on it


@runtime_checkable
class Cut(Protocol):
    """A minimum cut, such as `MinCut`, that knows the share of its capacity in each layer."""

    @property
    def share(self) -> Any:
        """`[layer]`, sums to 1."""
        ...


def plot_layers(
    given: Explanation | FlowGraph | Cut | Real[ArrayLike, " layer"] | Sequence[float],
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw as a bar for each layer what share of the minimum cuts' capacity lies in it: where the bottleneck is.

    Layers are counted from 1 at the input, the encoder's and then the decoder's.

    Args:
        given: an `Explanation` by attention flow (its `bottleneck`: the cuts from each input to the first explained output), a
            `FlowGraph` (the cuts from each input to its output), one minimum cut (its `share`), or shares `[layer]`.
        size: "column" (3.25 in) or "page" (6.75 in, the default) wide at most.
        ax: axes to draw into; by default those of a new figure (see `plot_tokens`).

    Returns:
        The axes. The heights of `ax.patches` are the shares.

    Raises:
        ValueError: an explanation that has no minimum cuts, shares that are none, another size.
        ImportError: matplotlib is not installed.

    Example:
        >>> ax = plot_layers([0.25, 0.75])
        >>> [float(bar.get_height()) for bar in ax.patches]
        [0.25, 0.75]
    """
    share = _shares(given)
    width = check_width(size, ax)
    from jaxflow.views.plot import _drawing as drawing

    explanation = given if isinstance(given, Explanation) else None
    if ax is None:
        breadth = min(width - LEFT, LARGEST * len(share))
        whole = (max(LEFT + breadth, min(width, 150.0)), BOTTOM + HEIGHT + TOP)
        ax = drawing.new_axes(*whole, explanation)
        ax.set_position((LEFT / whole[0], BOTTOM / whole[1], breadth / whole[0], HEIGHT / whole[1]))
    layers = np.arange(1, len(share) + 1)
    ax.bar(layers, share, width=0.8, color=drawing.CUT)
    ax.set(xlim=(0.4, len(share) + 0.6), ylim=(0, 1.18 * max(share.max(), 1e-9)))
    room = drawing.size_of(ax)[0] / (len(share) + 0.2)
    if room >= NUMBERED:
        for layer, part in zip(layers.tolist(), share.tolist(), strict=True):
            drawing.write(ax, layer, part, f"{part:.0%}", va="bottom", fontsize=drawing.SMALL)
    drawing.count(ax.xaxis, len(share))
    drawing.plain(ax, "layer", "share of the cuts")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    title = "" if explanation is None else f"minimum cuts to {cut(visible(output_name(explanation, 0)), longest=60)}"
    drawing.write(ax, 0, 1.03, title, transform=ax.transAxes, ha="left", va="bottom")
    return ax


def _shares(
    given: Explanation | FlowGraph | Cut | Real[ArrayLike, " layer"] | Sequence[float],
) -> Float[np.ndarray, " layer"]:
    if isinstance(given, Explanation):
        if given.bottleneck is None:
            reason = (
                "time ran out before they were found" if given.method == "flow" else f"its method is {given.method!r}"
            )
            raise ValueError(
                f"The explanation has no minimum cuts: {reason}. Expected one with method='flow', which has them."
            )
        return np.asarray(given.bottleneck, np.float64)
    if isinstance(given, FlowGraph):  # whose own `share` is another one
        given = given.cut_share
    share = np.asarray(getattr(given, "share", given), np.float64)
    if share.ndim != 1 or not share.size or not (np.isfinite(share) & (share >= 0)).all():
        raise ValueError(f"The shares have shape {share.shape}; expected [layer], finite numbers of 0 or more.")
    return share
