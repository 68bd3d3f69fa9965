"""Tokens shaded by one output's scores: as a line of words, or over the patches of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxflow._printable import visible
from jaxflow.explain import Explanation, TokenName, grey, ground
from jaxflow.views._named_scores import NamedScores
from jaxflow.views._scale import largest_score, scale_shares
from jaxflow.views._sentences import BRIEF, FULL, NO_PATH, score_text
from jaxflow.views._tokens import runs_from_the_right
from jaxflow.views.html._png import png_address

DASH = "\N{EN DASH}"  # below a token that no path leads from
MOST_PIXELS = 512  # of an image's side


class Button(NamedTuple):
    """A token, or a word, on its shade.

    Attributes:
        kind: "i" of an input, "g" of what an input did give, "w" of a word.
        number: which input or word.
        css: classes.
        style: how much of the colour it has; empty for none.
        title: its name, and its score in full.
        text: what is read.
        note: its score.
    """

    kind: str
    number: int
    css: str
    style: str
    title: str
    text: str
    note: str


class Strip(NamedTuple):
    """The inputs of a stack, word by word."""

    name: str
    words: list[list[Button]]
    is_from_the_right: bool


class Patches(NamedTuple):
    """The patches of an image as a grid, and the inputs that are none, such as the class token, before it."""

    down: int
    across: int
    cells: list[Button]
    others: list[Button]
    fullest: str
    css: str
    style: str


def stack_strips(shown: NamedScores, tokens: list[TokenName], *, row: int, kind: str = "i") -> list[Strip]:
    """Shade the inputs of each stack by the scores for the output in `row`, all stacks on one scale."""
    stacks = [
        ("Read by the encoder", range(shown.n_encoder)),
        ("Read by the decoder", range(shown.n_encoder, len(tokens))),
    ]
    strips = []
    for name, inputs in stacks:
        words: list[list[Button]] = []
        for i in inputs:
            button = token_button(shown, tokens, row, i, kind=kind)
            if tokens[i].kind == "part" and words:
                words[-1].append(button)
            else:
                words.append([button])
        if words:
            strips.append(Strip(name, words, runs_from_the_right([tokens[i].name for i in inputs])))
    return strips


def word_strip(explanation: Explanation, shown: NamedScores, *, row: int) -> Strip | None:
    """Shade whole words by the joint score of their tokens; None where every word is one token, or words are not known."""
    scores = explanation.word_scores
    if scores is None or all(stop - start == 1 for start, stop, _ in explanation.words):
        return None
    buttons = []
    for number, (start, stop, name) in enumerate(explanation.words):
        is_special = stop - start == 1 and explanation.token_kinds[start] == "special"
        token = TokenName(visible(name), "special" if is_special else "word")
        is_far = not shown.reachable[row, start:stop].any()
        buttons.append([_button("w", number, token, scores[row, number], shown.largest, is_far=is_far)])
    return Strip("Words", buttons, runs_from_the_right([name for _, _, name in explanation.words]))


def token_button(shown: NamedScores, tokens: Sequence[TokenName], row: int, i: int, *, kind: str = "i") -> Button:
    """Shade one input by its score."""
    error = "" if shown.errors is None else f" ±{2 * shown.errors[row, i]:.{BRIEF}f}"
    is_far = not shown.reachable[row, i]
    return _button(kind, i, tokens[i], shown.scores[row, i], shown.largest, is_far=is_far, error=error)


def patch_grid(
    shown: NamedScores,
    tokens: list[TokenName],
    *,
    row: int,
    grid: tuple[int, int],
    image: UInt8[np.ndarray, "height width"] | None,
) -> Patches:
    """Shade the patches of an image, over the image if there is one.

    The patches of each output have a scale of their own: the class token often has a larger score than all of them, and a patch
    that is the output has a larger score than the others.
    """
    down, across = grid
    fullest = fullest_patches(shown, grid)[row]
    style = f"grid-template-columns:repeat({across},max-content);--scale:{shown.largest / (fullest or 1) or 1:.4g}"
    css = "patches"
    if image is not None:
        step = -(-max(image.shape) // MOST_PIXELS)
        pixels = np.rint(255 * ground(grey(image[::step, ::step]))).astype(np.uint8)
        css, style = "patches over-image", f"{style};background-image:url({png_address(pixels[..., None])})"
    n_others = len(tokens) - down * across
    buttons = [token_button(shown, tokens, row, i) for i in range(len(tokens))]
    return Patches(down, across, buttons[n_others:], buttons[:n_others], f"{fullest:.3g}", css, style)


def fullest_patches(shown: NamedScores, grid: tuple[int, int]) -> list[float]:
    """Return the score that has the fullest colour among the patches, for each output."""
    return [float(f"{largest_score(row):.3g}") for row in shown.scores[:, -grid[0] * grid[1] :]]


def shade(score: float, largest: float) -> tuple[str, str]:
    """Return the class and the style of a score: orange below 0, and how much of the colour it has."""
    share = float(scale_shares(score, largest))
    return "minus" if share < 0 else "", f"--s:{abs(share):.3g}" if share else ""


def _button(
    kind: str, number: int, token: TokenName, score: float, largest: float, *, is_far: bool, error: str = ""
) -> Button:
    sign, style = shade(score, largest)
    flags = {"joined": token.kind == "part", "special": token.kind == "special", "far": is_far, sign: bool(sign)}
    return Button(
        kind=kind,
        number=number,
        css=" ".join(["token", *(name for name, is_set in flags.items() if is_set)]),
        style=style,
        title=f"{token.name}: {NO_PATH if is_far else score_text(score, FULL)}",
        text=token.name,
        note=DASH if is_far else f"{score_text(score)}{error}",
    )
