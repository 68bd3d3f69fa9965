"""What each token did give to a target: contributions as scores, and the flow of what speaks for or against it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import numpy as np

from jaxflow.attribute._attribution import Attribution, repeated
from jaxflow.attribute._evidence import Evidence
from jaxflow.attribute._flow import AttentionFlow, within_budget
from jaxflow.attribute._networks import refuse_traced
from jaxflow.capture import Contributions
from jaxflow.network import Capacities, Sign, Spans, check_sign, contribution_capacities
from jaxflow.solve import Solver, check_options


@dataclasses.dataclass(frozen=True)
class ContributionScores:
    """What each token *did* give to the target, in its unit: signed, and all together the target.

    One forward and one backward pass. The score of a span is the sum of its tokens'.

    Source: gates held at their values, as in DecompX, Modarressi et al. 2023 (2306.02873); see `capture_contributions`.
    """

    name: ClassVar[str] = "contributions"
    adds_up: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"contributions"})

    def attribute(self, evidence: Evidence) -> Attribution:
        """Score the inputs of one example for each explained position, by its target."""

        def score(row: int) -> Attribution:
            inputs = evidence.contributions(row).inputs
            encoder, decoder = (
                np.asarray(inputs[side], np.float64)[None] if side in inputs else None
                for side in ("encoder", "decoder")
            )
            return Attribution(encoder=encoder, decoder=decoder, positions=np.array([0]))

        return evidence.of_target(score, adds_up=True)


@dataclasses.dataclass(frozen=True)
class ContributionFlow:
    """How much of the evidence for the target came from a token along paths that all speak for it: a maximum flow.

    The network has the arcs of attention flow, with what moved along them as capacities: see `contribution_capacities`. Where no
    arc speaks against the target, the scores are those of `ContributionScores`; what a flow adds is through where: minimum cuts,
    bounds with a proof, sets of tokens. A score is saturated where it is the whole support of its token.

    For arrays, call it: `ContributionFlow()(contributions)`.

    Attributes:
        sign: "support", what speaks for the target; "opposition", what speaks against it.
        solver: as in `AttentionFlow`.
        tolerance: as in `AttentionFlow`, in the target's unit.
        budget_seconds: as in `AttentionFlow`.
    """

    sign: Sign = "support"
    solver: Solver = "certified"
    tolerance: float = 0.0
    budget_seconds: float | None = None

    name: ClassVar[str] = "contribution_flow"
    needs: ClassVar[frozenset[str]] = frozenset({"contributions"})

    def __post_init__(self) -> None:
        """Refuse options that no solver takes."""
        check_options(self.solver, self.tolerance, self.budget_seconds)
        check_sign(self.sign)

    @property
    def flow(self) -> AttentionFlow:
        """The flow that is found on the capacities."""
        return AttentionFlow(
            decoder_layer="parallel", solver=self.solver, tolerance=self.tolerance, budget_seconds=self.budget_seconds
        )

    @property
    def is_plain(self) -> bool:
        """Whether scores are values of flows, without a time limit."""
        return self.flow.is_plain

    def attribute(self, evidence: Evidence) -> Attribution:
        """Score the inputs of one example for each explained position, by its target; spans by their joint flow."""
        flow = within_budget(self.flow)

        def solve(row: int, positions: Sequence[int] | None) -> Attribution:
            return repeated(flow()(self.capacities(evidence, row), spans=self.spans(evidence, row)), positions)

        return evidence.by_target(solve)

    def __call__(self, contributions: Contributions) -> Attribution:
        """Score arrays: one row, for what the target reads.

        Args:
            contributions: as `capture_contributions` returns them, `[*batch, ...]`.

        Returns:
            `Attribution`, `[*batch, 1, token]`, float64 NumPy arrays, with its certificate.

        Raises:
            ValueError: traced arrays; as `AttentionFlow`.
        """
        refuse_traced("Contribution flow is", contributions)
        capacities = contribution_capacities(contributions, sign=self.sign)
        return self.flow(capacities, spans=Spans(outputs=_read(contributions)))

    def capacities(self, evidence: Evidence, row: int = 0) -> Capacities:
        """Return the capacities of a target's network, NumPy arrays."""
        made = contribution_capacities(evidence.contributions(row), sign=self.sign)
        masks = {f"{side}_mask": mask for side, mask in evidence.masks.items() if mask is not None}
        return dataclasses.replace(jax.tree.map(np.asarray, made), **masks)

    def spans(self, evidence: Evidence, row: int = 0) -> Spans:
        """Return the spans of the inputs, and the one set of positions that a target reads."""
        return evidence.spans._replace(outputs=_read(evidence.contributions(row)))


Flow = AttentionFlow | ContributionFlow  # methods whose scores are flows of one network for each target


def _read(contributions: Contributions) -> np.ndarray:
    """Return masks of the positions that the target reads, `[*batch, 1, token]`; of one that reads none, of all."""
    read = np.asarray(contributions.outputs) != 0
    return (read | ~read.any(-1, keepdims=True))[..., None, :]
