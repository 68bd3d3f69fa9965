"""What a comparison found: metrics of methods on texts, their means with bootstrap intervals, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from jaxflow._printable import to_json, visible
from jaxflow._version import __version__
from jaxflow.evaluate._bootstrap import Bootstrap
from jaxflow.evaluate._metrics import METRICS
from jaxflow.evaluate._ranks import rank_correlation

ARROWS = {"more": "↑", "less": "↓", "near 0": "→0"}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Methods x metrics on the same texts.

    Attributes:
        model: its class.
        texts: `[text]`, what was read.
        tokens: of each text, the names of its tokens.
        decisions: of each text, what the model decided, and is explained.
        methods: `[method]`, names.
        metrics: `[metric]`, names; `METRICS` says which way is better.
        values: `[text, method, metric]`; NaN where a metric says nothing (equal scores have no order).
        scores: of each text, `[method, token]`, special tokens included.
        candidates: of each text, `[token]`, whether a token could be hidden: metrics are of these alone.
        bootstrap: how intervals are found.
        passes: `[text, method, 2]`, how many forward and how many backward passes through the model a method takes by itself;
            counted, where it asks for them. NaN where its score of the embeddings does not say: see `EmbeddingScore`.
    """

    model: str
    texts: tuple[str, ...]
    tokens: tuple[tuple[str, ...], ...]
    decisions: tuple[str, ...]
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    values: Float[np.ndarray, "text method metric"]
    scores: tuple[Float[np.ndarray, "method _token"], ...]
    candidates: tuple[Bool[np.ndarray, " _token"], ...]
    bootstrap: Bootstrap
    passes: Float[np.ndarray, "text method way"]

    @property
    def mean(self) -> Float[np.ndarray, "method metric"]:
        """`[method, metric]`, over the texts on which the metric says something."""
        return _mean(self.values)

    @property
    def interval(self) -> Float[np.ndarray, "2 method metric"]:
        """`[2, method, metric]`, lower and upper end of the interval of each mean."""
        return self.bootstrap.interval(self.values)

    def difference(self, method: str, other: str) -> Float[np.ndarray, "3 metric"]:
        """Return `[3, metric]`: mean of `method` less that of `other` on the same texts, lower and upper end of its interval.

        Raises:
            ValueError: no such method.
        """
        for name in (method, other):
            if name not in self.methods:
                raise ValueError(f"{name!r} was not compared; expected one of {', '.join(self.methods)}.")
        paired = self.values[:, self.methods.index(method)] - self.values[:, self.methods.index(other)]
        ends = self.bootstrap.interval(paired)
        return np.concatenate([_mean(paired)[None], ends])

    def differences(self, other: str, *, width: int = 120) -> str:
        """Return a table of each method's means less those of `other` on the same texts, with intervals; * where 0 is outside.

        A difference above 0 speaks for the method where more is better, ↑, and against it where less is, ↓.

        Args:
            other: the method that all others are compared with, such as "leave_one_out".
            width: of the table, in characters: metrics that do not fit beside each other follow below.

        Raises:
            ValueError: no such method, or no other beside it.
        """
        if self.methods == (other,):
            raise ValueError(f"{other!r} is the only method that was compared; expected another beside it.")
        names = [name for name in self.methods if name != other]
        found = {name: self.difference(name, other) for name in names}
        cells = [
            [
                "—" if np.isnan(m) else f"{_short(m)} [{_short(a)}, {_short(b)}]{'*' if a > 0 or b < 0 else ' '}"
                for m, a, b in found[name].T
            ]
            for name in names
        ]
        columns = [
            [f"{name} {ARROWS[METRICS[name]]}", *column]
            for name, column in zip(self.metrics, zip(*cells, strict=True), strict=True)
        ]
        head = f"Less {visible(other)}, on the same texts: mean and {self.bootstrap.level:.0%} interval, * 0 is outside"
        return "\n".join([head, *_tables(names, columns, width)])

    @property
    def rank_correlations(self) -> Float[np.ndarray, "method other"]:
        """`[method, other]`, how alike methods order the tokens that can be hidden: mean rank correlation over texts."""
        n_methods = len(self.methods)
        found = np.full((len(self.texts), n_methods, n_methods), np.nan)
        for text, (rows, known) in enumerate(zip(self.scores, self.candidates, strict=True)):
            for a, b in itertools.product(range(n_methods), repeat=2):
                found[text, a, b] = rank_correlation(rows[a][known], rows[b][known])
        return _mean(found)

    def to_dict(self, *, scores: bool = False) -> dict:
        """Return plain numbers and names: means, intervals and how many texts, by method and metric; of each method its passes.

        Args:
            scores: also each text's values, tokens and scores.
        """
        lower, upper = self.interval
        n_texts = np.isfinite(self.values).sum(0)
        content: dict = {
            "version": __version__,
            "model": self.model,
            "n_texts": len(self.texts),
            **dataclasses.asdict(self.bootstrap),
            "better": {name: METRICS[name] for name in self.metrics},
            "passes": {
                method: {"forward": _number(forwards), "backward": _number(backwards)}
                for method, (forwards, backwards) in zip(self.methods, self.passes.mean(0), strict=True)
            },
            "methods": {
                method: {
                    metric: {
                        "mean": _number(self.mean[i, j]),
                        "interval": [_number(lower[i, j]), _number(upper[i, j])],
                        "n_texts": int(n_texts[i, j]),
                    }
                    for j, metric in enumerate(self.metrics)
                }
                for i, method in enumerate(self.methods)
            },
        }
        if scores:
            content["texts"] = [
                {
                    "text": text,
                    "decision": decision,
                    "tokens": list(tokens),
                    "candidates": known.tolist(),
                    "values": _nested(self.methods, self.metrics, values),
                    "scores": {method: row.tolist() for method, row in zip(self.methods, rows, strict=True)},
                }
                for text, decision, tokens, known, values, rows in zip(
                    self.texts, self.decisions, self.tokens, self.candidates, self.values, self.scores, strict=True
                )
            ]
        return content

    def to_json(self, *, scores: bool = False) -> str:
        """Return what `to_dict` returns, as JSON; null where a metric says nothing."""
        return to_json(self.to_dict(scores=scores), indent=1)

    def to_markdown(self) -> str:
        """Return a table in Markdown: mean, and the interval behind it; the best mean of a column in bold."""
        rows = [["method", "passes", *(f"{name} {ARROWS[METRICS[name]]}" for name in self.metrics)]]
        rows.append(["---", "---:", *("---:" for _ in self.metrics)])
        for method, taken, cells, best in zip(self.methods, self._passes(), self._cells(), self._best(), strict=True):
            rows.append(
                [visible(method), taken, *(_bold(cell) if b else cell for cell, b in zip(cells, best, strict=True))]
            )
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def to_text(self, width: int = 120) -> str:
        """Return tables no wider than `width`, as many metrics beside each other as fit; a star marks the best mean of each."""
        columns = [["passes", *self._passes()]]
        columns += [
            [
                f"{name} {ARROWS[METRICS[name]]}",
                *(f"{cell}{'*' if b else ' '}" for cell, b in zip(cells, best, strict=True)),
            ]
            for name, cells, best in zip(self.metrics, zip(*self._cells(), strict=True), self._best().T, strict=True)
        ]
        n_texts = f"{len(self.texts)} text{'s' * (len(self.texts) != 1)}"
        level = f"mean and {self.bootstrap.level:.0%} interval, * best"
        head = f"{visible(self.model)}: {n_texts}, {level}; passes F forwards, B backwards"
        return "\n".join([head, *_tables(self.methods, columns, width)])

    def __str__(self) -> str:
        return self.to_text()

    def _cells(self) -> list[list[str]]:
        """Write each mean with its interval."""
        lower, upper = self.interval
        return [
            ["—" if np.isnan(m) else f"{_short(m)} [{_short(a)}, {_short(b)}]" for m, a, b in zip(*row, strict=True)]
            for row in zip(self.mean, lower, upper, strict=True)
        ]

    def _passes(self) -> list[str]:
        """Write how many passes each method takes, forwards and backwards, on average over texts."""
        cells = []
        for counts in self.passes.mean(0):
            parts = [f"{count:.4g}{kind}" for count, kind in zip(counts, "FB", strict=True) if count]
            cells.append("—" if np.isnan(counts).any() else "+".join(parts) or "0")
        return cells

    def _best(self) -> np.ndarray:
        """Say which means are the best of their metric, those of chance aside."""
        signs = {"more": self.mean, "less": -self.mean, "near 0": -np.abs(self.mean)}
        merit = np.stack([signs[METRICS[name]][:, j] for j, name in enumerate(self.metrics)], axis=1)
        merit[[name == "random" for name in self.methods]] = np.nan
        return merit == np.nanmax(np.where(np.isnan(merit), -np.inf, merit), axis=0)


