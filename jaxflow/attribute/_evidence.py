"""Evidence: what a method may ask of a model about one example."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
from jaxtyping import Bool, Float

from jaxflow._attention import STACKS, Attention, Mask, SourceMask, TargetMask, on_host
from jaxflow._progress import progress_bar
from jaxflow.attribute._attribution import Attribution, join_outputs_of, normalised, repeated, sum_over_spans
from jaxflow.capture import Contributions, Residual, Target
from jaxflow.models import Model
from jaxflow.network import (
    NO_SPANS,
    Capacities,
    Feedback,
    Heads,
    Spans,
    Weighting,
    as_capacities,
    capacities_of_reduced,
    weighted_on_host,
)

T = TypeVar("T")
# The model's inputs by name, and the number of a token -> the inputs without that token, of every example.
Without = Callable[[dict[str, Any], int], dict[str, Any]]
# The number of a target, and the positions to score -> their attribution.
Score = Callable[[int, Any], Attribution]


@runtime_checkable
class EmbeddingScore(Protocol):
    """A pure function of a model, its inputs and a target, which differentiates the target by the token embeddings.

    It, or the object whose method it is, may say `passes`: how many forward and how many backward passes it takes.
    """

    def __call__(self, model: Model, args: tuple, kwargs: Mapping, *, target: Target) -> Attribution:
        """Return an attribution with one row, `[*batch, 1, token]`."""


@runtime_checkable
class Runs(Protocol):
    """Runs of one model on one example, for the targets of that example. Results have the model's batch axes, each of one."""

    n_targets: int  # one for all explained positions, or one for each

    def attention(self, heads: Heads | None) -> Attention:
        """Return the attention of one forward pass; with `heads` given, one head made of all."""

    def gradients(self, row: int) -> tuple[Attention, Attention]:
        """Return the attention, and the gradients of target `row` by it."""

    def contributions(self, row: int) -> Contributions:
        """Return what each token gave to target `row`, and through where."""

    def by_embeddings(self, score: EmbeddingScore, row: int) -> Attribution:
        """Return what `score` makes of target `row` as a function of the token embeddings."""

    def without_each(self, row: int, without: Without | None, tokens: Sequence[int] | None) -> Attribution:
        """Return what target `row` loses without each token that may be hidden, or each of `tokens`; 0 for others."""

    def shown(self, row: int, kept: Bool[np.ndarray, "mask token"]) -> Float[np.ndarray, " mask"]:
        """Return target `row` of the model that is shown the kept tokens alone, for each mask."""


@runtime_checkable
class HasCapacities(Protocol):
    """A method whose scores are made of capacities."""

    @property
    def heads(self) -> Heads:
        """How heads are reduced."""

    @property
    def residual(self) -> Residual:
        """The residual stream's share."""

    @property
    def weighting(self) -> Weighting:
        """Attention, or its gradients."""


def needs_of(weighting: Weighting) -> frozenset[str]:
    """Return what capacities need of a model: attention, and with another weighting than "attention" its gradients."""
    return frozenset({"attention"} if weighting == "attention" else {"attention", "gradients"})


def capacities_by(
    method: HasCapacities,
    attention: Any,
    *,
    encoder_mask: SourceMask | None = None,
    decoder_mask: TargetMask | None = None,
) -> Capacities:
    """Make capacities by a method's heads and residual; those that are made already have theirs.

    Raises:
        ValueError: as `joint_capacities`; masks that come too late.
    """
    making = {} if isinstance(attention, Capacities) else {"heads": method.heads, "residual": method.residual}
    options: dict[str, Any] = {**making, "encoder_mask": encoder_mask, "decoder_mask": decoder_mask}
    return as_capacities(attention, **options)


