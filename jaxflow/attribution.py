"""Attribution, and attention_flow: Capacities -> network -> values, for every example of a batch."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal, TypeVar

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from jaxflow.attention import Attention, is_traced
from jaxflow.capacities import Capacities, Heads, as_capacities, batch_of, lengths, uniform_capacities
from jaxflow.network import DecoderLayer, Feedback, flow_network
from jaxflow.progress import progress_bar
from jaxflow.solve import Solver, max_flow

Scores = TypeVar("Scores", Array, np.ndarray)


@struct.dataclass
class Certificate:
    """What proves the values of a flow, before any correction and normalisation; in units of attention, float64.

    The players are the encoder's input tokens, if there are any, and then the decoder's.

    Attributes:
        lower: `[*batch, output, player]`, value of a flow that was found.
        upper: `[*batch, output, player]`, capacity of a cut, or a bound that no flow exceeds; equal to `lower` where the
            value is exact.
        trivial: `[*batch, output, player]`, smaller one of what leaves the input and what enters the output, which
            bounds the value whatever happens in the layers between. 0 where no path leads.
        quantum: `[*batch]`, the unit that capacities were rounded to (see `MaxFlow`).
    """

    lower: Float[np.ndarray, "*batch output player"]
    upper: Float[np.ndarray, "*batch output player"]
    trivial: Float[np.ndarray, "*batch output player"]
    quantum: Float[np.ndarray, " *batch"]


@struct.dataclass
class Attribution:
    """A score for every explained output and every input token. A PyTree of arrays, and nothing else.

    Scores of encoder and decoder share one scale.

    Attributes:
        encoder: `[*batch, output, source]`, influence of each input token of the encoder; exactly 0 for padding. None
            without encoder.
        decoder: `[*batch, output, target]`, influence of each input token of the decoder; exactly 0 for padding, for
            tokens after the output and for tokens that are no players. None without decoder.
        outputs: `[output]`, positions that are explained: of the decoder, if there is one.
        certificate: what proves the scores; None for methods that have nothing to prove (rollout, raw attention).

    Source: Metzger et al. 2022 (2205.15389).
    """

    encoder: Float[Array | np.ndarray, "*batch output source"] | None
    decoder: Float[Array | np.ndarray, "*batch output target"] | None
    outputs: Int[np.ndarray, " output"]
    certificate: Certificate | None = None

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


def attention_flow(
    attention: Attention | Capacities | Float[ArrayLike, "*batch layer head source source"],
    *,
    outputs: int | Sequence[int] | None = None,
    heads: Heads | None = None,
    residual: float | None = None,
    encoder_mask: Bool[ArrayLike, "*batch source"] | None = None,
    decoder_mask: Bool[ArrayLike, "*batch target"] | None = None,
    decoder_layer: DecoderLayer = "sublayers",
    feedback: Feedback = "prefix",
    n_prompt: int | Int[ArrayLike, " *batch"] | None = None,
    correction: Literal["decay", "uniform"] | None = None,
    normalise: bool = False,
    solver: Solver = "ortools",
    progress: bool = False,
) -> Attribution:
    """Score each input token by the maximum flow it can send to each output through the attention of all layers.

    `score[output, input] = maxflow(input -> output)` in the network of `flow_network`. A score is the value of a flow,
    which is unique (the flow along arcs is not, and is not returned). Position p of a decoder predicts the token at
    p + 1. Cost: one solve per (output, input) pair on the host, so not for use under `jit`; `rollout` is the cheap
    relative that is.

    Args:
        attention: `Attention`, `Capacities`, or an encoder's bare array `[*batch, layer, head, source, source]`.
        outputs: positions to explain, in the decoder if there is one; None for all. Rows of padded positions are 0 then.
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
    capacities = as_capacities(
        attention, heads=heads, residual=residual, encoder_mask=encoder_mask, decoder_mask=decoder_mask
    )
    if is_traced(capacities):
        raise ValueError("attention_flow solves on the host and cannot be traced: call it outside jit, vmap and grad.")
    capacities = jax.device_get(capacities)  # one transfer; then each example is a network of its own
    source, target = real_tokens(capacities)
    n_source, n_target = source.shape[-1], target.shape[-1]
    if correction not in (None, "decay", "uniform"):
        raise ValueError(f"correction is {correction!r}; expected None, 'decay' or 'uniform'.")
    if correction == "decay" and not n_target:
        raise ValueError("correction='decay' is for causal attention; there is no decoder.")
    positions = check_outputs(outputs, target if n_target else source)
    prompts = None if n_prompt is None else np.broadcast_to(np.asarray(n_prompt), target.shape[:-1])
    if prompts is not None:  # what was generated passes on the prompt's influence, and has none of its own
        written = np.arange(n_target) < prompts[..., None]
    players = np.concatenate([source, target if prompts is None else target & written], axis=-1)
    solved = functools.partial(
        _solve_examples,
        positions=positions,
        players=players,
        explained=(target if n_target else source)[..., positions],
        prompts=prompts,
        decoder_layer=decoder_layer,
        feedback=feedback,
        solver=solver,
        progress=progress,
    )
    certificate = solved(capacities)
    scores = certificate.lower
    if correction == "decay":
        # Only the decoder's own earlier tokens are many causal paths ahead.
        steps = positions[:, None] - np.arange(n_target)
        scores = scores / np.concatenate(
            [np.ones((len(positions), n_source)), np.where(steps > 0, steps + 2, 1)], axis=-1
        )
    elif correction == "uniform":
        uniform = solved(uniform_capacities(capacities)).lower
        scores = np.divide(scores, uniform, out=np.zeros_like(scores), where=uniform > 0)
    scores = normalise_scores(scores) if normalise else scores.copy()
    return Attribution(
        encoder=scores[..., :n_source] if n_source else None,
        decoder=scores[..., n_source:] if n_target else None,
        outputs=positions,
        certificate=certificate,
    )


