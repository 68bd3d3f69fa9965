"""Capacities -> FlowNetwork: one example's nodes and arcs, from input tokens to outputs."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from flax import struct
from jaxtyping import Int, Real

from jaxflow._attention import STACKS, AnyArray, AnyInt, is_traced, numpy_of
from jaxflow.network._capacities import Capacities, check_capacities

DecoderLayer = Literal["sublayers", "parallel"]
Feedback = Literal["prefix", "unrolled"]
ENCODER, DECODER, MIDDLE = 0, 1, 2
# Of outputs: one, or several.
Positions = AnyInt | Sequence[AnyInt] | Int[AnyArray, " _output"]


@struct.dataclass
class FlowNetwork:
    """A directed acyclic network whose arcs run from input to output.

    A node is (stack, level, position): level 0 are a stack's inputs, level l what its layer l computes. With
    `decoder_layer="sublayers"` a decoder layer has a second node per position, in the middle between its self-attention
    and its cross-attention. Nodes are numbered in topological order: every arc leads to a higher number.

    Attributes:
        senders: `[arc]`, node each arc leaves.
        receivers: `[arc]`, node each arc enters.
        capacity: `[arc]`, not negative, in units of attention.
        stack: `[node]`, 0 in the encoder, 1 in the decoder, 2 in the middle of a decoder layer.
        level: `[node]`, 0 for inputs, l for what layer l computes.
        position: `[node]`, token position in the stack.
        encoder_inputs: `[source]`, node of each input token of the encoder; None without encoder.
        decoder_inputs: `[target]`, node of each input token of the decoder; None without decoder.
        outputs: `[output]`, node of each output position, of the decoder if there is one.

    Source: `attention flow` of Abnar & Zuidema 2020 (2005.00928), section 3.2, for the encoder; Metzger et al. 2022
    (2205.15389) for its extension to decoders.
    """

    senders: Int[np.ndarray, " arc"]
    receivers: Int[np.ndarray, " arc"]
    capacity: Real[AnyArray, " arc"]
    stack: Int[np.ndarray, " node"]
    level: Int[np.ndarray, " node"]
    position: Int[np.ndarray, " node"]
    encoder_inputs: Int[np.ndarray, " source"] | None
    decoder_inputs: Int[np.ndarray, " target"] | None
    outputs: Int[np.ndarray, " output"]

    @property
    def inputs(self) -> Int[np.ndarray, " input"]:
        """`[input]`, nodes of all inputs: those of the encoder, then those of the decoder."""
        stacks = (self.encoder_inputs, self.decoder_inputs)
        return np.concatenate([np.zeros(0, np.int64), *(nodes for nodes in stacks if nodes is not None)])

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return self.level.shape[-1]

    @property
    def n_layers(self) -> int:
        """Number of layers, those of the encoder and of the decoder together."""
        return int(self.layer.max())

    @property
    def layer(self) -> Int[np.ndarray, " node"]:
        """`[node]`, which layer computes it, counted from 1 over the encoder's layers and then the decoder's; 0 for inputs."""
        stack, level = np.asarray(self.stack), np.asarray(self.level)
        n_encoder = level[stack == ENCODER].max(initial=0)
        return np.where((stack == ENCODER) | (level == 0), level, level + n_encoder)


def flow_network(
    capacities: Capacities,
    *,
    decoder_layer: DecoderLayer = "sublayers",
    feedback: Feedback = "prefix",
    n_prompt: int | None = None,
) -> FlowNetwork:
    """Join the capacities of all layers of one example into one network.

    Encoder: `e(l-1, k) -> e(l, q)` with `C_l[q, k]`. Decoder: the same, for keys up to the query.
    Encoder-decoder, "sublayers": `d(l-1, k) -> m(l, q)` with the decoder's `C_l[q, k]`, `m(l, q) -> d(l, q)` with the
    residual r, `e(L, j) -> d(l, q)` with the cross-attention's `C_l[q, j]`; at most 1 enters a node. "parallel":
    `d(l-1, k) -> d(l, q)` and `e(L, j) -> d(l, q)`; at most 2 - r enters.
    Feedback "unrolled": `d(L, p) -> d(0, p+1)`, uncapacitated, for each token p+1 that was generated.

    Structure depends on shapes alone, so arcs of capacity 0 are kept (solvers skip them) and the function goes through
    `jit`, `vmap` and `grad`. One network serves all steps of a generation: only the output node differs.

    Args:
        capacities: one example's, `[layer, query, key]`.
        decoder_layer: how a decoder layer's self- and cross-attention join; no effect without cross-attention.
        feedback: "prefix": the tokens that the decoder reads are inputs, generated ones too. "unrolled": a generated
            token is no input but passes on what reached the output that produced it.
        n_prompt: for "unrolled", how many of the decoder's first tokens were not generated.

    Returns:
        `FlowNetwork`.

    Raises:
        ValueError: capacities that are none, fit no architecture or are more than one example's; a decoder that looks
            ahead; "sublayers" without residual; "unrolled" without generated positions.

    Example:
        >>> import jax.numpy as jnp
        >>> network = flow_network(Capacities(encoder=jnp.eye(2)[None]))
        >>> network.senders, network.receivers, network.capacity
        (array([0, 1, 0, 1]), array([2, 2, 3, 3]), Array([1., 0., 0., 1.], dtype=float32))
    """
    check_network(capacities, decoder_layer, feedback, n_prompt)
    for name in STACKS:
        stack = getattr(capacities, name)
        if stack is not None and stack.ndim != 3:
            raise ValueError(
                f"Capacities.{name} has shape {tuple(stack.shape)}; flow_network takes one example, [layer, query, key]. "
                "Did you forget vmap? attention_flow takes whole batches."
            )
    return build_networks(capacities, decoder_layer=decoder_layer, n_prompt=n_prompt)


def build_networks(capacities: Capacities, *, decoder_layer: DecoderLayer, n_prompt: int | None) -> FlowNetwork:
    """Do what `flow_network` does for every example of a batch, checked: one structure, and capacities `[*batch, arc]`."""
    shapes = {name: getattr(capacities, name).shape[-3:] for name in STACKS if getattr(capacities, name) is not None}
    has_middle = "cross" in shapes and decoder_layer == "sublayers"
    size = sum(math.prod(shape) for shape in shapes.values())
    make = _kept_structure if size <= MOST_KEPT else _structure
    structure = make(shapes.get("encoder"), shapes.get("decoder"), shapes.get("cross"), has_middle, n_prompt)
    arcs = _arc_capacities(capacities, has_middle=has_middle, n_prompt=n_prompt)
    return dataclasses.replace(structure, capacity=arcs)


def _arc_capacities(capacities: Capacities, *, has_middle: bool, n_prompt: int | None) -> Real[AnyArray, "*batch arc"]:
    """Return the capacities of all arcs, in the order in which `_structure` names their ends."""
    numpy = numpy_of(capacities)
    encoder, decoder, cross = capacities.encoder, capacities.decoder, capacities.cross
    arcs: list[Any] = []
    if encoder is not None:
        arcs.append(encoder.reshape(*encoder.shape[:-3], -1))
    if decoder is not None:
        batch = decoder.shape[:-3]
        query, key = np.tril_indices(decoder.shape[-1])
        arcs.append(decoder[..., query, key].reshape(*batch, -1))
        if has_middle:
            # A padded position has no arc of its own either: its row of self-attention is empty.
            residual = numpy.asarray(capacities.residual)[..., None, None]
            arcs.append(numpy.where(decoder.sum(-1) > 0, residual, 0).reshape(*batch, -1))
        if cross is not None:
            arcs.append(cross.reshape(*batch, -1))
        if n_prompt is not None:
            entering = decoder[..., -1, :, :].sum(-1) + (0 if cross is None else cross[..., -1, :, :].sum(-1))
            # Twice what can arrive there: such an arc is never full, and so in no minimum cut.
            arcs.append(2 * entering[..., n_prompt - 1 : -1])
    return arcs[0] if len(arcs) == 1 else numpy.concatenate(arcs, axis=-1)


def _structure(
    encoder: tuple[int, ...] | None,
    decoder: tuple[int, ...] | None,
    cross: tuple[int, ...] | None,
    has_middle: bool,
    n_prompt: int | None,
) -> FlowNetwork:
    """Return nodes and ends of arcs for stacks of these shapes, `(layer, query, key)` each; read-only, without capacities."""
    n_encoder, n_decoder = 0 if encoder is None else encoder[0], 0 if decoder is None else decoder[0]
    n_target = 0 if decoder is None else decoder[-1]
    n_source = cross[-1] if cross is not None else 0 if encoder is None else encoder[-1]
    n_steps = (2 if has_middle else 1) * n_decoder + 1  # nodes per position of the decoder

    def node(level: np.ndarray | int, position: np.ndarray, *, middle: bool = False) -> np.ndarray:
        """Number a decoder's node: position by position, so that feedback too leads to a higher number."""
        return (n_encoder + 1) * n_source + position * n_steps + (2 * level - middle if has_middle else level)

    arcs: list[tuple[np.ndarray, np.ndarray]] = []
    level, position = np.indices((n_encoder + 1, n_source)).reshape(2, -1)
    stack = np.full_like(level, ENCODER)
    if encoder is not None:
        layer, query, key = np.indices(encoder).reshape(3, -1)
        arcs.append((layer * n_source + key, (layer + 1) * n_source + query))
    if decoder is not None:
        step = np.tile(np.arange(n_steps), n_target)
        stack = np.append(stack, np.where(has_middle & (step % 2 == 1), MIDDLE, DECODER))
        level = np.append(level, (step + 1) // 2 if has_middle else step)
        position = np.append(position, np.repeat(np.arange(n_target), n_steps))
        layer, row = np.indices((n_decoder, n_target * (n_target + 1) // 2)).reshape(2, -1)
        query, key = (index[row] for index in np.tril_indices(n_target))
        arcs.append((node(layer, key), node(layer + 1, query, middle=has_middle)))
        if has_middle:
            layer, query = np.indices((n_decoder, n_target)).reshape(2, -1)
            arcs.append((node(layer + 1, query, middle=True), node(layer + 1, query)))
        if cross is not None:
            layer, query, key = np.indices(cross).reshape(3, -1)
            arcs.append((n_encoder * n_source + key, node(layer + 1, query)))
        if n_prompt is not None:
            last = np.arange(n_prompt - 1, n_target - 1)
            arcs.append((node(n_decoder, last), node(0, last + 1)))

    is_first = level == 0
    outputs = level == (n_decoder if n_target else n_encoder)
    senders, receivers = zip(*arcs, strict=True)
    structure = FlowNetwork(
        senders=np.concatenate(senders),
        receivers=np.concatenate(receivers),
        capacity=np.zeros(0),
        stack=stack,
        level=level,
        position=position,
        encoder_inputs=np.flatnonzero(is_first & (stack == ENCODER)) if n_source else None,
        decoder_inputs=np.flatnonzero(is_first & (stack == DECODER)) if n_target else None,
        outputs=np.flatnonzero(outputs & (stack == (DECODER if n_target else ENCODER))),
    )
    for array in jax.tree.leaves(structure):
        array.flags.writeable = False
    return structure


# Networks of up to so many arcs keep their structure, the last few of them: a megabyte each at most.
MOST_KEPT = 2**16
_kept_structure = functools.lru_cache(64)(_structure)


def check_network(
    capacities: Capacities, decoder_layer: DecoderLayer, feedback: Feedback, n_prompt: int | None
) -> tuple[int, int]:
    """Check that capacities make networks, of every example; return how many source and target tokens these have."""
    check_capacities(capacities)
    return check_options(capacities, decoder_layer, feedback, n_prompt)


def check_options(
    capacities: Capacities, decoder_layer: DecoderLayer, feedback: Feedback, n_prompt: int | None
) -> tuple[int, int]:
    """Do what `check_network` does, with capacities that were checked by themselves."""
    encoder, decoder, cross = capacities.encoder, capacities.decoder, capacities.cross
    if decoder_layer not in ("sublayers", "parallel"):
        raise ValueError(f"decoder_layer is {decoder_layer!r}; expected 'sublayers' or 'parallel'.")
    if feedback not in ("prefix", "unrolled"):
        raise ValueError(f"feedback is {feedback!r}; expected 'prefix' or 'unrolled'.")
    if cross is not None and decoder_layer == "sublayers":
        if capacities.residual is None:
            raise ValueError(
                "Capacities with cross-attention need their residual for decoder_layer='sublayers': make them with "
                "joint_capacities, or set Capacities(residual=...)."
            )
        if not is_traced(capacities.residual) and not np.all(np.asarray(capacities.residual) > 0):
            raise ValueError(
                "decoder_layer='sublayers' needs a residual above 0: without it nothing passes from a layer's "
                "self-attention to its output. Use decoder_layer='parallel', the only one that is connected at residual 0."
            )
    n_target = 0 if decoder is None else decoder.shape[-1]
    n_source = cross.shape[-1] if cross is not None else 0 if encoder is None else encoder.shape[-1]
    if decoder is not None and not is_traced(decoder):
        ahead = np.triu(np.asarray(decoder), 1)
        if ahead.any():
            *_, layer, query, key = (int(i) for i in np.unravel_index(ahead.argmax(), ahead.shape))
            raise ValueError(
                f"The decoder looks ahead: in layer {layer}, position {query} reads position {key} ({ahead.max():.3g}). "
                "Attention of a decoder is causal. Attention that looks both ways belongs in `encoder`; if it is padding that "
                "does, pass decoder_mask."
            )
    if feedback == "unrolled":
        if decoder is None:
            raise ValueError("feedback='unrolled' follows what a decoder generated; there is no decoder.")
        if n_prompt is None or not 0 < n_prompt < n_target:
            raise ValueError(
                f"feedback='unrolled' needs generated positions: n_prompt is {n_prompt}; expected 1 to {n_target - 1}, how many "
                f"of the decoder's {n_target} tokens were not generated."
            )
    elif n_prompt is not None:
        raise ValueError("n_prompt is given, but has an effect with feedback='unrolled' alone.")
    return n_source, n_target
