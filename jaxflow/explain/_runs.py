"""Runs of a model on one example, as methods ask for them: compiled where that can be, each once."""

from __future__ import annotations

import copy
import dataclasses
import functools
import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jaxtyping import Bool, Float

from jaxflow._attention import Attention, on_host
from jaxflow._progress import progress_bar
from jaxflow.attribute import (
    Attribution,
    EmbeddingScore,
    Without,
    lost_without_each,
    shown_compiled,
    shown_values,
    without_one,
)
from jaxflow.capture import (
    SIDES,
    Contributions,
    Heads,
    LabelTarget,
    Target,
    capture_compiled,
    contributions_compiled,
    contributions_to_each,
    gradients_compiled,
    gradients_of_each,
    run_scored,
)
from jaxflow.models import Model, Padded, output_shapes, pad_inputs

T = TypeVar("T", Attention, Contributions)
Shown = Callable[[Bool[np.ndarray, "mask token"]], Float[np.ndarray, " mask"]]
# Examples that go through a model at once: few sizes, so that few programs are compiled; not so few that filling up is waste;
# and no more than hold about so many scores of tokens by tokens in each head.
BATCHES, LEAST, MOST_TOGETHER = (8, 32), 4, 2**18
# Targets of one text that go back through a model at once.
AT_ONCE = (16, 4)


