"""Methods under one another: their scores of one text, and how alike they order its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxflow._printable import visible
from jaxflow.evaluate import rank_correlation
from jaxflow.explain import Explanation
from jaxflow.views._named_scores import Given, NamedScores, check_row, read_scores
from jaxflow.views._scale import largest_score
from jaxflow.views._sentences import score_text
from jaxflow.views._tokens import input_names, visible_names
from jaxflow.views.html._page import document, page_style
from jaxflow.views.html._strip import shade
from jaxflow.views.html._templates import render


def methods_page(
    methods: Mapping[str, Given],
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
        >>> page = methods_page({"flow": [[0.9, 0.4, 0.1]], "rollout": [[0.6, 0.3, 0.1]]}, tokens=["a", "b", "c"])
        >>> page.count("<html")
        1
    """
    return document(f"jaxflow: {visible(title)}", methods_html(methods, row=row, tokens=tokens, title=title))


def methods_html(
    methods: Mapping[str, Given],
    *,
    row: int = 0,
    tokens: Sequence[str] | None = None,
    title: str = "Methods compared",
) -> str:
    """Render a fragment for a notebook; arguments and errors as those of `methods_page`."""
    if len(methods) < 2:
        raise ValueError(f"methods holds {len(methods)}; expected two or more to compare.")
    shown = {name: read_scores(given) for name, given in methods.items()}
    for one in shown.values():
        check_row(one, row)
    counts = {name: one.scores.shape[1] for name, one in shown.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"Methods differ in how many inputs they score: {counts}; expected those of one text.")
    explanations = [given for given in methods.values() if isinstance(given, Explanation)]
    if tokens is not None:
        words = visible_names(tokens)
    elif explanations:
        words = [token.name for token in input_names(explanations[0])]
    else:
        words = [str(i) for i in range(next(iter(counts.values())))]
    for explanation in explanations[1:]:
        if tokens is None and explanation.tokens != explanations[0].tokens:
            raise ValueError(
                f"Explanations are of different inputs: {explanations[0].tokens[:6]} and {explanation.tokens[:6]}; expected "
                "those of one text."
            )
    if len(words) != next(iter(counts.values())):
        raise ValueError(f"tokens holds {len(words)} names; the methods score {next(iter(counts.values()))} inputs.")
    output = next(iter(explanations), None)
    which = f" for {shown[next(n for n, g in methods.items() if g is output)].titles[row]}" if output else ""
    return render(
        "methods.html",
        style=page_style(),
        data=None,
        title=visible(title),
        which=which,
        tokens=words,
        methods=[(visible(name), _cells(one, row)) for name, one in shown.items()],
        correlations=_correlations(shown, row),
    )


class Cell(NamedTuple):
    """A shaded cell."""

    css: str
    style: str
    text: str


def _cells(shown: NamedScores, row: int) -> list[Cell]:
    largest = largest_score(shown.scores[row])
    cells = []
    for score, reachable in zip(shown.scores[row].tolist(), shown.reachable[row].tolist(), strict=True):
        cells.append(Cell(*shade(score, largest), score_text(score)) if reachable else Cell("far", "", ""))
    return cells


def _correlations(shown: Mapping[str, NamedScores], row: int) -> list[tuple[str, list[Cell]]]:
    """Correlate the ranks of all pairs of methods; nothing where fewer than two inputs have a score by every method."""
    common = np.all([np.isfinite(one.scores[row]) & one.reachable[row] for one in shown.values()], axis=0)
    if common.sum() < 2:
        return []
    table = []
    for name, one in shown.items():
        cells = []
        for other in shown.values():
            rho = rank_correlation(one.scores[row][common], other.scores[row][common])
            is_known = not np.isnan(rho)
            cells.append(Cell("", f"--s:{rho if is_known else 0:.2g}", f"{rho:.2f}" if is_known else "none"))
        table.append((visible(name), cells))
    return table
