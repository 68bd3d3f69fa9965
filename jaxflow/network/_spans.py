"""Spans: sets of tokens that count as one input, or as one output, of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Bool

from jaxflow._attention import AnyArray, AnyInt
from jaxflow.network._network import FlowNetwork, Positions


class Spans(NamedTuple):
    """Sets of tokens that count as one input, and sets of positions that count as one output: a mask for each set.

    `span_masks` makes masks of (start, stop) pairs. Where a field is None, each token is an input, or an output, of its own.

    Attributes:
        encoder: `[span, source]` or `[*batch, span, source]`. A span's score is the joint flow of its tokens, which is not the
            sum of theirs. Tokens in no span are no inputs.
        decoder: `[span, target]`, likewise, of the decoder's tokens.
        outputs: `[span, position]`, likewise: what flows to any position of the set counts. Sets may overlap.
    """

    encoder: Bool[ArrayLike, "*batch span source"] | None = None
    decoder: Bool[ArrayLike, "*batch span target"] | None = None
    outputs: Bool[ArrayLike, "*batch span position"] | None = None

    @property
    def are_given(self) -> bool:
        """Whether there are any."""
        return any(masks is not None for masks in self)


NO_SPANS = Spans()


def span_masks(spans: Sequence[tuple[int, int]], n_tokens: int) -> Bool[np.ndarray, "span token"]:
    """Turn spans into masks over tokens, as `Spans` takes them.

    Args:
        spans: `(start, stop)` each, tokens start to stop - 1.
        n_tokens: how many tokens there are.

    Returns:
        `[span, token]`, True where the token belongs to the span.

    Raises:
        ValueError: no spans; one that is empty, leaves the text or overlaps another.

    Example:
        >>> span_masks([(0, 1), (1, 3)], 4)
        array([[ True, False, False, False],
               [False,  True,  True, False]])
    """
    if not len(spans):
        raise ValueError("There are no spans: expected at least one (start, stop).")
    masks = np.zeros((len(spans), n_tokens), bool)
    for mask, span in zip(masks, spans, strict=True):
        start, stop = ends_of(span)
        if not 0 <= start < stop:
            raise ValueError(f"Span ({start}, {stop}) holds no token: expected 0 <= start < stop.")
        if stop > n_tokens:
            raise ValueError(
                f"Span ({start}, {stop}) leaves the text, which has {n_tokens} tokens: stop is at most that."
            )
        mask[start:stop] = True
    check_spans("spans", masks, (n_tokens,))
    return masks


def ends_of(span: Sequence[AnyInt]) -> tuple[int, int]:
    """Return start and stop of a span, or raise if it is none."""
    if isinstance(span, str) or len(span) != 2 or not all(isinstance(end, int | np.integer) for end in span):
        raise ValueError(f"{span!r} is no span: expected (start, stop), whole numbers that count tokens.")
    return int(span[0]), int(span[1])


def check_spans(
    name: str, spans: Bool[ArrayLike, "*#batch span token"], shape: tuple[int, ...], *, disjoint: bool = True
) -> Bool[np.ndarray, "*batch span token"]:
    """Check masks of spans over tokens of `shape`, `[*batch, token]`, and give each example its own.

    Raises:
        ValueError: masks of another shape or of other values than True and False; inputs that share a token.
    """
    masks = np.asarray(spans)
    if masks.ndim < 2 or masks.shape[-2] == 0 or (*masks.shape[:-2], masks.shape[-1]) not in (shape, shape[-1:]):
        raise ValueError(
            f"{name} has shape {masks.shape}; expected [span, token] or [*batch, span, token] for tokens of shape {shape}. "
            "span_masks makes it of (start, stop) pairs."
        )
    if not np.isin(masks, (0, 1)).all():
        raise ValueError(f"{name} holds {np.setdiff1d(masks, (0, 1))[0]}; expected True or False for each token.")
    shared = np.argwhere(masks.sum(-2) > 1)
    if disjoint and len(shared):
        token = int(shared[0, -1])
        first, second = (int(span) for span in np.flatnonzero(masks[*shared[0, :-1], :, token])[:2])
        raise ValueError(
            f"Spans {first} and {second} overlap: both hold token {token}. Each token belongs to one span at most; ask for "
            "overlapping spans in separate calls."
        )
    return np.broadcast_to(masks.astype(bool), (*shape[:-1], *masks.shape[-2:]))


def join_inputs(
    network: FlowNetwork,
    *,
    encoder_spans: Bool[AnyArray, "_span source"] | None = None,
    decoder_spans: Bool[AnyArray, "_span target"] | None = None,
) -> FlowNetwork:
    """Make each span of input tokens one input, whose flow is that of all its tokens together.

    The joint flow of a set is not the sum of its members' flows, which share the arcs between: it is at most that, and at
    least each of them. Nodes of a span become one node, the first of them, so that no arc is added.

    Args:
        network: one example's network.
        encoder_spans: `[span, source]`, one mask for each input; None leaves the tokens as they are. Tokens in no span are no
            inputs.
        decoder_spans: `[span, target]`, likewise.

    Returns:
        `FlowNetwork` whose inputs are the spans, in their order; `position` of an input is that of its first token. A
        span without tokens is a node of its own, without arcs.

    Raises:
        ValueError: spans of a stack that the network lacks.
    """
    node, level, stack, position = np.arange(network.n_nodes), network.level, network.stack, network.position
    inputs = {"encoder": network.encoder_inputs, "decoder": network.decoder_inputs}
    for name, spans in (("encoder", encoder_spans), ("decoder", decoder_spans)):
        if spans is None:
            continue
        tokens = inputs[name]
        if tokens is None:
            raise ValueError(f"{name}_spans are given, but the network has no {name}.")
        joined = np.zeros(len(spans), np.int64)
        for index, span in enumerate(spans):
            if span.any():
                joined[index] = tokens[span].min()
                node[tokens[span]] = joined[index]
            else:
                joined[index] = len(level)
                level, position = np.append(level, 0), np.append(position, 0)
                stack = np.append(stack, stack[tokens[0]])
        inputs[name] = joined
    return dataclasses.replace(
        network,
        senders=node[network.senders],
        receivers=node[network.receivers],
        level=level,
        stack=stack,
        position=position,
        encoder_inputs=inputs["encoder"],
        decoder_inputs=inputs["decoder"],
    )


def join_outputs(network: FlowNetwork, positions: Positions) -> FlowNetwork:
    """Make several output positions one output, which takes what all of them can take together.

    What leaves these outputs to be fed back ("unrolled") has arrived, and is left out.

    Args:
        network: one example's network.
        positions: which outputs; the others are no outputs any more.

    Returns:
        `FlowNetwork` with one output.
    """
    members = network.outputs[np.asarray(positions)]
    node = np.arange(network.n_nodes)
    node[members] = members.max()  # so that every arc still leads to a higher number
    stays = ~np.isin(network.senders, members)
    return dataclasses.replace(
        network,
        senders=np.asarray(network.senders)[stays],
        receivers=node[network.receivers][stays],
        capacity=np.asarray(network.capacity)[stays],
        outputs=members.max()[None],
    )
