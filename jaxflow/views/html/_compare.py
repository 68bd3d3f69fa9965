"""Methods under one another: their scores of the same text, and how alike they order its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from jaxtyping import ArrayLike, Float

from jaxflow.attribute import Attribution
from jaxflow.evaluate import rank_correlation
from jaxflow.explain import Explanation
from jaxflow.views._named_scores import Shown, check_row, read
from jaxflow.views._sentences import score_text
from jaxflow.views._tokens import shown_tokens
from jaxflow.views.html._page import document, fragment


def compare_page(
    methods: Mapping[str, Explanation | Attribution | Float[ArrayLike, "output input"]],
    *,
    row: int = 0,
    tokens: Sequence[str] | None = None,
    title: str = "Methods compared",
) -> str:
    """Render a page that shows methods' scores of the same text under one another, with their rank correlations.

    Each method has a scale of its own, from 0 to its largest score, since what methods measure differs; negative scores are in
    another colour. Rank correlations are Spearman's, over the inputs that all methods have a score for.

    Args:
        methods: what each method is called, and its `Explanation`, unbatched `Attribution` or scores `[output, input]`.
        row: which of the explained outputs.
        tokens: names of the inputs; those of the first explanation among `methods`, or positions.
        title: of the page.

    Returns:
        A whole document, as `to_page`.

    Raises:
        ValueError: fewer than two methods; methods that differ in their inputs; a row that does not exist.

    Example:
        >>> page = compare_page({"flow": [[0.9, 0.4, 0.1]], "rollout": [[0.6, 0.3, 0.1]]}, tokens=["a", "b", "c"])
        >>> page.count("<html")
        1
    """
    return document(f"jaxflow: {title}", compare_html(methods, row=row, tokens=tokens, title=title))


def compare_html(
    methods: Mapping[str, Explanation | Attribution | Float[ArrayLike, "output input"]],
    *,
    row: int = 0,
    tokens: Sequence[str] | None = None,
    title: str = "Methods compared",
) -> str:
    """Render a fragment for a notebook. Arguments, and what is refused, as `compare_page`."""
    if len(methods) < 2:
        raise ValueError(f"methods holds {len(methods)}; expected two or more to compare.")
    shown = {name: read(given) for name, given in methods.items()}
    for one in shown.values():
        check_row(one, row)
    counts = {name: one.scores.shape[1] for name, one in shown.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"Methods differ in how many inputs they score: {counts}; expected those of one text.")
    explanations = [given for given in methods.values() if isinstance(given, Explanation)]
    stacks = [tokens] if tokens is not None else []
    if tokens is None:
        stacks = (
            [explanations[0].encoder_tokens, explanations[0].decoder_tokens]
            if explanations
            else [[str(i) for i in range(next(iter(counts.values())))]]
        )
    for explanation in explanations[1:]:
        if tokens is None and explanation.tokens != explanations[0].tokens:
            raise ValueError(
                f"Explanations are of different inputs: {explanations[0].tokens[:6]} and {explanation.tokens[:6]}; expected "
                "those of one text."
            )
    words = [word for stack in stacks for word in shown_tokens(stack)]
    if len(words) != next(iter(counts.values())):
        raise ValueError(f"tokens holds {len(words)} names; the methods score {next(iter(counts.values()))} inputs.")
    head = "".join(f'<th scope="col" title="{escape(word.raw)}"><bdi>{escape(word.text)}</bdi></th>' for word in words)
    body = "".join(
        f'<tr><th scope="row"><bdi>{escape(name)}</bdi></th>{_cells(one, row)}</tr>' for name, one in shown.items()
    )
    output = next(iter(explanations), None)
    which = f" for {shown[next(n for n, g in methods.items() if g is output)].titles[row]}" if output else ""
    return fragment(
        f'<header><p class="kicker">Comparison</p><h1>{escape(title)}</h1>'
        f'<p class="note">Scores of each input{escape(which)}. Each method has a scale of its own.</p></header>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Scores by method"><table class="compare">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        '<h2>Do they order the inputs alike?</h2><p class="note">Rank correlation (Spearman): 1 for the same order, 0 for none, '
        f"-1 for the reverse.</p>{_correlations(shown, row)}"
    )


def _cells(shown: Shown, row: int) -> str:
    largest = max(float(np.nanmax(np.abs(shown.scores[row]), initial=0)), np.finfo(np.float64).tiny)
    cells = []
    for score, reachable in zip(shown.scores[row], shown.reachable[row], strict=True):
        if not reachable:
            cells.append('<td class="far"></td>')
            continue
        share = 0.0 if np.isnan(score) else abs(score) / largest
        minus = ' class="minus"' if score < 0 else ""
        cells.append(f'<td{minus} style="--s:{share:.3g}">{score_text(score)}</td>')
    return "".join(cells)


def _correlations(shown: Mapping[str, Shown], row: int) -> str:
    """Write the table of rank correlations."""
    both = np.all([np.isfinite(one.scores[row]) & one.reachable[row] for one in shown.values()], axis=0)
    if both.sum() < 2:
        return '<p class="note">Fewer than two inputs have a score by every method: there is no order to compare.</p>'
    head = "".join(f'<th scope="col"><bdi>{escape(name)}</bdi></th>' for name in shown)
    body = []
    for name, one in shown.items():
        cells = []
        for other in shown.values():
            rho = rank_correlation(one.scores[row][both], other.scores[row][both])
            cells.append(
                f'<td style="--s:{0 if np.isnan(rho) else rho:.2g}">{"none" if np.isnan(rho) else f"{rho:.2f}"}</td>'
            )
        body.append(f'<tr><th scope="row"><bdi>{escape(name)}</bdi></th>{"".join(cells)}</tr>')
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Rank correlations"><table class="corr"><thead><tr><td></td>'
        f"{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )
