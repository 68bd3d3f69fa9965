"""Which inputs play, and which outputs are explained: of all examples of a batch, tokens or spans of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import ArrayLike, Bool, Int

from jaxflow.network._capacities import Capacities, batch_of, lengths
from jaxflow.network._network import FlowNetwork
from jaxflow.network._spans import check_spans, join_inputs, join_outputs


@dataclasses.dataclass(frozen=True)
class Selection:
    """Players and outputs of a batch of examples.

    Attributes:
        inputs: `[*batch, input]`, False for padding, tokens that are no inputs and spans of nothing else.
        n_encoder: how many of the inputs are the encoder's; the others are the decoder's.
        outputs: `[output]`, positions that are explained, or numbers of the sets of them.
        explained: `[*batch, output]`, False for padding and sets of nothing else.
        encoder_spans: `[*batch, span, source]`, where inputs are spans.
        decoder_spans: `[*batch, span, target]`, where inputs are spans.
        output_spans: `[*batch, output, position]`, where outputs are sets of positions.
    """

    inputs: Bool[np.ndarray, "*batch input"]
    n_encoder: int
    outputs: Int[np.ndarray, " output"]
    explained: Bool[np.ndarray, "*batch output"]
    encoder_spans: Bool[np.ndarray, "*batch span source"] | None
    decoder_spans: Bool[np.ndarray, "*batch span target"] | None
    output_spans: Bool[np.ndarray, "*batch output position"] | None

    @property
    def n_pairs(self) -> int:
        """How many pairs of an explained output and an input there are in the batch."""
        return int((self.explained.sum(-1) * self.inputs.sum(-1)).sum())


def select(
    capacities: Capacities,
    *,
    outputs: int | Sequence[int] | None = None,
    encoder_spans: Bool[ArrayLike, "*batch span source"] | None = None,
    decoder_spans: Bool[ArrayLike, "*batch span target"] | None = None,
    output_spans: Bool[ArrayLike, "*batch span output"] | None = None,
    n_prompt: Int[np.ndarray, " *batch"] | None = None,
) -> Selection:
    """Check what is asked for, and find the inputs and outputs of each example.

    Raises:
        ValueError: as `attention_flow`.
    """
    source, target = real_tokens(capacities)
    candidates = target if target.shape[-1] else source
    positions = check_outputs(outputs, candidates)
    if n_prompt is not None:  # what was generated passes on the prompt's influence, and has none of its own
        target = target & (np.arange(target.shape[-1]) < n_prompt[..., None])
    from_encoder = None if encoder_spans is None else _spans_of("encoder", encoder_spans, source)
    from_decoder = None if decoder_spans is None else _spans_of("decoder", decoder_spans, target)
    inputs = [
        real if spans is None else np.asarray(spans.any(-1))
        for spans, real in ((from_encoder, source), (from_decoder, target))
    ]
    explained, sets = candidates[..., positions], None
    if output_spans is not None:
        if outputs is not None:
            raise ValueError("outputs and output_spans are both given; expected one of them.")
        sets = check_spans("output_spans", output_spans, candidates.shape, disjoint=False) & candidates[..., None, :]
        positions, explained = np.arange(sets.shape[-2]), sets.any(-1)
    return Selection(
        inputs=np.concatenate(inputs, axis=-1),
        n_encoder=inputs[0].shape[-1],
        outputs=positions,
        explained=explained,
        encoder_spans=from_encoder,
        decoder_spans=from_decoder,
        output_spans=sets,
    )


def selected_networks(
    network: FlowNetwork, selection: Selection, index: tuple[int, ...]
) -> Iterator[tuple[FlowNetwork, Int[np.ndarray, " row"], slice]]:
    """Join spans of one example's network: one network for all outputs, or one for each set of them.

    Yields:
        A network whose inputs are those of the selection, and the nodes of the outputs that are explained in the slice.
    """
    if selection.encoder_spans is not None or selection.decoder_spans is not None:
        network = join_inputs(
            network,
            encoder_spans=None if selection.encoder_spans is None else selection.encoder_spans[index],
            decoder_spans=None if selection.decoder_spans is None else selection.decoder_spans[index],
        )
    if selection.output_spans is None:
        yield network, network.outputs[selection.outputs], slice(None)
        return
    for row, span in enumerate(selection.output_spans[index]):
        if span.any():
            joined = join_outputs(network, np.flatnonzero(span))
            yield joined, joined.outputs, slice(row, row + 1)


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


def _spans_of(
    stack: str, spans: Bool[ArrayLike, "*batch span token"], inputs: Bool[np.ndarray, "*batch token"]
) -> Bool[np.ndarray, "*batch span token"]:
    """Check spans, and leave in them the tokens that are inputs."""
    if not inputs.shape[-1]:
        raise ValueError(f"{stack}_spans are given, but there is no {stack}.")
    return check_spans(f"{stack}_spans", spans, inputs.shape) & inputs[..., None, :]
