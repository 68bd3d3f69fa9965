"""What is computed when an explanation is looked at, and kept: flow graphs, the bottleneck, scores of words."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxflow._progress import progress_bar
from jaxflow.attribute import Attribution, Evidence, Flow, Method, network_of
from jaxflow.explain._flow_graph import FlowGraph, flow_graph
from jaxflow.explain._token_names import TokenName
from jaxflow.explain._word_scores import Word, all_words, join_words, sum_words
from jaxflow.explain._words import Span, known_words
from jaxflow.network import Spans
from jaxflow.solve import bottleneck

# Flow graphs are found unasked while outputs x arcs are no more than this, which takes about 2 s.
CHEAP_ARCS = 2**19

Words = tuple[tuple[Word, ...], Float[np.ndarray, "output word"]]
# Spans of words if they are known, the tokenizer, and the text that it read.
WordSource = tuple[Sequence[Span] | None, Any, str | None]


class Picture:
    """Flow graphs, bottleneck and words of one explanation, each computed when it is first asked for.

    Args:
        n_outputs: explained outputs.
        n_graphs: of how many of the first outputs a page draws the flow.
        graph: finds the flow graph of an explained output, by its row; None where there is no flow.
        layers: finds the share of each layer in the minimum cuts to the first output; None where there are no cuts.
        words: finds words and their scores; None where there are none.
        contributions: finds what each token did give, an explanation of its own, or why that cannot be told; None where it is
            not asked for.
    """

    def __init__(
        self,
        *,
        n_outputs: int = 0,
        n_graphs: Callable[[], int] = lambda: 0,
        graph: Callable[[int], FlowGraph] | None = None,
        layers: Callable[[], Float[np.ndarray, " layer"]] | None = None,
        words: Callable[[], Words | None] | None = None,
        contributions: Callable[[], Any] | None = None,
    ) -> None:
        """Compute nothing yet."""
        self._n_outputs, self._n_graphs = n_outputs, n_graphs
        self._graph, self._layers, self._words = graph, layers, words
        self._contributions = contributions
        self._graphs: dict[int, FlowGraph] = {}

    def flow_graph(self, row: int) -> FlowGraph:
        """Return the flow graph of an explained output.

        Raises:
            ValueError: a method without flow; a row that does not exist.
        """
        if self._graph is None:
            raise ValueError(
                "The explanation has no flow graph: its method is no flow, time ran out, or it was saved without one."
            )
        if not 0 <= row < self._n_outputs:
            raise ValueError(
                f"row is {row}; expected 0 to {self._n_outputs - 1}, which of the explained outputs is meant."
            )
        if row not in self._graphs:
            self._graphs[row] = self._graph(row)
        return self._graphs[row]

    @functools.cached_property
    def flow_graphs(self) -> tuple[FlowGraph, ...]:
        """The flow graphs that a page draws: of all outputs, where that is cheap; else of the first, where one is; else none."""
        if self._graph is None:
            return ()
        n_graphs = self._n_graphs()
        with progress_bar(n_graphs, "flow graph", unit="output") as bar:
            found = []
            for row in range(n_graphs):
                found.append(self.flow_graph(row))
                bar.update()
        return tuple(found)

    @functools.cached_property
    def bottleneck(self) -> Float[np.ndarray, " layer"] | None:
        """`[layer]`, share of each layer in the capacity of the minimum cuts to the first output; None where there are none."""
        if 0 in self._graphs:
            return self._graphs[0].cut_share
        return None if self._layers is None else self._layers()

    @functools.cached_property
    def contributions(self) -> Any:
        """What each token did give, an `Explanation`, or why that cannot be told; None where it was not asked for."""
        return None if self._contributions is None else self._contributions()

    @functools.cached_property
    def words(self) -> Words | None:
        """The words, and their scores."""
        return None if self._words is None else self._words()


def known_picture(
    flow_graphs: Sequence[FlowGraph] = (),
    bottleneck: Float[np.ndarray, " layer"] | None = None,
    words: Words | None = None,
    contributions: Any = None,
) -> Picture:
    """Make a picture of what was computed before, such as a file holds."""

    def graph(row: int) -> FlowGraph:
        if row >= len(flow_graphs):
            raise ValueError(
                f"There are flow graphs of the first {len(flow_graphs)} outputs alone; asked for that of row {row}."
            )
        return flow_graphs[row]

    return Picture(
        n_outputs=len(flow_graphs),
        n_graphs=lambda: len(flow_graphs),
        graph=graph if flow_graphs else None,
        layers=None if bottleneck is None else lambda: bottleneck,
        words=None if words is None else lambda: words,
        contributions=lambda: contributions,
    )


def picture_of(
    method: Method,
    evidence: Evidence,
    attribution: Attribution,
    *,
    names: Mapping[str, Sequence[TokenName]],
    words: WordSource | None,
    contributions: Callable[[], Any] | None = None,
) -> Picture:
    """Prepare the picture of what a method found.

    Args:
        method: which found it.
        evidence: on which.
        attribution: what it found.
        names: of the inputs of each stack.
        words: where words come from; None where inputs are spans already.
        contributions: as in `Picture`.
    """
    find_words = None if words is None else functools.partial(_find_words, method, evidence, attribution, names, words)
    if not isinstance(method, Flow):
        return Picture(words=find_words, contributions=contributions)
    if np.isnan(attribution.scores).any():
        return Picture(contributions=contributions)
    network = functools.cache(functools.partial(network_of, method, evidence))
    n_outputs = len(attribution.positions)

    def graph(row: int) -> FlowGraph:
        whole, output, selection = network(row)
        return flow_graph(whole, output, inputs=selection.inputs, solver=method.solver)

    def layers() -> Float[np.ndarray, " layer"]:
        whole, output, selection = network(0)
        return bottleneck(whole, whole.inputs[selection.inputs], output, solver=method.solver)

    def n_graphs() -> int:
        n_arcs = len(network(0)[0].senders)
        has_own_targets = method.needs != {"attention"} and n_outputs > 1  # a network for each
        if n_outputs * n_arcs <= CHEAP_ARCS and not has_own_targets:
            return n_outputs
        return int(n_arcs <= CHEAP_ARCS)

    return Picture(
        n_outputs=n_outputs,
        n_graphs=n_graphs,
        graph=graph,
        layers=layers,
        words=find_words,
        contributions=contributions,
    )


def _find_words(
    method: Method,
    evidence: Evidence,
    attribution: Attribution,
    names: Mapping[str, Sequence[TokenName]],
    source: WordSource,
) -> Words | None:
    """Find words and their scores; None where there are no words, or where their scores mean nothing."""
    words, tokenizer, text = source
    words = known_words(tokenizer, text) if words is None else words
    if not words:
        return None
    every = all_words({"encoder" if names["encoder"] else "decoder": words}, names)
    scores = attribution.scores
    if not isinstance(method, Flow):
        return (every, sum_words(every, scores)) if getattr(method, "adds_up", False) else None
    if not method.is_plain:
        return None

    def joint_flow(spans: Spans) -> Float[np.ndarray, "output span"]:
        return method.attribute(evidence.with_spans(spans)).scores

    return every, join_words(every, scores, n_encoder=len(names["encoder"]), joint_flow=joint_flow)


def record_of(picture: Picture) -> dict[str, Any]:
    """Compute all of it, and return it as plain values and arrays."""
    words = picture.words
    return {
        "flow_graphs": [dataclasses.asdict(graph) for graph in picture.flow_graphs],
        "bottleneck": picture.bottleneck,
        "words": () if words is None else words[0],
        "word_scores": None if words is None else words[1],
    }