class ModelRuns:
    """Runs a model when something is asked for, and keeps its outputs and its attention.

    A text is padded where the model ignores that, so that few programs are compiled. What is returned is of its own tokens.
    """

    def __init__(self, model: Model, args: tuple, kwargs: dict[str, Any], targets: Sequence[Target] = ()) -> None:
        """Run nothing yet."""
        self._model, self._args, self._kwargs = model, args, kwargs
        self._targets = targets
        self._padded = pad_inputs(model, args, kwargs)
        self._forward: tuple[Any, Attention, Heads | None] | None = None
        self._shown: dict[int, Shown] = {}
        self._found: dict[tuple[str, int], Any] = {}
        self._one_by_one: set[str] = set()  # what cannot be found for several targets at once
        self.n_targets = len(targets)

    def with_targets(self, targets: Sequence[Target]) -> ModelRuns:
        """Return runs for these targets, on the same forward pass."""
        runs = copy.copy(self)
        runs._targets, runs.n_targets, runs._shown, runs._found = targets, len(targets), {}, {}
        return runs

    def forward(self, heads: Heads | None) -> tuple[Any, Attention]:
        """Return outputs and attention of a forward pass, one head made of all if `heads` is given."""
        if self._forward is None or self._forward[2] is not heads:
            self._keep(*capture_compiled(self._model, self._args, self._inputs(), heads=heads), heads)
        assert self._forward is not None
        return self._forward[:2]

    def _keep(self, outputs: Any, attention: Attention, heads: Heads | None) -> None:
        """Keep what a forward pass gave, without what the padding gave; run again without padding where that cannot be told."""
        if self._padded is not None:
            axes = _token_axes(self._model, self._padded, outputs)
            if axes is None:
                self._padded = None
                outputs, attention = capture_compiled(self._model, self._args, self._kwargs, heads=heads)
            else:
                outputs = _cut_outputs(outputs, axes, self._padded.lengths)
        self._forward = (outputs, self._own(attention), heads)

    def attention(self, heads: Heads | None) -> Attention:
        """Return the attention of a forward pass, one head made of all if `heads` is given."""
        return self.forward(heads)[1]

    def gradients(self, row: int) -> tuple[Attention, Attention]:
        """Return the attention, and the gradients of target `row` by it."""

        def of_one(target: Target) -> tuple[Attention, Attention]:
            attention, gradients = gradients_compiled(self._model, self._args, self._inputs(target), target)
            return self._own(attention), self._own(gradients)

        def of_each(targets: Sequence[LabelTarget]) -> list[tuple[Attention, Attention]]:
            attention, gradients = gradients_of_each(self._model, self._args, self._inputs(targets[0]), targets)
            attention = self._own(attention)
            return [(attention, each) for each in _apart(self._own(gradients), len(targets))]

        return self._of_row("gradients", row, of_one, of_each)

    def contributions(self, row: int) -> Contributions:
        """Return what each token gave to target `row`."""

        def of_one(target: Target) -> Contributions:
            return self._own(contributions_compiled(self._model, self._args, self._inputs(target), target))

        def of_each(targets: Sequence[LabelTarget]) -> list[Contributions]:
            found = contributions_to_each(self._model, self._args, self._inputs(targets[0]), targets)
            return _apart(self._own(found), len(targets))

        return self._of_row("contributions", row, of_one, of_each)

    def _of_row(
        self,
        what: str,
        row: int,
        of_one: Callable[[Target], Any],
        of_each: Callable[[Sequence[LabelTarget]], list[Any]],
    ) -> Any:
        """Return what is found for target `row`; that of the next targets is found with it, by one forward pass."""
        if (what, row) in self._found:
            return self._found.pop((what, row))
        n_left = len(self._targets) - row
        sizes = () if what in self._one_by_one else AT_ONCE
        size = next((size for size in sizes if n_left > size // 2 and self._fits(size)), 1)
        targets = list(self._targets[row : row + size])
        if size == 1 or len({jax.tree.structure(each) for each in targets}) > 1 or not self._are_labels(targets):
            return of_one(self._targets[row])
        filled = [*targets, *[targets[-1]] * (size - len(targets))]
        try:
            found = of_each(cast(list[LabelTarget], filled))
        except ValueError:  # of one target it may be told where values are needed
            self._one_by_one.add(what)
            return of_one(self._targets[row])
        self._found |= {(what, row + number): each for number, each in enumerate(found[: len(targets)])}
        return self._found.pop((what, row))

    @staticmethod
    def _are_labels(targets: Sequence[Target]) -> bool:
        return all(isinstance(target, LabelTarget) for target in targets)

    def _fits(self, n_targets: int) -> bool:
        """Whether so many targets take no more memory than a batch of texts."""
        attention = self.attention(None) if self._forward is None else self._forward[1]
        stack = attention.encoder if attention.decoder is None else attention.decoder
        assert stack is not None
        return n_targets * stack.shape[-1] ** 2 <= MOST_TOGETHER

    def by_embeddings(self, score: EmbeddingScore, row: int) -> Attribution:
        """Return what `score` makes of target `row`."""
        target = self._targets[row]
        found = run_scored(score, self._model, self._args, self._inputs(target), target)
        if self._padded is None or not isinstance(target, LabelTarget):
            return found
        own: dict[str, Any] = {
            side: np.asarray(scores)[..., _own_tokens(self._padded.lengths, side)]
            for side in ("encoder", "decoder")
            if (scores := getattr(found, side)) is not None
        }
        return dataclasses.replace(found, **own)

    def without_each(self, row: int, without: Without | None, tokens: Sequence[int] | None) -> Attribution:
        """Return what target `row` loses without each token, or each of `tokens`; exactly 0 for padding."""
        shown = self._shown_by(row) if without is None else None
        if shown is None:
            options: dict[str, Any] = {"target": self._targets[row], "without": without, "tokens": tokens}
            return lost_without_each(self._model, self._args, self._kwargs, **options)
        named = {**self._kwargs, **self._model.arguments(self._args, self._kwargs)}
        n_tokens = np.shape(named["input_ids"])[-1]
        known = np.asarray(named.get("attention_mask", np.ones((1, n_tokens))), bool)[0]
        places = np.intersect1d(np.flatnonzero(known), np.arange(n_tokens) if tokens is None else tokens).astype(int)
        scores = without_one(shown, places, n_tokens)
        stacks: dict[str, Any] = {"encoder": None, "decoder": None, self._model.facts.stacks[0]: scores[None, None]}
        return Attribution(**stacks, positions=np.array([0]))

    def shown(self, row: int, kept: Bool[np.ndarray, "mask token"]) -> Float[np.ndarray, " mask"]:
        """Return target `row` of the model that is shown the kept tokens alone: compiled, for many masks at once."""
        compiled = self._shown_by(row)
        if compiled is not None:
            return compiled(kept)
        if row not in self._shown:
            self._shown[row] = shown_values(self._model, self._args, self._kwargs, target=self._targets[row])
        return self._shown[row](kept)

    def _shown_by(self, row: int) -> Shown | None:
        target = self._targets[row]
        if not isinstance(target, LabelTarget):
            return None
        return shown_compiled(self._model, self._args, self._kwargs, target=target)

    @property
    def together(self) -> Hashable:
        """What examples have in common that may go through the model together; None for those that may not."""
        inputs = self._inputs()
        arrays = {name: np.asarray(value) for name, value in inputs.items() if np.ndim(value)}
        is_one = all(len(array) == 1 for array in arrays.values())
        if self._args or not self._model.facts.ignores_padding or "input_ids" not in arrays or not is_one:
            return None
        others = tuple((name, repr(value)) for name, value in inputs.items() if name not in arrays)
        return tuple((name, array.shape, str(array.dtype)) for name, array in arrays.items()), others

    def _inputs(self, target: Target | None = None) -> Mapping[str, Any]:
        """Return the inputs, padded unless a target may read what the padding gives."""
        if self._padded is None or not (target is None or isinstance(target, LabelTarget)):
            return self._kwargs
        return self._padded.kwargs

    def _own(self, found: T) -> T:
        found = on_host(found)
        return found if self._padded is None else _cut(found, self._padded.lengths)


def _apart(found: T, n_targets: int) -> list[T]:
    """Return what was found for each target, of arrays `[target, ...]`."""
    return [jax.tree.map(operator.itemgetter(i), found) for i in range(n_targets)]


def run_together(runs: Sequence[ModelRuns], heads: Heads | None) -> None:
    """Run one model forwards on several examples, those of one padded length together. Each keeps what is its own.

    Examples that may not go together, and the few that are left over, run when they are asked for.
    """
    groups: dict[Hashable, list[ModelRuns]] = {}
    for each in runs:
        if (key := each.together) is not None:
            groups.setdefault(key, []).append(each)
    with progress_bar(sum(map(len, groups.values())), "model", unit="example") as bar:
        for group in groups.values():
            most = max(MOST_TOGETHER // max(np.size(group[0]._inputs()["input_ids"]) ** 2, 1), 1)
            while len(group) >= LEAST and most >= BATCHES[0]:
                size = max(size for size in BATCHES if size <= min(max(len(group), BATCHES[0]), most))
                chunk, group = group[:size], group[size:]
                _run_chunk(chunk, size, heads)
                bar.update(len(chunk))
            bar.update(len(group))


def _run_chunk(chunk: Sequence[ModelRuns], size: int, heads: Heads | None) -> None:
    """Run examples as one batch of a size; what lacks is filled up with the last of them."""
    model, filled = chunk[0]._model, [*chunk, *[chunk[-1]] * (size - len(chunk))]
    inputs = {
        name: np.concatenate([np.asarray(each._inputs()[name]) for each in filled]) if np.ndim(value) else value
        for name, value in chunk[0]._inputs().items()
    }
    one = output_shapes(model, (), chunk[0]._inputs())
    if one is None:
        return
    outputs, attention = on_host(capture_compiled(model, (), inputs, heads=heads))
    shapes = [leaf.shape for leaf in jax.tree.leaves(outputs)]
    if shapes != [(size, *leaf.shape[1:]) for leaf in jax.tree.leaves(one)]:
        return  # something that it returns is not of one example each
    for number, each in enumerate(chunk):
        own = slice(number, number + 1)
        own_outputs, own_attention = jax.tree.map(lambda leaf, own=own: leaf[own], (outputs, attention))
        each._keep(own_outputs, own_attention, heads)


def _token_axes(model: Model, padded: Padded, outputs: Any) -> list[tuple[str | None, ...]] | None:
    """Tell the stack that each axis of what a model returned counts tokens of, None of other axes; None where it cannot be told.

    One token less in the first stack and two less in the second tell.
    """
    if all(length == n_padded for length, n_padded in padded.lengths.values()):
        return [(None,) * np.ndim(leaf) for leaf in jax.tree.leaves(outputs)]
    sides = dict(enumerate(padded.lengths, 1))
    fewer = {side: padded.lengths[side][1] - amount for amount, side in sides.items()}
    shorter = None if min(fewer.values()) < 1 else output_shapes(model, (), padded.with_lengths(fewer))
    if shorter is None:
        return None
    axes = []
    for leaf, short in zip(jax.tree.leaves(outputs), jax.tree.leaves(shorter), strict=True):
        lost = [n - m for n, m in zip(np.shape(leaf)[1:], short.shape[1:], strict=True)]  # examples come first
        if any(amount and amount not in sides for amount in lost):
            return None
        axes.append((None, *(sides.get(amount) for amount in lost)))
    return axes


def _cut_outputs(outputs: Any, axes: list[tuple[str | None, ...]], lengths: Mapping[str, tuple[int, int]]) -> Any:
    """Cut off what padding gave from what a model returned."""
    host = on_host(outputs)
    own = {side: slice(length) for side, (length, _) in lengths.items()}
    whole = slice(None)
    cut = [
        leaf[tuple(whole if side is None else own[side] for side in of_leaf)]
        for leaf, of_leaf in zip(jax.tree.leaves(host), axes, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(host), cut)


def _cut(found: T, lengths: Mapping[str, tuple[int, int]]) -> T:
    """Cut off what padding gave from attention or contributions."""
    of = functools.partial(_own_tokens, lengths)
    own: dict[str, Any] = {}
    for name, (query, key) in SIDES.items():
        if (array := getattr(found, name)) is not None:
            own[name] = array[..., of(query), of(key)]
    if isinstance(found, Contributions):
        for side in ("encoder", "decoder"):
            if (stay := getattr(found, f"{side}_stay")) is not None:
                own[f"{side}_stay"] = stay[..., of(side)]
        assert found.outputs is not None
        own["outputs"] = found.outputs[..., of("encoder" if found.decoder is None else "decoder")]
    return dataclasses.replace(found, **own)


def _own_tokens(lengths: Mapping[str, tuple[int, int]], side: str) -> slice:
    """Return which tokens of a stack are no padding; what is called an encoder may be a decoder of which nothing tells."""
    return slice(lengths[side][0] if side in lengths else next(iter(lengths.values()))[0])
