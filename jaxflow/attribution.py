"""Attribution, and attention_flow: Capacities -> network -> values, for every example of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from jaxflow.attention import Attention, is_traced
from jaxflow.capacities import Capacities, Heads, as_capacities
from jaxflow.network import flow_network
from jaxflow.progress import progress_bar
from jaxflow.solve import max_flow

Scores = TypeVar("Scores", Array, np.ndarray)


@struct.dataclass
class Certificate:
    """What proves the values of a flow, before any normalisation; in units of attention, float64.

    Attributes:
        lower: `[*batch, output, source]`, value of a flow that was found.
        upper: `[*batch, output, source]`, capacity of a cut; equal to `lower` where the value is exact.
        trivial: `[*batch, output, source]`, smaller one of what leaves the input and what enters the output, which
            bounds the value whatever happens in the layers between.
        quantum: `[*batch]`, the unit that capacities were rounded to (see `MaxFlow`).
    """

    lower: Float[np.ndarray, "*batch output source"]
    upper: Float[np.ndarray, "*batch output source"]
    trivial: Float[np.ndarray, "*batch output source"]
    quantum: Float[np.ndarray, " *batch"]


@struct.dataclass
class Attribution:
    """A score for every explained output and every input token. A PyTree of arrays, and nothing else.

    Attributes:
        encoder: `[*batch, output, source]`, influence of each input token; exactly 0 for padding.
        outputs: `[output]`, positions that are explained.
        certificate: what proves the scores; None for methods that have nothing to prove (rollout, raw attention).

    Source: Metzger et al. 2022 (2205.15389).
    """

    encoder: Float[Array | np.ndarray, "*batch output source"]
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
    normalise: bool = False,
    solver: Literal["ortools"] = "ortools",
    progress: bool = False,
) -> Attribution:
    """Score each input token by the maximum flow it can send to each output through the attention of all layers.

    `score[output, input] = maxflow(input -> output)` in the network of `flow_network`. A score is the value of a flow,
    which is unique (the flow along arcs is not, and is not returned). Cost: one solve per (output, input) pair on the
    host, so not for use under `jit`; `rollout` is the cheap relative that is.

    Args:
        attention: `Attention`, `Capacities`, or an encoder's bare array `[*batch, layer, head, source, source]`.
        outputs: positions to explain; None for all. Rows of padded positions are 0 then.
        heads: as in `joint_capacities`; "mean" if None. Not together with `Capacities`.
        residual: as in `joint_capacities`; 0.5 if None. Not together with `Capacities`.
        encoder_mask: `[*batch, source]`, False where padded. Not together with `Capacities`.
        normalise: divide each output's scores by their sum (rows that are all 0 stay so). Raw otherwise: in [0, 1] for
            rows of attention that sum to 1, and the sum over inputs is 1 or more.
        solver: as in `max_flow`.
        progress: show a bar with the remaining time on standard error, once it has taken 2 seconds, on a terminal.

    Returns:
        `Attribution`, float64 NumPy arrays, with its certificate.

    Raises:
        ValueError: as `joint_capacities`; an output that does not exist or is padding; a call under `jit`.

    Example:
        >>> import jax.numpy as jnp
        >>> layer = jnp.array([[0.75, 0.25], [0.5, 0.5]])
        >>> attention_flow(jnp.stack([layer, layer])[:, None], residual=0.0).encoder
        array([[1.  , 0.5 ],
               [1.  , 0.75]])

    Source: `attention flow` of Abnar & Zuidema 2020 (2005.00928), section 3.2, with one source at a time, as Metzger
    et al. 2022 (2205.15389).
    """
    capacities = as_capacities(attention, heads=heads, residual=residual, encoder_mask=encoder_mask)
    if is_traced(capacities):
        raise ValueError("attention_flow solves on the host and cannot be traced: call it outside jit, vmap and grad.")
    *batch, _, _, n_tokens = encoder_of(capacities).shape
    mask = None if capacities.encoder_mask is None else np.asarray(capacities.encoder_mask)
    positions = check_outputs(outputs, n_tokens, mask)
    # One transfer; then each example is a network of its own.
    examples = jax.device_get(capacities)
    real = np.ones((*batch, n_tokens), bool) if mask is None else mask
    n_pairs = int((real[..., positions].sum(-1) * real.sum(-1)).sum())
    flows = np.zeros((3, *batch, len(positions), n_tokens))
    quantum = np.zeros(batch)
    with progress_bar(n_pairs, "max-flow", shown=progress) as bar:
        for index in np.ndindex(*batch):
            network = flow_network(Capacities(encoder=examples.encoder[index]))
            players, explained = np.flatnonzero(real[index]), np.flatnonzero(real[index][positions])
            flow = max_flow(
                network,
                network.encoder_players[players],
                network.outputs[positions[explained]][:, None],
                solver=solver,
                on_solved=bar.update,
            )
            flows[(slice(None), *index, *np.ix_(explained, players))] = flow.lower, flow.upper, flow.trivial
            quantum[index] = flow.quantum
    certificate = Certificate(lower=flows[0], upper=flows[1], trivial=flows[2], quantum=quantum)
    scores = certificate.lower.copy()
    return Attribution(
        encoder=normalise_scores(scores) if normalise else scores, outputs=positions, certificate=certificate
    )


def normalise_scores(scores: Scores) -> Scores:
    """Divide by the sum over inputs; rows that are all 0 stay 0."""
    total = scores.sum(-1, keepdims=True)
    return scores / (total + (total == 0).astype(total.dtype))


def check_outputs(
    outputs: int | Sequence[int] | None, n_tokens: int, mask: Bool[np.ndarray, "*batch source"] | None
) -> Int[np.ndarray, " output"]:
    """Return the positions to explain, all of them if `outputs` is None.

    Raises:
        ValueError: an output that does not exist, or is padding.
    """
    if outputs is None:
        return np.arange(n_tokens)
    positions = np.atleast_1d(np.asarray(outputs))
    if positions.ndim != 1 or not positions.size or not np.issubdtype(positions.dtype, np.integer):
        raise ValueError(f"outputs is {outputs!r}; expected a position, a sequence of positions, or None for all.")
    for position in positions.tolist():
        if not 0 <= position < n_tokens:
            raise ValueError(f"Output {position} does not exist: outputs are positions 0 to {n_tokens - 1}.")
        if mask is not None and not mask[..., position].all():
            row = [int(i) for i in np.argwhere(~mask[..., position])[0]]
            raise ValueError(
                f"Output {position} is padding{f' in row {row}' if row else ''}: there is nothing to explain."
            )
    return positions.astype(np.int64)


def encoder_of(capacities: Capacities) -> Float[Array, "*batch layer source source"]:
    """Return the encoder's capacities.

    Raises:
        ValueError: there is another stack, or none.
    """
    if capacities.encoder is None or capacities.decoder is not None or capacities.cross is not None:
        raise ValueError(
            "Encoder-only attention is supported so far: expected `encoder` alone, without decoder and cross."
        )
    return capacities.encoder
