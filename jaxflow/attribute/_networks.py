"""What methods that solve on the host share: attention -> one network for each example of a batch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import ArrayLike, Int

from jaxflow._attention import STACKS, SourceMask, TargetMask, is_traced, on_host
from jaxflow.attribute._evidence import Evidence, HasCapacities, capacities_by
from jaxflow.network import (
    NO_SPANS,
    Capacities,
    DecoderLayer,
    Feedback,
    FlowNetwork,
    Positions,
    Selection,
    Spans,
    batch_of,
    build_networks,
    check_options,
    flow_network,
    select,
    selected_networks,
)
from jaxflow.solve import MOST_ARCS


@runtime_checkable
class HasNetworks(HasCapacities, Protocol):
    """A method whose scores are made of networks."""

    @property
    def decoder_layer(self) -> DecoderLayer:
        """How self- and cross-attention of a layer join."""

    @property
    def feedback(self) -> Feedback:
        """What tokens are that were generated."""


@dataclasses.dataclass(frozen=True)
class Examples:
    """A batch on the host, and what is asked of it.

    Attributes:
        capacities: NumPy arrays.
        selection: inputs and outputs of each example.
        n_prompt: `[*batch]`, how many of the decoder's first tokens were not generated; None where nothing was.
    """

    capacities: Capacities
    selection: Selection
    n_prompt: Int[np.ndarray, " *batch"] | None

    def networks(
        self, method: HasNetworks
    ) -> Iterator[tuple[tuple[int, ...], FlowNetwork, Int[np.ndarray, " row"], slice]]:
        """Yield the index of each example, and its networks as `selected_networks` does."""
        for indices, networks, outputs, rows in self.networks_together(method):
            for index, capacity in zip(indices, networks.capacity, strict=True):
                yield index, dataclasses.replace(networks, capacity=capacity), outputs, rows

    def networks_together(
        self, method: HasNetworks
    ) -> Iterator[tuple[list[tuple[int, ...]], FlowNetwork, Int[np.ndarray, " row"], slice]]:
        """Yield networks of one structure: of all examples, unless they are large or have spans or prompts of their own.

        Yields:
            The index of each example; the networks, with capacities `[example, arc]`; the nodes of the outputs that are
            explained; and in which rows these stand.
        """
        indices = list(np.ndindex(*batch_of(self.capacities)))
        size = sum(
            math.prod(stack.shape[-3:]) for name in STACKS if (stack := getattr(self.capacities, name)) is not None
        )
        has_own = self.selection.spans.are_given or (self.n_prompt is not None and len(set(self.n_prompt.flat)) > 1)
        if len(indices) > 1 and not has_own and size <= MOST_ARCS:
            networks = self._build(self.capacities, method, indices[0])
            networks = dataclasses.replace(networks, capacity=networks.capacity.reshape(len(indices), -1))
            yield indices, networks, networks.outputs[self.selection.positions], slice(None)
            return
        for index in indices:
            one = jax.tree.map(lambda leaf, index=index: leaf[index], self.capacities)
            for network, outputs, rows in selected_networks(self._build(one, method, index), self.selection, index):
                yield [index], dataclasses.replace(network, capacity=network.capacity[None]), outputs, rows

    def _build(self, capacities: Capacities, method: HasNetworks, index: tuple[int, ...]) -> FlowNetwork:
        n_prompt = None if self.n_prompt is None else int(self.n_prompt[index])
        check_options(capacities, method.decoder_layer, method.feedback, n_prompt)
        return build_networks(capacities, decoder_layer=method.decoder_layer, n_prompt=n_prompt)


def bring_to_host(
    method: HasNetworks,
    attention: Any,
    *,
    what: str,
    positions: Positions | None,
    spans: Spans,
    encoder_mask: SourceMask | None,
    decoder_mask: TargetMask | None,
    n_prompt: int | Sequence[int] | Int[ArrayLike, " *batch"] | None,
) -> Examples:
    """Make capacities by a method's options, and choose inputs and outputs.

    Args:
        method: the method.
        attention: as in `attention_flow`.
        what: what is solved for, for the message: "Attention flow is".
        positions: as in `attention_flow`.
        spans: as in `AttentionFlow`.
        encoder_mask: as in `attention_flow`.
        decoder_mask: as in `attention_flow`.
        n_prompt: as in `attention_flow`.

    Raises:
        ValueError: as `attention_flow`.
    """
    capacities = capacities_by(method, attention, encoder_mask=encoder_mask, decoder_mask=decoder_mask)
    return examples_of(capacities, what=what, positions=positions, spans=spans, n_prompt=n_prompt)


def examples_of(
    capacities: Capacities,
    *,
    what: str,
    positions: Positions | None = None,
    spans: Spans = NO_SPANS,
    n_prompt: int | Sequence[int] | Int[ArrayLike, " *batch"] | None = None,
) -> Examples:
    """Do what `bring_to_host` does, with capacities that are made."""
    refuse_traced(what, capacities)
    # One transfer; then each example is a network of its own. A residual may be a plain number.
    capacities = jax.tree.map(np.asarray, on_host(capacities))
    prompts = None if n_prompt is None else np.broadcast_to(np.asarray(n_prompt), batch_of(capacities))
    return Examples(capacities, select(capacities, positions=positions, spans=spans, n_prompt=prompts), prompts)


def refuse_traced(what: str, arrays: Any) -> None:
    """Raise if arrays are traced, since solvers work on the host.

    Raises:
        ValueError: they are; `what` is solved for, such as "Attention flow is".
    """
    if is_traced(arrays):
        raise ValueError(f"{what} solved on the host and cannot be traced: call it outside jit, vmap and grad.")


@runtime_checkable
class HasFlow(Protocol):
    """A method whose scores are flows of one network for each target."""

    @property
    def flow(self) -> HasNetworks:
        """How the network is built."""

    def capacities(self, evidence: Evidence, row: int = 0) -> Capacities:
        """Return a target's capacities."""

    def spans(self, evidence: Evidence, row: int = 0) -> Spans:
        """Return which tokens count as one input, and which positions as one output."""


def network_of(method: HasFlow, evidence: Evidence, row: int = 0) -> tuple[FlowNetwork, int, Selection]:
    """Return the network that an explained output's flow is in, the output's node, and which inputs send."""
    target = row if evidence.n_targets > 1 else 0
    capacities, spans, flow = method.capacities(evidence, target), method.spans(evidence, target), method.flow
    n_prompt = evidence.n_prompt_of(flow.feedback)
    network = flow_network(capacities, decoder_layer=flow.decoder_layer, feedback=flow.feedback, n_prompt=n_prompt)
    selection = select(
        capacities,
        positions=None if spans.outputs is not None else evidence.positions[row],
        spans=spans,
        n_prompt=None if n_prompt is None else np.asarray(n_prompt),
    )
    joined, outputs, _ = next(selected_networks(network, selection, ()))
    return joined, int(outputs[0]), selection
