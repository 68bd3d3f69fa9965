"""Attention, capacities and scores in treescope: arrays as heatmaps that unfold, one layer and head at a time by sliders."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool

from jaxflow._attention import STACKS, is_traced
from jaxflow._palette import ABOVE, BELOW, rgb
from jaxflow.attribute import Attribution
from jaxflow.views._scale import largest_score

UNFOLDED = 4096  # a heatmap of more cells is folded at first


def render_tree(
    node: Any,
    path: str | None,
    subtree_renderer: Any,
    *,
    axes: tuple[str, ...],
    masks: dict[str, Bool[np.ndarray, " ..."]] | None = None,
) -> Any:
    """Render a dataclass as treescope renders any, but its encoder, decoder and cross as heatmaps.

    Args:
        node: the dataclass.
        path: as treescope passes it to `__treescope_repr__`.
        subtree_renderer: likewise.
        axes: names of the arrays' last axes; those before are the batch's.
        masks: for each array by its name, where it is drawn; everywhere by default.
    """
    from treescope import rendering_parts

    children = []
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if not field.repr:
            continue
        below = None if path is None else f"{path}.{field.name}"
        if field.name in STACKS and _has_numbers(value, len(axes)):
            rendered = _heatmap(np.asarray(value, np.float32), axes, (masks or {}).get(field.name), below)
        else:
            rendered = subtree_renderer(value, path=below)
        comma = rendering_parts.siblings(",", rendering_parts.fold_condition(collapsed=rendering_parts.text(" ")))
        line = rendering_parts.siblings_with_annotations(f"{field.name}=", rendered, comma)
        children.append(rendering_parts.build_full_line_with_annotations(line))
    return rendering_parts.build_foldable_tree_node_from_children(
        rendering_parts.siblings(rendering_parts.maybe_qualified_type_name(type(node)), "("), children, ")", path=path
    )


def render_attribution(attribution: Attribution, path: str | None, subtree_renderer: Any) -> Any:
    """Render scores, with what no path leads to left out of the heatmaps."""
    masks = None
    if attribution.certificate is not None:
        reachable = np.asarray(attribution.certificate.trivial) > 0
        n_encoder = 0 if attribution.encoder is None else attribution.encoder.shape[-1]
        masks = {"encoder": reachable[..., :n_encoder], "decoder": reachable[..., n_encoder:]}
    return render_tree(attribution, path, subtree_renderer, axes=("output", "input"), masks=masks)


def _has_numbers(value: Any, n_axes: int) -> bool:
    return hasattr(value, "shape") and len(value.shape) >= n_axes and value.size > 0 and not is_traced(value)


def _heatmap(array: np.ndarray, axes: tuple[str, ...], mask: np.ndarray | None, path: str | None) -> Any:
    import treescope
    from treescope import rendering_parts

    rank = array.ndim
    names = [f"batch {axis}" for axis in range(rank - len(axes))] + list(axes)
    known = array[np.isfinite(array)]
    low, high = float(known.min(initial=0)), float(known.max(initial=0))
    largest = largest_score(known) or 1.0
    figure = treescope.render_array(
        array,
        rows=[rank - 2],
        columns=[rank - 1],
        sliders=list(range(rank - 2)),
        valid_mask=mask,
        continuous=True,
        around_zero=False,
        vmin=-largest if low < 0 else 0.0,
        vmax=largest,
        colormap=[rgb(colour) for colour in ((*BELOW, *ABOVE) if low < 0 else ABOVE)],
        truncate=True,
        axis_labels=dict(enumerate(names)),
    )
    sizes = ", ".join(f"{name} {size}" for name, size in zip(names, array.shape, strict=True))
    is_small = array.shape[-1] * array.shape[-2] <= UNFOLDED
    state = rendering_parts.ExpandState.EXPANDED if is_small else rendering_parts.ExpandState.WEAKLY_COLLAPSED
    return rendering_parts.build_custom_foldable_tree_node(
        label=rendering_parts.text(f"[{sizes}] from {low:.3g} to {high:.3g}"),
        contents=rendering_parts.fold_condition(expanded=rendering_parts.indented_children([figure.treescope_part])),
        path=path,
        expand_state=state,
    )