def _tables(names: Sequence[str], columns: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Write columns below their heads, as many beside each other as fit."""
    names = [visible(name) for name in names]
    first, widths = max(map(len, names)), [max(map(len, column)) for column in columns]
    start = 0
    while start < len(columns):
        stop = start + 1
        while stop < len(columns) and first + sum(w + 2 for w in widths[start : stop + 1]) <= width:
            stop += 1
        yield ""
        for row, name in enumerate(("", *names)):
            cells = "  ".join(columns[j][row].rjust(widths[j]) for j in range(start, stop))
            yield f"{name:<{first}}  {cells}".rstrip()
        start = stop


def _mean(values: Float[np.ndarray, "text ..."]) -> np.ndarray:
    there = np.isfinite(values)
    total = np.where(there, values, 0.0).sum(0)
    return np.divide(total, there.sum(0), out=np.full_like(total, np.nan), where=there.any(0))


def _nested(methods: Sequence[str], metrics: Sequence[str], values: np.ndarray) -> Mapping[str, Mapping]:
    return {
        method: {metric: _number(values[i, j]) for j, metric in enumerate(metrics)} for i, method in enumerate(methods)
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _short(value: float) -> str:
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
    return "0.00" if text == "-0.00" else text


def _bold(cell: str) -> str:
    mean, _, rest = cell.partition(" ")
    return f"**{mean}** {rest}".rstrip()
