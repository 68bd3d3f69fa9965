"""Tokens shaded by one output's scores: as a line of words, or over the patches of an image."""

from __future__ import annotations

from html import escape

import numpy as np
from jaxtyping import UInt8

from jaxflow.explain import Explanation, grey, ground
from jaxflow.views._named_scores import Shown
from jaxflow.views._sentences import score_text
from jaxflow.views._tokens import Shown as Token
from jaxflow.views._tokens import runs_from_the_right, shown_tokens, visible
from jaxflow.views.html._png import png_address

NO_PATH = "\N{EN DASH}"
MOST_PIXELS = 512  # of an image's side


def strip(
    shown: Shown,
    tokens: list[Token],
    *,
    row: int,
    grid: tuple[int, int] | None,
    image: UInt8[np.ndarray, "height width"] | None,
) -> str:
    """Write the inputs of each stack, shaded by the scores for the output in `row`; all stacks on one scale."""
    if grid is not None:
        return _patches(shown, tokens, row, grid, image)
    sides = [
        ("Read by the encoder", range(shown.n_encoder)),
        ("Read by the decoder", range(shown.n_encoder, len(tokens))),
    ]
    both = 0 < shown.n_encoder < len(tokens)
    parts = []
    for name, players in sides:
        if not players:
            continue
        way = ' dir="rtl"' if runs_from_the_right([tokens[i].text for i in players]) else ""
        buttons = [(tokens[player].is_joined, token_button(shown, tokens, row, player)) for player in players]
        words = "".join(f"{'' if joined else '</span><span class=word>'}{button}" for joined, button in buttons)
        words = words.removeprefix("</span>") + "</span>"
        parts.append(f'<p class="side">{name}</p>' if both else "")
        parts.append(f'<div class="strip" role="group" aria-label="{name}"{way}>{words}</div>')
    return "".join(parts)


def word_strip(explanation: Explanation, shown: Shown, *, row: int) -> str:
    """Write whole words, shaded by what their tokens send together; hidden until the reader asks for them."""
    scores = explanation.word_scores
    if scores is None or all(stop - start == 1 for start, stop, _ in explanation.words):
        return ""
    words = []
    for place, (start, stop, name) in enumerate(explanation.words):
        token = shown_tokens([name])[0] if stop - start == 1 else Token(visible(name), name, False, False)
        far = not shown.reachable[row, start:stop].any()
        number = NO_PATH if far else score_text(scores[row, place])
        words.append(
            f'<button type="button" class="token{" special" * token.is_special}{" far" * far}" data-w="{place}"'
            f'{_shade(scores[row, place], shown)} title="{escape(name)}: {"no path" if far else f"{scores[row, place]:.6f}"}">'
            f"<bdi>{escape(token.text)}</bdi><small>{number}</small></button>"
        )
    way = ' dir="rtl"' if runs_from_the_right([name for _, _, name in explanation.words]) else ""
    return f'<div class="words" hidden><div class="strip" role="group" aria-label="Words"{way}>{"".join(words)}</div></div>'


def token_button(shown: Shown, tokens: list[Token], row: int, player: int) -> str:
    """Write one input with its score below."""
    token, score, far = tokens[player], shown.scores[row, player], not shown.reachable[row, player]
    classes = "token" + " joined" * token.is_joined + " special" * token.is_special + " far" * far
    error = "" if shown.errors is None else f" ±{2 * shown.errors[row, player]:.3f}"
    number = NO_PATH if far else f"{score_text(score)}{error}"
    exact = "no path" if far else score_text(score) if np.isnan(score) else f"{score:.6f}"
    return (
        f'<button type="button" class="{classes}" data-i="{player}"{_shade(score, shown)} '
        f'title="{escape(token.raw)}: {exact}"><bdi>{escape(token.text)}</bdi><small>{number}</small></button>'
    )


def largest_score(shown: Shown) -> float:
    """Return what is drawn in the fullest colour: the largest score of all outputs."""
    return float(np.fmax.reduce(shown.scores, axis=None, initial=np.finfo(np.float64).tiny))


def _shade(score: float, shown: Shown) -> str:
    share = 0.0 if np.isnan(score) else max(score, 0) / largest_score(shown)
    return f' style="--s:{min(share, 1):.3g}"' if share else ""


def _patches(
    shown: Shown,
    tokens: list[Token],
    row: int,
    grid: tuple[int, int],
    image: UInt8[np.ndarray, "height width"] | None,
) -> str:
    """Write the patches as a grid, over the image if there is one, and what is none of its patches before it.

    Those of each output have a scale of their own, since the class token often has more than all of them, and a patch that is
    the output more than the others.
    """
    down, across = grid
    most = float(np.fmax.reduce(shown.scores[row, -down * across :], initial=0.0))
    scale = largest_score(shown) / most if most > 0 else 1.0
    kind, style = "patches", f"grid-template-columns:repeat({across},max-content);--scale:{scale:.4g}"
    if image is not None:
        step = -(-max(image.shape) // MOST_PIXELS)
        pixels = np.rint(255 * ground(grey(image[::step, ::step]))).astype(np.uint8)
        kind, style = "patches over-image", f"{style};background-image:url({png_address(pixels[..., None])})"
    others = range(len(tokens) - down * across)
    cells = "".join(token_button(shown, tokens, row, player) for player in range(len(others), len(tokens)))
    apart = "".join(token_button(shown, tokens, row, player) for player in others)
    return (
        (f'<p class="side">Not of the image</p><div class="strip">{apart}</div>' if apart else "")
        + f'<p class="side">{down} by {across} patches of the image; the fullest colour is '
        f'<span class="fullest">{most:.3g}</span></p>'
        f'<div class="{kind}" role="group" aria-label="Patches" style="{style}">{cells}</div>'
    )