def _solve_examples(
    capacities: Capacities,
    *,
    positions: Int[np.ndarray, " output"],
    players: Bool[np.ndarray, "*batch player"],
    explained: Bool[np.ndarray, "*batch output"],
    prompts: Int[np.ndarray, " *batch"] | None,
    decoder_layer: DecoderLayer,
    feedback: Feedback,
    solver: Solver,
    progress: bool,
) -> Certificate:
    """Solve each example's network for all pairs of an explained output and a player from which it can be reached."""
    *batch, n_players = players.shape
    flows = np.zeros((3, *batch, len(positions), n_players))
    quantum = np.zeros(batch)
    n_pairs = int((explained.sum(-1) * players.sum(-1)).sum())
    with progress_bar(n_pairs, "max-flow", shown=progress) as bar:
        for index in np.ndindex(*batch):
            network = flow_network(
                jax.tree.map(lambda leaf, index=index: leaf[index], capacities),
                decoder_layer=decoder_layer,
                feedback=feedback,
                n_prompt=None if prompts is None else int(prompts[index]),
            )
            nodes = network.players
            sinks = network.outputs[positions]
            # Nodes are numbered in topological order: nothing flows to a lower number.
            row, player = np.nonzero(explained[index][:, None] & players[index] & (nodes < sinks[:, None]))
            flow = max_flow(network, nodes[player], sinks[row], solver=solver, on_solved=bar.update)
            flows[(slice(None), *index, row, player)] = flow.lower, flow.upper, flow.trivial
            quantum[index] = flow.quantum
    return Certificate(lower=flows[0], upper=flows[1], trivial=flows[2], quantum=quantum)


def normalise_scores(scores: Scores) -> Scores:
    """Divide by the sum over inputs; rows that are all 0 stay 0."""
    total = scores.sum(-1, keepdims=True)
    return scores / (total + (total == 0).astype(total.dtype))


def check_outputs(
    outputs: int | Sequence[int] | None, real: Bool[np.ndarray, "*batch token"]
) -> Int[np.ndarray, " output"]:
    """Return the positions to explain, all of them if `outputs` is None; `real` is False where padded.

    Raises:
        ValueError: an output that does not exist, or is padding.
    """
    n_tokens = real.shape[-1]
    if outputs is None:
        return np.arange(n_tokens)
    positions = np.atleast_1d(np.asarray(outputs))
    if positions.ndim != 1 or not positions.size or not np.issubdtype(positions.dtype, np.integer):
        raise ValueError(f"outputs is {outputs!r}; expected a position, a sequence of positions, or None for all.")
    for position in positions.tolist():
        if not 0 <= position < n_tokens:
            raise ValueError(f"Output {position} does not exist: outputs are positions 0 to {n_tokens - 1}.")
        if not real[..., position].all():
            row = [int(i) for i in np.argwhere(~real[..., position])[0]]
            raise ValueError(
                f"Output {position} is padding{f' in row {row}' if row else ''}: there is nothing to explain."
            )
    return positions.astype(np.int64)


def real_tokens(capacities: Capacities) -> tuple[Bool[np.ndarray, "*batch source"], Bool[np.ndarray, "*batch target"]]:
    """Say which tokens of the source and of the target are no padding; `[*batch, 0]` where there is no such stack."""
    batch = batch_of(capacities)
    masks = (capacities.encoder_mask, capacities.decoder_mask)
    source, target = (
        np.ones((*batch, n_tokens), bool) if mask is None else np.asarray(mask, bool)
        for mask, n_tokens in zip(masks, lengths(capacities), strict=True)
    )
    return source, target