class Evidence:
    """One example and its explained positions, as a method sees them. What it asks for is computed then, and kept.

    Arrays have no batch axes.

    Attributes:
        tokens: names of the tokens that are read, `{"encoder": (...), "decoder": (...)}`; empty for a stack that is not there.
        positions: the positions that are explained, of the decoder if there is one.
        joint: whether these positions are explained as one set.
        masks: `{"encoder": [source], "decoder": [target]}`, False where padded; None where nothing is.
        spans: sets of tokens that count as one input, and with `joint` the one set of positions.
        n_prompt: how many of the decoder's first tokens were not generated; None where nothing was.
        seed: differs between models that are compared, so that random methods draw anew.
        candidates: `[token]`, the tokens of the stack that reads first, the encoder if there is one, that may be hidden: not
            those that are padded, nor in a comparison those that are special.
    """

    def __init__(
        self,
        runs: Runs,
        *,
        tokens: Mapping[str, Sequence[str]],
        positions: Sequence[int],
        joint: bool = False,
        masks: Mapping[str, Mask | None] | None = None,
        spans: Spans = NO_SPANS,
        n_prompt: int | None = None,
        seed: int = 0,
        candidates: Bool[np.ndarray, " token"] | None = None,
    ) -> None:
        """Gather what is known before anything is computed."""
        self._runs = runs
        self.tokens = {side: tuple(names) for side, names in tokens.items()}
        self.positions = tuple(positions)
        self.joint = joint
        self.masks = dict(masks or {"encoder": None, "decoder": None})
        self.spans = spans
        self.n_prompt = n_prompt
        self.seed = seed
        side = "encoder" if self.tokens.get("encoder") else "decoder"
        if candidates is None:
            mask = self.masks.get(side)
            candidates = np.ones(len(self.tokens[side]), bool) if mask is None else np.asarray(mask, bool)
        self.candidates = candidates
        self._found: dict[Hashable, Any] = {}

    @property
    def n_targets(self) -> int:
        """How many targets there are: one for all explained positions, or one for each."""
        return self._runs.n_targets

    def with_spans(self, spans: Spans) -> Evidence:
        """Return the same evidence about other spans of inputs; the set of positions stays."""
        return self._copy(self._runs, spans._replace(outputs=self.spans.outputs))

    def with_runs(self, runs: Runs) -> Evidence:
        """Return what other runs, such as for other targets, find about the same example."""
        return self._copy(runs, self.spans)

    def _copy(self, runs: Runs, spans: Spans) -> Evidence:
        return Evidence(
            runs,
            tokens=self.tokens,
            positions=self.positions,
            joint=self.joint,
            masks=self.masks,
            spans=spans,
            n_prompt=self.n_prompt,
            seed=self.seed,
            candidates=self.candidates,
        )

    @functools.cached_property
    def attention(self) -> Attention:
        """`[layer, head, query, key]` for each stack that there is."""
        return _unbatched(self._runs.attention(None))

    def attention_by(self, heads: Heads) -> Attention:
        """Return the attention with its heads reduced to one, `[layer, 1, query, key]` for each stack that there is."""
        return _unbatched(self._runs.attention(heads))

    def gradients(self, row: int = 0) -> Attention:
        """Return the gradients of a target by every attention weight; `row` counts targets, where each position has its own."""
        return self._once(("gradients", row), lambda: _unbatched(self._runs.gradients(row)[1]))

    def contributions(self, row: int = 0) -> Contributions:
        """Return what each token gave to a target, and through where; `row` as in `gradients`."""

        def find() -> Contributions:
            found = on_host(self._runs.contributions(row))
            assert found.value is not None
            first = (0,) * np.ndim(found.value)
            return jax.tree.map(lambda leaf: leaf[first], found)

        return self._once(("contributions", row), find)

    def _once(self, what: Hashable, find: Callable[[], T]) -> T:
        """Return what was found before, or find it and keep it as long as this evidence lives."""
        if what not in self._found:
            self._found[what] = find()
        return self._found[what]

    def capacities(self, method: HasCapacities, row: int = 0) -> Capacities:
        """Return the capacities that a method is computed on, NumPy arrays."""
        masks: dict[str, Any] = {f"{side}_mask": mask for side, mask in self.masks.items()}
        if method.weighting == "attention":
            attention = self.attention_by(method.heads)
            made = capacities_of_reduced(attention, heads=method.heads, residual=method.residual, **masks)
        else:
            attention, gradients = map(_unbatched, self._runs.gradients(row))
            made = weighted_on_host(
                attention,
                gradients,
                heads=method.heads,
                residual=method.residual,
                weighting=method.weighting,
                masks=self.masks,
            )
        return jax.tree.map(np.asarray, made)

    def by_embeddings(self, score: EmbeddingScore, row: int = 0) -> Attribution:
        """Return what `score(model, args, kwargs, target=...)` makes of a target as a function of the token embeddings."""
        return _unbatched(self._runs.by_embeddings(score, row))

    def without_each(
        self, row: int = 0, without: Without | None = None, tokens: Sequence[int] | None = None
    ) -> Attribution:
        """Return what a target loses without each token, or each of some: one forward pass for each. Others score 0."""
        return _unbatched(self._runs.without_each(row, without, tokens))

    def shown(self, kept: Bool[np.ndarray, "mask token"], row: int = 0) -> Float[np.ndarray, " mask"]:
        """Return a target where all but the kept tokens are hidden: one forward pass for each mask.

        Args:
            kept: of the stack that reads first; True for tokens that are shown. See `candidates`.
            row: the target, as in `gradients`.
        """
        return self._runs.shown(row, kept)

    def n_prompt_of(self, feedback: Feedback) -> int | None:
        """Return `n_prompt` where a network needs it: with feedback "unrolled".

        Raises:
            ValueError: nothing was generated.
        """
        if feedback == "unrolled" and self.n_prompt is None:
            raise ValueError(
                "feedback='unrolled' follows what a decoder generated, and nothing was: pass generate=Generate(...)."
            )
        return self.n_prompt if feedback == "unrolled" else None

    def for_arrays(self, positions: Sequence[int] | None) -> Sequence[int] | None:
        """Return positions as functions of arrays take them: None where all are meant, since padding may be among these."""
        n_positions = len(self.tokens.get("decoder") or self.tokens["encoder"])
        return None if positions is None or list(positions) == list(range(n_positions)) else positions

    def by_target(self, score: Score, *, depends: bool = True) -> Attribution:
        """Score all positions at once, where scores do not depend on targets or all have one; or each position by its own."""
        if not depends or self._runs.n_targets == 1:
            return score(0, None if self.joint else list(self.positions))
        found = []
        with progress_bar(len(self.positions), "outputs", unit="output") as bar:
            for row, position in enumerate(self.positions):
                found.append(on_host(score(row, [position])))
                bar.update()
        return join_outputs_of(found, self.positions)

    def of_target(self, find: Callable[[int], Attribution], *, adds_up: bool) -> Attribution:
        """Score a target, by its number, in one row; positions that share a target have the same row each.

        Raises:
            ValueError: as `summed`.
        """

        def score(row: int, positions: Sequence[int] | None) -> Attribution:
            return repeated(on_host(find(row)), positions)

        return self.summed(score, by_target=True, is_of_target=True, adds_up=adds_up)

    def summed(
        self,
        score: Score,
        *,
        by_target: bool,
        normalise: bool = False,
        is_of_target: bool = False,
        adds_up: bool = True,
    ) -> Attribution:
        """Score tokens, and add up the scores of each span: for methods whose scores are shares, or are linear.

        Args:
            score: scores single tokens, for a target and positions.
            by_target: whether scores depend on the target.
            normalise: divide each output's scores by their sum.
            is_of_target: whether a score is one row for the target, whatever the positions; else a joint set's rows are added up.
            adds_up: whether the sum of the scores of a span's tokens means anything.

        Raises:
            ValueError: spans of a method whose scores do not add up.
        """
        spans = self.spans
        if not adds_up and (spans.encoder is not None or spans.decoder is not None):
            raise ValueError(
                "spans are given, but the method scores tokens one by one, and its scores do not add up: leave spans out, or use "
                "AttentionFlow, Rollout or IntegratedGradients."
            )
        if self.joint and not is_of_target:
            n_positions = len(self.tokens.get("decoder") or self.tokens["encoder"])
            found = score(0, list(range(n_positions)))
        else:
            found = self.by_target(score, depends=by_target)
            spans = spans._replace(outputs=None)
        found = sum_over_spans(on_host(found), spans)
        return normalised(found) if normalise else found


def _unbatched(tree: Any) -> Any:
    """Take the one example of a batch of one."""
    if isinstance(tree, Attribution):
        n_batch = tree.scores.ndim - 2
        positions = tree.positions
        found = jax.tree.map(lambda leaf: leaf[(0,) * n_batch], tree.replace(positions=None))  # type: ignore[attr-defined]
        return found.replace(positions=positions)
    stack = next(leaf for name in STACKS if (leaf := getattr(tree, name)) is not None)
    return jax.tree.map(lambda leaf: leaf[(0,) * (stack.ndim - 4)], tree)
