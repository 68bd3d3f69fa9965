"""The set game's Shapley values of every output of every example, as a method."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from jaxflow._attention import Attention, SourceMask, TargetMask
from jaxflow._progress import progress_bar
from jaxflow.attribute._attribution import Attribution, repeated, split_scores
from jaxflow.attribute._contributions import ContributionFlow
from jaxflow.attribute._evidence import Evidence, needs_of
from jaxflow.attribute._networks import bring_to_host
from jaxflow.attribute.shapley._set_game import MOST_PLAYERS, sample_set_shapley, set_shapley
from jaxflow.capture import Residual
from jaxflow.network import (
    NO_SPANS,
    Capacities,
    DecoderLayer,
    Feedback,
    FlowNetwork,
    Heads,
    Positions,
    Sign,
    Spans,
    Weighting,
)

OF_ATTENTION = ("heads", "residual", "weighting", "decoder_layer", "feedback")


@dataclasses.dataclass(frozen=True)
class SetShapley:
    """Share what all inputs together can send to an output among them, by the Shapley values of the set game.

    The worth of a set of inputs is its joint maximum flow, `v(S) = maxflow(S -> output)`. Unlike the scores of `AttentionFlow`,
    which each input has to itself, the values of an output sum to the flow of all inputs together (1 where rows of attention
    do), and inputs that can stand in for each other share. Exact for outputs that at most 16 inputs can reach, by sampled
    orders for others. For arrays, call it: `SetShapley(residual=0.0)(attention)`.

    Attributes:
        heads: how heads are reduced, as in `joint_capacities`.
        residual: the residual stream's share of each capacity, as in `joint_capacities`.
        weighting: "attention", "gradient" or "attention_gradient", as in `AttentionFlow`.
        decoder_layer: "sublayers" or "parallel", as in `flow_network`.
        feedback: "prefix" or "unrolled", as in `flow_network`.
        normalise: divide each output's values, and their errors, by the values' sum.
        precision: largest standard error to stop at, in units of attention.
        n_permutations: largest number of orders for one output, 32 or more.
        seed: of the orders, the same for every output.
        contributions: "support" or "opposition": play on the network of `ContributionFlow` instead, by what tokens did give. The
            options of attention's network must be left out then.

    Source: Shapley 1953; the set game is ours, monotone and submodular as a minimum cut is (Megiddo 1974).
    """

    heads: Heads = "mean"
    residual: Residual = 0.5
    weighting: Weighting = "attention"
    decoder_layer: DecoderLayer = "sublayers"
    feedback: Feedback = "prefix"
    normalise: bool = False
    precision: float = 1e-3
    n_permutations: int = 10_000
    seed: int = 0
    contributions: Sign | None = None

    name: ClassVar[str] = "shapley"

    @property
    def needs(self) -> frozenset[str]:
        """What it needs of a model."""
        return needs_of(self.weighting) if self.contributions is None else ContributionFlow.needs

    def __post_init__(self) -> None:
        """Refuse options of a network that is not played on."""
        if self.contributions is None:
            return
        ContributionFlow(sign=self.contributions)
        own = {f.name: f.default for f in dataclasses.fields(self) if f.name in OF_ATTENTION}
        given = [name for name, default in own.items() if np.ndim(value := getattr(self, name)) or value != default]
        if given:
            raise ValueError(
                f"{', '.join(given)}: of the network of attention, but contributions={self.contributions!r} plays on that of "
                "contributions; leave one of them out."
            )

    def attribute(self, evidence: Evidence) -> Attribution:
        """Score the inputs of one example for its explained positions; with gradients, each position by its own target."""
        if self.contributions is not None:
            flow = ContributionFlow(sign=self.contributions)
            game = dataclasses.replace(self, contributions=None, decoder_layer="parallel")
            return evidence.by_target(
                lambda row, positions: repeated(
                    game(flow.capacities(evidence, row), spans=flow.spans(evidence, row)), positions
                )
            )

        def values(row: int, positions: Sequence[int] | None) -> Attribution:
            n_prompt = evidence.n_prompt_of(self.feedback)
            return self(
                evidence.capacities(self, row),
                positions=evidence.for_arrays(positions),
                spans=evidence.spans,
                n_prompt=n_prompt,
            )

        return evidence.by_target(values, depends="gradients" in self.needs)

    def __call__(
        self,
        attention: Attention | Capacities | Float[ArrayLike, "*batch layer head source source"],
        *,
        positions: Positions | None = None,
        spans: Spans = NO_SPANS,
        encoder_mask: SourceMask | None = None,
        decoder_mask: TargetMask | None = None,
        n_prompt: int | Sequence[int] | Int[ArrayLike, " *batch"] | None = None,
    ) -> Attribution:
        """Score arrays. Not for use under `jit`.

        Args:
            attention: as in `attention_flow`. Heads and residual of this method are those of `Capacities` already made.
            positions: outputs to explain; None for all. Rows of padding are 0 then.
            spans: sets of tokens that are one player, and sets of positions that are one output.
            encoder_mask: `[*batch, source]`, False where padded.
            decoder_mask: `[*batch, target]`, likewise.
            n_prompt: for "unrolled", how many of the decoder's first tokens were not generated.

        Returns:
            `Attribution`, float64 NumPy arrays, with `standard_error` and without certificate. An error above `precision` says
            that `n_permutations` did not suffice.

        Raises:
            ValueError: as `attention_flow` and `sample_set_shapley`.

        Example:
            >>> import jax.numpy as jnp
            >>> layer = jnp.array([[0.75, 0.25], [0.5, 0.5]])
            >>> SetShapley(residual=0.0)(jnp.stack([layer, layer])[:, None]).encoder
            array([[0.75 , 0.25 ],
                   [0.625, 0.375]])
        """
        examples = bring_to_host(
            self,
            attention,
            what="Shapley values are",
            positions=positions,
            spans=spans,
            encoder_mask=encoder_mask,
            decoder_mask=decoder_mask,
            n_prompt=n_prompt,
        )
        selection = examples.selection
        *batch, n_inputs = selection.inputs.shape
        values, error = np.zeros((2, *batch, len(selection.positions), n_inputs))
        with progress_bar(int(selection.explained.sum()), "Shapley values", unit="output") as bar:
            for index, network, sinks, rows in examples.networks(self):
                for row, sink in zip(np.arange(len(selection.positions))[rows], sinks, strict=True):
                    if not selection.explained[index][row]:
                        continue
                    # Nothing flows to a lower node.
                    (players,) = np.nonzero(selection.inputs[index] & (network.inputs < sink))
                    if players.size:
                        found = self._play(network, int(sink), network.inputs[players])
                        values[(*index, row, players)], error[(*index, row, players)] = found
                    bar.update()
        if self.normalise:
            total = values.sum(-1, keepdims=True)
            error = error / (total + (total == 0))
        attribution = split_scores(values, selection.n_encoder, positions=selection.positions, normalise=self.normalise)
        return dataclasses.replace(attribution, standard_error=error)

    def _play(
        self, network: FlowNetwork, sink: int, nodes: Int[np.ndarray, " player"]
    ) -> tuple[Float[np.ndarray, " player"], Float[np.ndarray, " player"]]:
        """Return the values of one output's players and their standard errors."""
        if len(nodes) <= MOST_PLAYERS:
            found: Any = set_shapley(network, sink, players=nodes)
        else:
            found = sample_set_shapley(
                network,
                sink,
                players=nodes,
                precision=self.precision,
                n_permutations=self.n_permutations,
                seed=self.seed,
            )
        return found.values, found.standard_error
