"""All outputs by all inputs: a table of shaded cells, or of long texts one picture whose colour the theme chooses."""

from __future__ import annotations

from html import escape

import numpy as np
from jaxtyping import Float

from jaxflow.views._named_scores import Shown
from jaxflow.views._tokens import Shown as Token
from jaxflow.views.html._png import png_address
from jaxflow.views.html._strip import largest_score

SHADES = 32  # a cell has one of so many shades
MOST_CELLS = 96 * 96  # of a table; more make a page slow
PICTURE = 640  # pixels, about, of the longer side of a long text's matrix


def matrix(shown: Shown, tokens: list[Token], names: list[Token]) -> str:
    """Write the scores of all outputs (rows, called `names`) by all inputs (columns); encoder's and decoder's on one scale."""
    share = np.clip(np.nan_to_num(shown.scores) / largest_score(shown), 0, 1)
    if shown.scores.size > MOST_CELLS:
        return _picture(shown, share)
    shades = np.rint(SHADES * share).astype(int)
    gap = '<td class="gap">' if 0 < shown.n_encoder < len(tokens) else ""
    head = [f'<th scope="col"><bdi>{escape(token.text)}</bdi></th>' for token in tokens]
    if gap:
        head.insert(shown.n_encoder, "<td></td>")
    rows = []
    for row, name in enumerate(names):
        cells = [
            "<td class=far>" if not reachable else f"<td class=s{shade}>"
            for shade, reachable in zip(shades[row], shown.reachable[row], strict=True)
        ]
        if gap:
            cells.insert(shown.n_encoder, gap)
        rows.append(f'<tr><th scope="row"><bdi>{escape(name.text)}</bdi></th>{"".join(cells)}</tr>')
    return (
        '<div class="scroll matrix-frame" tabindex="0" role="region" aria-label="Matrix of outputs and inputs">'
        f'<table class="matrix"><thead><tr><td></td>{"".join(head)}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def shade_style() -> str:
    """Write the rules of the shades."""
    return "".join(f".jaxflow .s{shade}{{--s:{shade / SHADES:.3g}}}" for shade in range(1, SHADES + 1))


def _picture(shown: Shown, share: np.ndarray) -> str:
    """Write a matrix as pictures that are masks: how much of the colour shows, and where it is hatched."""
    n_outputs, n_inputs = shown.scores.shape
    scale = max(PICTURE / max(n_outputs, n_inputs), 1)
    blocks = [slice(0, shown.n_encoder), slice(shown.n_encoder, n_inputs)]
    parts = []
    for block in blocks:
        width = len(range(*block.indices(n_inputs)))
        if not width:
            continue
        far = ~shown.reachable[:, block]
        hatch = f'<b style="mask-image:url({_mask(far.astype(float))})"></b>' if far.any() else ""
        parts.append(
            f'<div class="heat" data-first="{block.indices(n_inputs)[0]}" data-n="{width}" '
            f'style="width:{width * scale:.0f}px;height:{max(n_outputs * scale, 12):.0f}px">'
            f'<i style="mask-image:url({_mask(share[:, block])})"></i>{hatch}</div>'
        )
    return (
        '<div class="scroll matrix-frame" tabindex="0" role="img" '
        f'aria-label="Matrix of {n_outputs} outputs and {n_inputs} inputs"><div class="heats">{"".join(parts)}</div></div>'
    )


def _mask(share: Float[np.ndarray, "row column"]) -> str:
    """Make a picture that is black and lets through as much as `share` says, as a data address."""
    alpha = np.rint(255 * share).astype(np.uint8)
    return png_address(np.stack([np.zeros_like(alpha), alpha], axis=-1))
