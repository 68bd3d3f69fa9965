"""Attribution, and attention_flow: Capacities -> network -> values, for every example of a batch."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from jaxflow import _display
from jaxflow._attention import Attention, is_traced
from jaxflow._progress import progress_bar
from jaxflow.attribute._certificate import Certificate
from jaxflow.network import (
    Capacities,
    DecoderLayer,
    Feedback,
    Heads,
    Selection,
    as_capacities,
    batch_of,
    flow_network,
    lengths,
    select,
    selected_networks,
    uniform_capacities,
)
from jaxflow.solve import UNFINISHED, Solver, check_options, max_flow


@struct.dataclass
class Attribution:
    """A score for every explained output and every input token. A PyTree of arrays, and nothing else.

    Scores of encoder and decoder share one scale.

    Attributes:
        encoder: `[*batch, output, source]`, influence of each input token of the encoder, or of each span of them; exactly
            0 for padding. None without encoder.
        decoder: `[*batch, output, target]`, influence of each input token (or span) of the decoder; exactly 0 for padding,
            for tokens after the output and for tokens that are no players. None without decoder.
        outputs: `[output]`, positions that are explained, of the decoder if there is one; numbers of the sets, where
            outputs are explained in sets.
        certificate: what proves the scores; None for methods that have nothing to prove (rollout, raw attention).
        standard_error: `[*batch, output, player]`, of sampled scores, inputs in the order of `certificate`, 0 where they are
            exact; None for methods that do not sample.
        completeness_gap: `[*batch]`, by how much the scores fall short of the sum that they approximate; None for methods
            that approximate none.

    Source: Metzger et al. 2022 (2205.15389).
    """

    encoder: Float[Array | np.ndarray, "*batch output source"] | None
    decoder: Float[Array | np.ndarray, "*batch output target"] | None
    outputs: Int[np.ndarray, " output"]
    certificate: Certificate | None = None
    standard_error: Float[np.ndarray, "*batch output player"] | None = None
    completeness_gap: Float[Array | np.ndarray, " *batch"] | None = None

    @property
    def saturated(self) -> Bool[np.ndarray, "*batch output source"] | None:
        """Where a score equals its trivial bound, and so says nothing of the layers between; None without certificate."""
        if self.certificate is None:
            return None
        trivial = np.asarray(self.certificate.trivial)
        return (np.asarray(self.certificate.lower) == trivial) & (trivial > 0)

    @property
    def saturation(self) -> float | None:
        """Share in [0, 1] of the scores that are saturated, of those that could be other than 0; None without certificate."""
        saturated = self.saturated
        if self.certificate is None or saturated is None:
            return None
        possible = np.asarray(self.certificate.trivial) > 0
        return float(saturated.sum() / max(possible.sum(), 1))

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        return _display.scores(self, path, subtree_renderer)


def attention_flow(
    attention: Attention | Capacities | Float[ArrayLike, "*batch layer head source source"] | Iterator[Any],
    *,
    outputs: int | Sequence[int] | None = None,
    encoder_spans: Bool[ArrayLike, "*batch span source"] | None = None,
    decoder_spans: Bool[ArrayLike, "*batch span target"] | None = None,
    output_spans: Bool[ArrayLike, "*batch span output"] | None = None,
    heads: Heads | None = None,
    residual: float | None = None,
    encoder_mask: Bool[ArrayLike, "*batch source"] | None = None,
    decoder_mask: Bool[ArrayLike, "*batch target"] | None = None,
    decoder_layer: DecoderLayer = "sublayers",
    feedback: Feedback = "prefix",
    n_prompt: int | Int[ArrayLike, " *batch"] | None = None,
    correction: Literal["decay", "uniform"] | None = None,
    normalise: bool = False,
    solver: Solver = "certified",
    tolerance: float = 0.0,
    budget_seconds: float | None = None,
    progress: bool = False,
) -> Attribution:
    """Score each input token by the maximum flow it can send to each output through the attention of all layers.

    `score[output, input] = maxflow(input -> output)` in the network of `flow_network`. A score is the value of a flow,
    which is unique (the flow along arcs is not, and is not returned). Position p of a decoder predicts the token at
    p + 1. Every value has a proof, in `certificate`. It runs on the host, in threads, so not under `jit`; of long inputs all
    pairs cost about what `rollout` costs, not a solve each. Ctrl-C ends it.

    Args:
        attention: `Attention`, `Capacities`, an encoder's bare array `[*batch, layer, head, source, source]`, or layers one by
            one, as `joint_capacities` takes them.
        outputs: positions to explain, in the decoder if there is one; None for all. Rows of padded positions are 0 then.
        encoder_spans: players that are sets of tokens: for each a mask over the encoder's tokens, the same for all
            examples or `[*batch, span, source]`; `span_masks` makes them. A span's score is the joint flow of its tokens,
            which is not the sum of theirs. Tokens in no span are no players. None: each token is a player.
        decoder_spans: likewise, of the decoder's tokens.
        output_spans: outputs that are sets of positions, a mask for each: what flows to any of them counts. Sets may
            overlap. Not together with `outputs`.
        heads: as in `joint_capacities`; "mean" if None. Not together with `Capacities`.
        residual: as in `joint_capacities`; 0.5 if None. Not together with `Capacities`.
        encoder_mask: `[*batch, source]`, False where padded. Not together with `Capacities`.
        decoder_mask: `[*batch, target]`, likewise.
        decoder_layer: "sublayers" or "parallel", as in `flow_network`.
        feedback: "prefix" or "unrolled", as in `flow_network`.
        n_prompt: for "unrolled", how many of the decoder's first tokens were not generated, padding included; one
            number, or one per example.
        correction: causal networks favour early tokens. "decay" divides the score of the decoder's input x for output p
            by p - x + 2 (x < p); "uniform" divides scores by the flow of the same network under uniform attention
            over the keys that have any, at the price of as many solves again. None by default.
        normalise: divide each output's scores by their sum over all inputs (rows that are all 0 stay so). Raw
            otherwise: in [0, 1] for rows of attention that sum to 1 (up to 2 - r with "parallel"), and the sum over
            inputs is 1 or more.
        solver: as in `max_flow`.
        tolerance: stop at a score when its bounds differ by no more, in units of attention; it is the lower one then. 0 is
            exact.
        budget_seconds: stop after so long. Scores that are unfinished then are NaN, with valid bounds in the certificate.
        progress: show a bar with the remaining time on standard error, once it has taken 2 seconds, on a terminal.

    Returns:
        `Attribution`, float64 NumPy arrays, with its certificate.

    Raises:
        ValueError: as `joint_capacities` and `flow_network`; an output that does not exist or is padding; a correction
            that does not apply; a call under `jit`.

    Example:
        >>> import jax.numpy as jnp
        >>> layer = jnp.array([[0.75, 0.25], [0.5, 0.5]])
        >>> attention_flow(jnp.stack([layer, layer])[:, None], residual=0.0).encoder
        array([[1.  , 0.5 ],
               [1.  , 0.75]])

    Source: `attention flow` of Abnar & Zuidema 2020 (2005.00928), section 3.2, with one source at a time, as Metzger
    et al. 2022 (2205.15389), whose causal correction "decay" is known to us from a port that attributes it to them.
    """
    check_options(solver, tolerance, budget_seconds)
    capacities = as_capacities(
        attention, heads=heads, residual=residual, encoder_mask=encoder_mask, decoder_mask=decoder_mask
    )
    if is_traced(capacities):
        raise ValueError("attention_flow solves on the host and cannot be traced: call it outside jit, vmap and grad.")
    # One transfer; then each example is a network of its own. A residual may be a plain number.
    capacities = jax.tree.map(np.asarray, jax.device_get(capacities))
    _check_correction(correction, capacities, spans=decoder_spans is not None or output_spans is not None)
    n_target = lengths(capacities)[1]
    prompts = None if n_prompt is None else np.broadcast_to(np.asarray(n_prompt), batch_of(capacities))
    selection = select(
        capacities,
        outputs=outputs,
        encoder_spans=encoder_spans,
        decoder_spans=decoder_spans,
        output_spans=output_spans,
        n_prompt=prompts,
    )
    deadline = None if budget_seconds is None else time.monotonic() + budget_seconds
    solved = functools.partial(
        _solve_examples,
        selection=selection,
        prompts=prompts,
        decoder_layer=decoder_layer,
        feedback=feedback,
        solver=solver,
        tolerance=tolerance,
        deadline=deadline,
        progress=progress,
    )
    certificate = solved(capacities)
    scores = _values(certificate)
    if correction == "decay":
        # Only the decoder's own earlier tokens are many causal paths ahead.
        steps = selection.outputs[:, None] - np.arange(n_target)
        before = np.ones((len(steps), selection.n_encoder))
        scores = scores / np.concatenate([before, np.where(steps > 0, steps + 2, 1)], axis=-1)
    elif correction == "uniform":
        uniform = _values(solved(uniform_capacities(capacities)))
        scores = np.divide(scores, uniform, out=np.zeros_like(scores), where=uniform != 0)
    return split_scores(
        scores, selection.n_encoder, outputs=selection.outputs, normalise=normalise, certificate=certificate
    )


def _check_correction(correction: str | None, capacities: Capacities, *, spans: bool) -> None:
    if correction not in (None, "decay", "uniform"):
        raise ValueError(f"correction is {correction!r}; expected None, 'decay' or 'uniform'.")
    if correction == "decay" and not lengths(capacities)[1]:
        raise ValueError("correction='decay' is for causal attention; there is no decoder.")
    if correction == "decay" and spans:
        raise ValueError(
            "correction='decay' divides by the distance of two tokens, and spans have none: use correction='uniform', or None."
        )


def _solve_examples(
    capacities: Capacities,
    *,
    selection: Selection,
    prompts: Int[np.ndarray, " *batch"] | None,
    decoder_layer: DecoderLayer,
    feedback: Feedback,
    solver: Solver,
    tolerance: float,
    deadline: float | None,
    progress: bool,
) -> Certificate:
    """Solve each example's network for all pairs of an explained output and a player from which it can be reached."""
    *batch, n_players = selection.inputs.shape
    flows = np.zeros((3, *batch, len(selection.outputs), n_players))
    stage = np.zeros(flows.shape[1:], np.int8)
    quantum = np.zeros(batch)
    with progress_bar(selection.n_pairs, "max-flow", shown=progress) as bar:
        for index in np.ndindex(*batch):
            whole = flow_network(
                jax.tree.map(lambda leaf, index=index: leaf[index], capacities),
                decoder_layer=decoder_layer,
                feedback=feedback,
                n_prompt=None if prompts is None else int(prompts[index]),
            )
            for network, outputs, rows in selected_networks(whole, selection, index):
                pairs = selection.explained[index][rows, None] & selection.inputs[index]
                # Nodes are numbered in topological order: nothing flows to a lower number.
                row, player = np.nonzero(pairs & (network.inputs < outputs[:, None]))
                flow = max_flow(
                    network,
                    network.inputs[player],
                    outputs[row],
                    solver=solver,
                    tolerance=tolerance,
                    budget_seconds=None if deadline is None else max(deadline - time.monotonic(), 0.0),
                    on_solved=bar.update,
                )
                found = flows[(slice(None), *index)][:, rows]
                found[:, row, player] = np.stack([flow.lower, flow.upper, flow.trivial])
                stage[index][rows][row, player] = flow.stage
                quantum[index] = np.maximum(quantum[index], flow.quantum)
    return Certificate(lower=flows[0], upper=flows[1], trivial=flows[2], stage=stage, quantum=quantum)


def _values(certificate: Certificate) -> Float[np.ndarray, "*batch output player"]:
    return np.where(certificate.stage == UNFINISHED, np.nan, certificate.lower)


def split_scores(
    scores: Float[Array | np.ndarray, "*batch output player"],
    n_encoder: int,
    *,
    outputs: Int[np.ndarray, " output"],
    normalise: bool = False,
    certificate: Certificate | None = None,
) -> Attribution:
    """Make an attribution of the scores of all players, the encoder's `n_encoder` first; normalised over all of them."""
    if normalise:
        total = scores.sum(-1, keepdims=True)
        scores = scores / (total + (total == 0).astype(total.dtype))  # rows that are all 0 stay 0
    return Attribution(
        encoder=scores[..., :n_encoder] if n_encoder else None,
        decoder=scores[..., n_encoder:] if n_encoder < scores.shape[-1] else None,
        outputs=outputs,
        certificate=certificate,
    )


def attribution_scores(attribution: Attribution) -> Float[np.ndarray, "*batch output player"]:
    """Return the scores of all players, those of the encoder first."""
    stacks = (attribution.encoder, attribution.decoder)
    return np.concatenate([np.asarray(stack, np.float64) for stack in stacks if stack is not None], axis=-1)
