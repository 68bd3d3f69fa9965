"""Evidence about one text of a comparison, from compiled programs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxflow._attention import Attention
from jaxflow.attribute import (
    Attribution,
    EmbeddingScore,
    Evidence,
    Method,
    Runs,
    Without,
    as_attribution,
    batched,
    lost_without_each,
    without_one,
)
from jaxflow.capture import SIDES, Contributions, Heads, reduce_heads
from jaxflow.evaluate._cases import Case
from jaxflow.evaluate._compiled import CompiledModel
from jaxflow.evaluate._cuts import Arcs

T = TypeVar("T", Attention, Contributions)
BATCH = 32  # masks that go through the model at once


class CompiledRuns:
    """What a model with some parameters computes about one text; each part when it is first asked for.

    Inputs are padded, so that few programs are compiled; what is returned to methods holds the text's own tokens alone.
    """

    n_targets = 1

    def __init__(self, model: CompiledModel, case: Case, parameters: Any) -> None:
        """Run nothing yet."""
        self.model, self.case, self.parameters = model, case, parameters

    @functools.cached_property
    def attended(self) -> tuple[Attention, Attention]:
        """Attention, and the gradients of the target by it, `[1, layer, head, query, key]`."""
        found = jax.device_get(self.model.attend(self.parameters, self.case.read.inputs, self.case.decided))
        attention, gradients = map(self._unpadded_attention, found)
        return attention, gradients

    @functools.cached_property
    def numbers(self) -> Callable[[Bool[np.ndarray, "mask token"]], tuple[np.ndarray, np.ndarray]]:
        """A function of which tokens are kept: the value and the target for each mask."""
        read = self.case.read
        n_padded = read.inputs["input_ids"].shape[-1] - len(read.tokens)

        def run(kept: Bool[np.ndarray, "mask token"]) -> tuple[Any, Any]:
            padded = np.pad(kept, ((0, 0), (0, n_padded)), constant_values=True)
            return self.model.numbers(self.parameters, read.inputs, self.case.decided, padded)

        return batched(run, len(read.tokens), BATCH)

    @functools.cached_property
    def lost(self) -> tuple[np.ndarray, np.ndarray]:
        """What value and target lose without each token, `[token]`; 0 for tokens that are never hidden."""
        return self._lost(np.flatnonzero(self.case.read.candidates))

    def _lost(self, places: Int[np.ndarray, " place"]) -> tuple[np.ndarray, np.ndarray]:
        return without_one(self.numbers, places, len(self.case.read.tokens))

    def attention(self, heads: Heads | None) -> Attention:
        """Return the attention, one head made of all if `heads` is given."""
        return self.attended[0] if heads is None else reduce_heads(self.attended[0], heads)

    def gradients(self, row: int) -> tuple[Attention, Attention]:
        """Return the attention, and the gradients of the target by it."""
        return self.attended

    @functools.cached_property
    def contributed(self) -> Contributions:
        """What each token gave to the target."""
        return jax.device_get(self.model.contribute(self.parameters, self.case.read.inputs, self.case.decided))

    def contributions(self, row: int) -> Contributions:
        """Return what each token gave to the target."""
        own, found = slice(len(self.case.read.tokens)), self.contributed
        cut = dict(vars(self._unpadded_attention(found)))
        stay = f"{self.stack}_stay"
        cut[stay] = cut[stay][..., own]
        if self.stack == "decoder" or found.decoder is None:
            cut["outputs"] = cut["outputs"][..., own]
        return Contributions(**cut)

    def by_embeddings(self, score: EmbeddingScore, row: int) -> Attribution:
        """Return what `score` makes of the target."""
        found = self.model.by_embeddings(score)(self.parameters, self.case.read.inputs, self.case.decided)
        return self._unpadded_scores(found)

    def without_each(self, row: int, without: Without | None, tokens: Sequence[int] | None) -> Attribution:
        """Return what the target loses without each token that may be hidden, or each of `tokens`."""
        inputs = self.case.read.inputs
        if without is not None:
            places = np.flatnonzero(self.case.read.candidates).tolist() if tokens is None else tokens
            bound, target = self.model.model.bind(self.parameters), self.model.target_of(inputs, self.case.decided)
            options: dict[str, Any] = {"target": target, "without": without, "tokens": places}
            return self._unpadded_scores(lost_without_each(bound, (), inputs, **options))
        lost = self.lost if tokens is None else self._lost(np.asarray(tokens, int))
        stacks: dict[str, Any] = {"encoder": None, "decoder": None, self.stack: lost[1][None, None]}
        return Attribution(**stacks, positions=np.array([0]))

    def shown(self, row: int, kept: Bool[np.ndarray, "mask token"]) -> Float[np.ndarray, " mask"]:
        """Return the target of the model that is shown the kept tokens alone, for each mask."""
        return self.numbers(kept)[1]

    def without_arcs(self, arcs: Arcs) -> Float[np.ndarray, " set"]:
        """Return the target without the attention of each set of arcs, one compiled program for all."""
        n_padded = self.case.read.inputs["input_ids"].shape[-1] - len(self.case.read.tokens)
        padded = {}
        for name, sets in arcs.items():
            ends = [(0, n_padded if side == self.stack else 0) for side in SIDES[name]]
            padded[name] = np.pad(sets, ((0, 0), (0, 0), *ends))
        found = self.model.without_arcs(self.parameters, self.case.read.inputs, self.case.decided, padded)
        return np.asarray(jax.device_get(found), np.float64)

    @property
    def stack(self) -> str:
        """The stack that reads the text."""
        return self.model.model.facts.stacks[0]

    def _unpadded_attention(self, attention: T) -> T:
        n_tokens, cut = len(self.case.read.tokens), {}
        for name, sides in SIDES.items():
            if (weights := getattr(attention, name)) is not None:
                query, key = (slice(n_tokens) if side == self.stack else slice(None) for side in sides)
                cut[name] = weights[..., query, key]
        return dataclasses.replace(attention, **cut)

    def _unpadded_scores(self, found: Attribution) -> Attribution:
        return dataclasses.replace(found, **{self.stack: getattr(found, self.stack)[..., : len(self.case.read.tokens)]})


def evidence_of(runs: CompiledRuns, *, seed: int, counted: Runs | None = None) -> Evidence:
    """Put together what methods may ask about a text, of `counted` if it is given."""
    read = runs.case.read
    tokens = {"encoder": (), "decoder": (), runs.stack: read.tokens}
    if "decoder_input_ids" in read.inputs:
        tokens["decoder"] = ("",) * read.inputs["decoder_input_ids"].shape[-1]
    return Evidence(
        counted or runs, tokens=tokens, positions=runs.case.positions, seed=seed, candidates=read.candidates
    )


def score_text(method: Method, evidence: Evidence) -> tuple[Float[np.ndarray, " token"], float]:
    """Return a method's scores of a text's tokens, and the share of them that is saturated, as `scores_of` does.

    Raises:
        ValueError: scores of another shape.
    """
    return scores_of(as_attribution(method.attribute(evidence), evidence))


def scores_of(found: Attribution) -> tuple[Float[np.ndarray, " token"], float]:
    """Return the scores of a text's tokens, and the share of them that is saturated.

    Scores of several explained positions are averaged. The share is NaN for methods that have no bound.
    """
    stacks = [np.asarray(stack, np.float64) for stack in (found.encoder, found.decoder) if stack is not None]
    return stacks[0].mean(0), float("nan") if found.saturation is None else found.saturation
