"""Which inputs count, and which outputs are explained: tokens, or spans of them, of every example of a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import ArrayLike, Bool, Int

from jaxflow.network._capacities import Capacities, batch_of, lengths
from jaxflow.network._network import FlowNetwork, Positions
from jaxflow.network._spans import NO_SPANS, Spans, check_spans, join_inputs, join_outputs


@dataclasses.dataclass(frozen=True)
class Selection:
    """Inputs and outputs of a batch of examples.

    Attributes:
        inputs: `[*batch, input]`, False for padding, for tokens that are no inputs, and for spans of these alone.
        n_encoder: how many of the inputs are the encoder's; the others are the decoder's.
        positions: `[output]`, positions that are explained, or numbers of the sets of them.
        explained: `[*batch, output]`, False for padding and for sets of padding alone.
        spans: the checked masks, each example with its own.
    """

    inputs: Bool[np.ndarray, "*batch input"]
    n_encoder: int
    positions: Int[np.ndarray, " output"]
    explained: Bool[np.ndarray, "*batch output"]
    spans: Spans

    @property
    def n_pairs(self) -> int:
        """How many pairs of an explained output and an input there are in the batch."""
        return int((self.explained.sum(-1) * self.inputs.sum(-1)).sum())


def select(
    capacities: Capacities,
    *,
    positions: Positions | None = None,
    spans: Spans = NO_SPANS,
    n_prompt: Int[np.ndarray, " *batch"] | None = None,
) -> Selection:
    """Check what is asked for, and find the inputs and outputs of each example.

    Raises:
        ValueError: as `attention_flow`.
    """
    source, target = real_tokens(capacities)
    candidates = target if target.shape[-1] else source
    explained_positions = check_positions(positions, candidates)
    if n_prompt is not None:  # generated tokens pass on the prompt's influence, and have none of their own
        target = target & (np.arange(target.shape[-1]) < n_prompt[..., None])
    encoder = None if spans.encoder is None else _spans_of("encoder", spans.encoder, source)
    decoder = None if spans.decoder is None else _spans_of("decoder", spans.decoder, target)
    inputs = [
        real if masks is None else np.asarray(masks.any(-1)) for masks, real in ((encoder, source), (decoder, target))
    ]
    explained, sets = candidates[..., explained_positions], None
    if spans.outputs is not None:
        if positions is not None:
            raise ValueError("positions and spans of outputs are both given; expected one of them.")
        sets = check_spans("spans.outputs", spans.outputs, candidates.shape, disjoint=False) & candidates[..., None, :]
        explained_positions, explained = np.arange(sets.shape[-2]), sets.any(-1)
    return Selection(
        inputs=np.concatenate(inputs, axis=-1),
        n_encoder=inputs[0].shape[-1],
        positions=explained_positions,
        explained=explained,
        spans=Spans(encoder=encoder, decoder=decoder, outputs=sets),
    )


def selected_networks(
    network: FlowNetwork, selection: Selection, index: tuple[int, ...]
) -> Iterator[tuple[FlowNetwork, Int[np.ndarray, " row"], slice]]:
    """Join spans of one example's network: one network for all outputs, or one for each set of them.

    Yields:
        A network whose inputs are those of the selection, and the nodes of the outputs that are explained in the slice.
    """
    encoder, decoder, outputs = (None if masks is None else np.asarray(masks)[index] for masks in selection.spans)
    if encoder is not None or decoder is not None:
        network = join_inputs(network, encoder_spans=encoder, decoder_spans=decoder)
    if outputs is None:
        yield network, network.outputs[selection.positions], slice(None)
        return
    for row, span in enumerate(outputs):
        if span.any():
            joined = join_outputs(network, np.flatnonzero(span))
            yield joined, joined.outputs, slice(row, row + 1)


def check_positions(positions: Positions | None, real: Bool[np.ndarray, "*batch token"]) -> Int[np.ndarray, " output"]:
    """Return the positions to explain, all of them if `positions` is None; `real` is False where padded.

    Raises:
        ValueError: a position that does not exist, or is padding.
    """
    n_tokens = real.shape[-1]
    if positions is None:
        return np.arange(n_tokens)
    chosen = np.atleast_1d(np.asarray(positions))
    if chosen.ndim != 1 or not chosen.size or not np.issubdtype(chosen.dtype, np.integer):
        raise ValueError(f"positions is {positions!r}; expected a position, a sequence of positions, or None for all.")
    for position in chosen.tolist():
        if not 0 <= position < n_tokens:
            raise ValueError(f"Output {position} does not exist: outputs are positions 0 to {n_tokens - 1}.")
        if not real[..., position].all():
            row = [int(i) for i in np.argwhere(~real[..., position])[0]]
            raise ValueError(
                f"Output {position} is padding{f' in row {row}' if row else ''}: there is nothing to explain."
            )
    return chosen.astype(np.int64)


def real_tokens(capacities: Capacities) -> tuple[Bool[np.ndarray, "*batch source"], Bool[np.ndarray, "*batch target"]]:
    """Say which tokens of the source and of the target are no padding; `[*batch, 0]` where there is no such stack."""
    batch = batch_of(capacities)
    masks = (capacities.encoder_mask, capacities.decoder_mask)
    source, target = (
        np.ones((*batch, n_tokens), bool) if mask is None else np.asarray(mask, bool)
        for mask, n_tokens in zip(masks, lengths(capacities), strict=True)
    )
    return source, target


def _spans_of(
    stack: str, spans: Bool[ArrayLike, "*#batch span token"], inputs: Bool[np.ndarray, "*batch token"]
) -> Bool[np.ndarray, "*batch span token"]:
    """Check spans, and leave in them the tokens that are inputs."""
    if not inputs.shape[-1]:
        raise ValueError(f"spans.{stack} are given, but there is no {stack}.")
    return check_spans(f"spans.{stack}", spans, inputs.shape) & inputs[..., None, :]
