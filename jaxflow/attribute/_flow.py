"""Attention flow: the maximum flow from each input to each output, for every example of a batch."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from jaxflow._attention import Attention, SourceMask, TargetMask
from jaxflow._progress import progress_bar
from jaxflow.attribute._attribution import Attribution, split_scores
from jaxflow.attribute._certificate import Certificate
from jaxflow.attribute._evidence import Evidence, needs_of
from jaxflow.attribute._networks import Examples, bring_to_host, examples_of
from jaxflow.attribute._together import Batch, attribute_together, can_be_together
from jaxflow.capture import Residual
from jaxflow.network import (
    NO_SPANS,
    Capacities,
    DecoderLayer,
    Feedback,
    Heads,
    Positions,
    Spans,
    Weighting,
    as_capacities,
    lengths,
    uniform_capacities,
)
from jaxflow.solve import UNFINISHED, Solver, check_options, max_flow_in_each


def attention_flow(
    attention: Attention | Capacities | Float[ArrayLike, "*batch layer head source source"] | Iterator[Any],
    *,
    positions: Positions | None = None,
    heads: Heads | None = None,
    residual: Residual | None = None,
    encoder_mask: SourceMask | None = None,
    decoder_mask: TargetMask | None = None,
    decoder_layer: DecoderLayer = "sublayers",
    feedback: Feedback = "prefix",
    n_prompt: int | Sequence[int] | Int[ArrayLike, " *batch"] | None = None,
    solver: Solver = "certified",
) -> Attribution:
    """Score each input token by the maximum flow that it can send to each output through the attention of all layers.

    `score[output, input] = maxflow(input -> output)` in the network of `flow_network`. A score is the value of a flow, which
    is unique; the flow along arcs is not, and is not returned. Position p of a decoder predicts the token at p + 1. Every value
    has a proof, in `certificate`. It runs on the host, in threads, so not under `jit`. For long inputs all pairs cost about what
    `rollout` costs. Ctrl-C ends it.

    This is the short form. `AttentionFlow(...)(attention, spans=...)` has all options: spans, corrections, tolerance, budget.

    Args:
        attention: `Attention`, `Capacities`, an encoder's bare array `[*batch, layer, head, source, source]`, or an iterator over
            layers, as `joint_capacities` takes it.
        positions: outputs to explain, positions in the decoder if there is one; None for all. Rows of padding are 0 then.
        heads: as in `joint_capacities`; "mean" if None. Not together with `Capacities`.
        residual: as in `joint_capacities`; 0.5 if None. Not together with `Capacities`.
        encoder_mask: `[*batch, source]`, False where padded. Not together with `Capacities`.
        decoder_mask: `[*batch, target]`, likewise.
        decoder_layer: "sublayers" or "parallel", as in `flow_network`.
        feedback: "prefix" or "unrolled", as in `flow_network`.
        n_prompt: for "unrolled", how many of the decoder's first tokens were not generated, padding included; one number,
            or one per example.
        solver: "certified", or "ortools", the reference: as in `max_flow`.

    Returns:
        `Attribution`, float64 NumPy arrays, with its certificate.

    Raises:
        ValueError: as `joint_capacities` and `flow_network`; a position that does not exist or is padding; a call under `jit`.

    Example:
        >>> import jax.numpy as jnp
        >>> layer = jnp.array([[0.75, 0.25], [0.5, 0.5]])
        >>> attention_flow(jnp.stack([layer, layer])[:, None], residual=0.0).encoder
        array([[1.  , 0.5 ],
               [1.  , 0.75]])

    Source: `attention flow` of Abnar & Zuidema 2020 (2005.00928), section 3.2, with one source at a time, as Metzger
    et al. 2022 (2205.15389).
    """
    method = AttentionFlow(decoder_layer=decoder_layer, feedback=feedback, solver=solver)
    capacities = as_capacities(
        attention, heads=heads, residual=residual, encoder_mask=encoder_mask, decoder_mask=decoder_mask
    )
    return method(capacities, positions=positions, n_prompt=n_prompt)


@dataclasses.dataclass(frozen=True)
class AttentionFlow:
    """The method of the paper: a token's score is the maximum flow from it to the output. What a token *could* send.

    For arrays, call it: `AttentionFlow(residual=0.0)(attention)`. For models, pass it to `explain`, `compare` or `FlowMonitor`.

    Attributes:
        heads: how heads are reduced, as in `joint_capacities`.
        residual: the residual stream's share of each capacity, as in `joint_capacities`.
        weighting: "attention", the same for every target; "gradient" or "attention_gradient", what of it matters to the target,
            by the gradients of the attention weights.
        decoder_layer: "sublayers" or "parallel", as in `flow_network`.
        feedback: "prefix", generated tokens are inputs too; "unrolled", they pass on what reached the output that wrote them.
        correction: causal networks favour early tokens. "decay" divides the score of the decoder's input x for output p by
            p - x + 2 (x < p); "uniform" divides scores by the flow of the same network under uniform attention over the keys
            that have any, at the price of as many solves again. None corrects nothing.
        normalise: divide each output's scores by their sum over all inputs. Raw scores are in [0, 1] for rows of attention that
            sum to 1 (up to 2 - r with "parallel"), and their sum over inputs is 1 or more.
        solver: "certified", or "ortools", the reference: as in `max_flow`.
        tolerance: stop at a score when its bounds differ by no more, in units of attention; it is the lower one then. 0 is
            exact. For the certified solver.
        budget_seconds: stop after so long. Scores that are unfinished then are NaN, with valid bounds in the certificate.

    Source: Metzger et al. 2022 (2205.15389); "decay" is known from a port that attributes it to them.
    """

    heads: Heads = "mean"
    residual: Residual = 0.5
    weighting: Weighting = "attention"
    decoder_layer: DecoderLayer = "sublayers"
    feedback: Feedback = "prefix"
    correction: Literal["decay", "uniform"] | None = None
    normalise: bool = False
    solver: Solver = "certified"
    tolerance: float = 0.0
    budget_seconds: float | None = None

    name: ClassVar[str] = "flow"

    def __post_init__(self) -> None:
        """Refuse options that no solver takes."""
        check_options(self.solver, self.tolerance, self.budget_seconds)
        if self.correction not in (None, "decay", "uniform"):
            raise ValueError(f"correction is {self.correction!r}; expected None, 'decay' or 'uniform'.")

    @property
    def needs(self) -> frozenset[str]:
        """What it needs of a model."""
        return needs_of(self.weighting)

    @property
    def is_plain(self) -> bool:
        """Whether scores are values of flows: neither corrected nor normalised, and without a time limit."""
        return self.correction is None and not self.normalise and self.budget_seconds is None

    def attribute(self, evidence: Evidence) -> Attribution:
        """Score the inputs of one example for its explained positions; with gradients, each position by its own target."""
        flow = within_budget(self)

        def solve(row: int, positions: Sequence[int] | None) -> Attribution:
            return flow()(
                self.capacities(evidence, row),
                positions=evidence.for_arrays(positions),
                spans=self.spans(evidence, row),
                n_prompt=evidence.n_prompt_of(self.feedback),
            )

        return evidence.by_target(solve, depends="gradients" in self.needs)

    def attribute_each(self, evidences: Sequence[Evidence]) -> list[Attribution]:
        """Do what `attribute` does for several examples: those of similar length are solved together."""
        is_plain = self.weighting == "attention" and self.feedback == "prefix" and self.budget_seconds is None
        if type(self) is not AttentionFlow or not is_plain or not can_be_together(evidences):
            return [self.attribute(evidence) for evidence in evidences]

        def score(batch: Batch) -> Attribution:
            examples = examples_of(batch.capacities, what="Attention flow is")
            selection = examples.selection
            explained = dataclasses.replace(selection, explained=selection.explained & batch.explained)
            return self._score(dataclasses.replace(examples, selection=explained))

        return attribute_together(self, evidences, score)

    @property
    def flow(self) -> AttentionFlow:
        """The flow that is found on the capacities: this one."""
        return self

    def capacities(self, evidence: Evidence, row: int = 0) -> Capacities:
        """Return the capacities of the network that a target's flow is in, NumPy arrays."""
        return evidence.capacities(self, row)

    def spans(self, evidence: Evidence, row: int = 0) -> Spans:
        """Return which tokens count as one input, and which positions as one output."""
        return evidence.spans

    def __call__(
        self,
        attention: Attention | Capacities | Float[ArrayLike, "*batch layer head source source"] | Iterator[Any],
        *,
        positions: Positions | None = None,
        spans: Spans = NO_SPANS,
        encoder_mask: SourceMask | None = None,
        decoder_mask: TargetMask | None = None,
        n_prompt: int | Sequence[int] | Int[ArrayLike, " *batch"] | None = None,
    ) -> Attribution:
        """Score arrays. The weighting is that of the capacities: give gradients to `joint_capacities`.

        Args:
            attention: as in `attention_flow`. Heads and residual of this method are those of `Capacities` already made.
            positions: as in `attention_flow`.
            spans: sets of tokens that count as one input, and sets of positions that count as one output.
            encoder_mask: as in `attention_flow`.
            decoder_mask: as in `attention_flow`.
            n_prompt: as in `attention_flow`.

        Returns:
            `Attribution`, float64 NumPy arrays, with its certificate.

        Raises:
            ValueError: as `attention_flow`; spans that overlap or do not fit; a correction that does not apply.
        """
        examples = bring_to_host(
            self,
            attention,
            what="Attention flow is",
            positions=positions,
            spans=spans,
            encoder_mask=encoder_mask,
            decoder_mask=decoder_mask,
            n_prompt=n_prompt,
        )
        return self._score(examples)

    def _score(self, examples: Examples) -> Attribution:
        """Solve, correct and normalise."""
        n_target, selection = lengths(examples.capacities)[1], examples.selection
        if self.correction == "decay":
            _check_decay(n_target, selection.spans)
        end = None if self.budget_seconds is None else time.monotonic() + self.budget_seconds
        certificate = self._solve(examples, end)
        scores = _values(certificate)
        if self.correction == "decay":
            # Only the decoder's own earlier tokens are many causal paths ahead.
            steps = selection.positions[:, None] - np.arange(n_target)
            before = np.ones((len(steps), selection.n_encoder))
            scores = scores / np.concatenate([before, np.where(steps > 0, steps + 2, 1)], axis=-1)
        elif self.correction == "uniform":
            even = dataclasses.replace(examples, capacities=uniform_capacities(examples.capacities))
            uniform = _values(self._solve(even, end))
            scores = np.divide(scores, uniform, out=np.zeros_like(scores), where=uniform != 0)
        return split_scores(
            scores,
            selection.n_encoder,
            positions=selection.positions,
            normalise=self.normalise,
            certificate=certificate,
        )

    def _solve(self, examples: Examples, end: float | None) -> Certificate:
        """Solve each example's network for all pairs of an explained output and an input from which it can be reached."""
        selection = examples.selection
        *batch, n_inputs = selection.inputs.shape
        flows = np.zeros((3, *batch, len(selection.positions), n_inputs))
        stage = np.zeros(flows.shape[1:], np.int8)
        quantum = np.zeros(batch)
        with progress_bar(selection.n_pairs, "max-flow") as bar:
            for indices, networks, outputs, rows in examples.networks_together(self):
                inputs, where = networks.inputs, tuple(np.transpose(indices))
                # Nodes are numbered in topological order: nothing flows to a lower number.
                row, source = np.nonzero(inputs < outputs[:, None])
                explained = selection.explained[where].reshape(len(indices), -1)[:, rows]
                senders = selection.inputs[where].reshape(len(indices), -1)
                flow, quanta = max_flow_in_each(
                    networks,
                    inputs[source],
                    outputs[row],
                    explained[:, row] & senders[:, source],
                    solver=self.solver,
                    tolerance=self.tolerance,
                    budget_seconds=None if end is None else max(end - time.monotonic(), 0.0),
                    on_solved=bar.update,
                )
                for number, index in enumerate(indices):
                    for bounds, found in zip(flows, (flow.lower, flow.upper, flow.trivial), strict=True):
                        bounds[index][rows][row, source] = found[number]
                    stage[index][rows][row, source] = flow.stage[number]
                    quantum[index] = np.maximum(quantum[index], quanta[number])
        return Certificate(lower=flows[0], upper=flows[1], trivial=flows[2], stage=stage, quantum=quantum)


def within_budget(flow: AttentionFlow) -> Callable[[], AttentionFlow]:
    """Start the clock of a flow that is solved several times; return what makes it with the seconds that are left."""
    if flow.budget_seconds is None:
        return lambda: flow
    end = time.monotonic() + flow.budget_seconds
    return lambda: dataclasses.replace(flow, budget_seconds=max(end - time.monotonic(), 0.0))


def _check_decay(n_target: int, spans: Spans) -> None:
    if not n_target:
        raise ValueError("correction='decay' is for causal attention; there is no decoder.")
    if spans.decoder is not None or spans.outputs is not None:
        raise ValueError(
            "correction='decay' divides by the distance of two tokens, and spans have none: use correction='uniform', or None."
        )


def _values(certificate: Certificate) -> Float[np.ndarray, "*batch output input"]:
    return np.where(certificate.stage == UNFINISHED, np.nan, certificate.lower)
