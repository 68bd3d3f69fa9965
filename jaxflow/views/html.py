"""An explanation as one self-contained page or notebook cell: no script, no request, every word escaped."""

from __future__ import annotations

from html import escape

import numpy as np
from jaxtyping import Float

from jaxflow.explanation import Explanation
from jaxflow.views.wording import (
    bottleneck_sentence,
    error_bars,
    error_sentence,
    headline,
    output_name,
    output_sentence,
    prediction_sentence,
    proof_sentence,
    saturation_sentence,
    score_text,
)

SHADES = 32  # a score is drawn in one of so many shades of one colour
MAX_TITLED = 128  # in longer matrices a title per cell would make the page many megabytes

STYLE = f"""
.jaxflow {{ --ink: #1c2733; --paper: #fff; --line: #d5dde5; --score: 24 95 165; color: var(--ink); background: var(--paper);
  font: 14px/1.5 system-ui, sans-serif; padding: 1rem; max-width: 100%; }}
@media (prefers-color-scheme: dark) {{
  .jaxflow {{ --ink: #e6edf3; --paper: #10161d; --line: #33404d; --score: 88 166 255; }} }}
.jaxflow h1 {{ font-size: 1rem; margin: 0 0 .5rem; }}
.jaxflow h2 {{ font-size: .9rem; margin: 1rem 0 .25rem; }}
.jaxflow p {{ margin: .25rem 0; max-width: 70ch; }}
.jaxflow .strip {{ display: flex; flex-wrap: wrap; gap: 2px; }}
.jaxflow .strip span {{ padding: .15rem .35rem; border-radius: 3px; white-space: pre; border: 1px solid var(--line); }}
.jaxflow .strip small {{ display: block; font-variant-numeric: tabular-nums; opacity: .8; }}
.jaxflow .scroll {{ overflow: auto; max-height: 80vh; }}
.jaxflow table {{ border-collapse: collapse; }}
.jaxflow th {{ font-weight: normal; text-align: right; padding: 0 .4rem; white-space: pre; position: sticky; left: 0;
  background: var(--paper); }}
.jaxflow thead th {{ writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; padding: .4rem 0; left: auto; }}
.jaxflow td {{ min-width: 1.1rem; height: 1.1rem; padding: 0; border: 1px solid var(--line); }}
.jaxflow footer {{ margin-top: 1rem; opacity: .75; font-size: .85rem; }}
.jaxflow td {{ background: rgb(var(--score) / var(--share, 0)); }}
.jaxflow .strip span {{ background: rgb(var(--score) / calc(var(--share) * .45)); }}
{"".join(f".jaxflow .s{shade} {{ --share: {shade / SHADES:.3f} }} " for shade in range(SHADES + 1))}
"""


def to_page(explanation: Explanation) -> str:
    """Render a whole document, which opens from a file without a network."""
    title = escape(f"jaxflow: {explanation.model}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>body {{ margin: 0; }} "
        "@media (prefers-color-scheme: dark) { body { background: #10161d; } }</style></head>"
        f"<body>{to_html(explanation)}</body></html>\n"
    )


def to_html(explanation: Explanation) -> str:
    """Render a fragment for a notebook: token strip of the first output, then the matrix of all of them."""
    scores = explanation.scores
    largest = float(np.fmax.reduce(scores, axis=None, initial=np.finfo(np.float64).tiny))  # passes over what is unknown
    predicted = prediction_sentence(explanation)
    notes = (
        proof_sentence(explanation),
        saturation_sentence(explanation),
        bottleneck_sentence(explanation),
        error_sentence(explanation),
    )
    return (
        f'<section class="jaxflow"><style>{STYLE}</style><h1>{escape(headline(explanation))}</h1>'
        f"{_paragraphs(predicted)}<h2>{escape(output_sentence(explanation, 0))}</h2>"
        f"{_strip(explanation, scores[0], largest)}{_paragraphs(*notes)}"
        f"<h2>Outputs (rows) and inputs (columns)</h2>{_matrix(explanation, scores, largest)}"
        f"<footer>jaxflow {escape(explanation.version)}, {escape(_certificate(explanation))}. Largest score: {largest:.4g}."
        "</footer></section>"
    )


def _paragraphs(*sentences: str | None) -> str:
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences if sentence is not None)


def _strip(explanation: Explanation, scores: Float[np.ndarray, " source"], largest: float) -> str:
    spans = (
        f'<span class="s{_shade(score, largest)}" title="{escape(token)}: {_precisely(score)}">{escape(token)}'
        f"<small>{score_text(score)}{off}</small></span>"
        for token, score, off in zip(explanation.tokens, scores, error_bars(explanation, 0), strict=True)
    )
    return f'<div class="strip">{"".join(spans)}</div>'


def _matrix(explanation: Explanation, scores: Float[np.ndarray, "output source"], largest: float) -> str:
    tokens = [escape(token) for token in explanation.tokens]
    titled = len(tokens) <= MAX_TITLED
    rows = []
    for row, values in enumerate(scores):
        name = escape(output_name(explanation, row))
        cells = (
            f'<td class="s{_shade(value, largest)}"'
            + (f' title="{name} from {token}: {_precisely(value)}">' if titled else ">")
            for token, value in zip(tokens, values, strict=True)
        )
        word = escape(explanation.output_tokens[int(explanation.attribution.outputs[row])])
        rows.append(f'<tr><th scope="row">{word}</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col">{token}</th>' for token in tokens)
    return f'<div class="scroll"><table><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _precisely(score: float) -> str:
    return score_text(score) if np.isnan(score) else f"{score:.6f}"


def _shade(score: float, largest: float) -> int:
    return 0 if np.isnan(score) else round(SHADES * score / largest)


def _certificate(explanation: Explanation) -> str:
    certificate = explanation.attribution.certificate
    if certificate is None:
        return "scores without certificate" if explanation.method == "shapley" else "no maximum flow involved"
    settled = ", ".join(f"{count} by {stage}" for stage, count in certificate.stages.items() if count)
    exact = (
        "every score exact: a flow and an upper bound of equal value" if certificate.exact.all() else "not all exact"
    )
    return f"{exact} ({settled}), capacities rounded to {float(np.max(certificate.quantum)):.2g}"
