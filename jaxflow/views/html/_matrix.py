"""All outputs by all inputs: a table of shaded cells, or of long texts heat maps whose colour the theme chooses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxflow.explain import TokenName
from jaxflow.views._named_scores import NamedScores
from jaxflow.views.html._png import png_address

SHADES = 32  # a cell has one of so many shades
MOST_CELLS = 96 * 96  # of a table; more make a page slow
PICTURE = 640  # pixels, about, of the longer side of a long text's matrix


class Heat(NamedTuple):
    """The scores of one stack's inputs as masks: how much of a colour shows.

    Attributes:
        first: the first input.
        n: how many inputs.
        width: in pixels.
        height: in pixels.
        layers: HTML element, class and address of each mask: above 0, below 0, without a path.
    """

    first: int
    n: int
    width: int
    height: int
    layers: list[tuple[str, str, str]]


class Table(NamedTuple):
    """Outputs by inputs.

    Attributes:
        columns: names of the inputs.
        rows: name of each output, and the classes of its cells.
        gap: the first input of the decoder, before which is a gap; 0 for none.
        heats: heat maps, one for each stack, of a long text in the place of cells.
        largest: the score that has the fullest colour.
        has_far: whether some cells have no path.
    """

    columns: list[str]
    rows: list[tuple[str, list[str]]]
    gap: int
    heats: list[Heat]
    largest: str
    has_far: bool


def score_table(shown: NamedScores, tokens: list[TokenName], names: list[str]) -> Table:
    """Shade the scores of all outputs (rows, called `names`) by all inputs (columns), all stacks on one scale."""
    is_long = shown.scores.size > MOST_CELLS
    shades = np.rint(SHADES * shown.shares).astype(int)
    classes = [[] if is_long else _classes(shades[row], shown.reachable[row]) for row in range(len(names))]
    return Table(
        columns=[token.name for token in tokens],
        rows=[(name, cells) for name, cells in zip(names, classes, strict=True)],
        gap=shown.n_encoder if 0 < shown.n_encoder < len(tokens) else 0,
        heats=_heats(shown) if is_long else [],
        largest=f"{shown.largest:.4g}",
        has_far=not shown.reachable.all(),
    )


def shade_style() -> str:
    """Write the rules of the shades, above 0 and below."""
    return "".join(f".jaxflow .s{step},.jaxflow .m{step}{{--s:{step / SHADES:.3g}}}" for step in range(1, SHADES + 1))


def _classes(shades: np.ndarray, reachable: np.ndarray) -> list[str]:
    return [
        "far" if not near else f"s{shade}" if shade >= 0 else f"m{-shade}"
        for shade, near in zip(shades.tolist(), reachable.tolist(), strict=True)
    ]


def _heats(shown: NamedScores) -> list[Heat]:
    n_outputs, n_inputs = shown.scores.shape
    scale = max(PICTURE / max(n_outputs, n_inputs), 1)
    heats = []
    for start, stop in ((0, shown.n_encoder), (shown.n_encoder, n_inputs)):
        if start == stop:
            continue
        share, far = shown.shares[:, start:stop], ~shown.reachable[:, start:stop]
        layers = [("i", "", _mask(np.maximum(share, 0)))]
        layers += [("i", "minus", _mask(np.maximum(-share, 0)))] if (share < 0).any() else []
        layers += [("b", "", _mask(far.astype(float)))] if far.any() else []
        size = round((stop - start) * scale), round(max(n_outputs * scale, 12))
        heats.append(Heat(start, stop - start, *size, layers))
    return heats


def _mask(share: Float[np.ndarray, "row column"]) -> str:
    """Make a picture that is black and lets through as much as `share` says, as a data address."""
    alpha = np.rint(255 * share).astype(np.uint8)
    return png_address(np.stack([np.zeros_like(alpha), alpha], axis=-1))
