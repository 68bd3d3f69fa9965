"""Several examples as batches, each padded to one length, so that what is made of their attention is made in one go."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxflow._attention import STACKS, Attention
from jaxflow.attribute._attribution import Attribution
from jaxflow.attribute._certificate import Certificate
from jaxflow.attribute._evidence import Evidence, HasCapacities
from jaxflow.capture import SIDES
from jaxflow.models import padded_length
from jaxflow.network import Capacities, capacities_of_reduced

# A batch holds about so many values of attention at most.
MOST_VALUES = 2**24


@dataclasses.dataclass(frozen=True)
class Batch:
    """Examples side by side.

    Attributes:
        capacities: `[example, layer, query, key]`, with masks that are False where there is no token of the example.
        explained: `[example, position]`.
    """

    capacities: Capacities
    explained: Bool[np.ndarray, "example position"]


def can_be_together(evidences: Sequence[Evidence]) -> bool:
    """Whether tokens are inputs, and positions are outputs, of all examples."""
    return not any(evidence.joint or evidence.spans.are_given for evidence in evidences)


def attribute_together(
    method: HasCapacities, evidences: Sequence[Evidence], score: Callable[[Batch], Attribution]
) -> list[Attribution]:
    """Attribute examples in batches of similar length.

    Args:
        method: says how capacities are made, of attention alone.
        evidences: of each example.
        score: scores all positions of the batch; rows that are not explained are not read.
    """
    found: dict[int, Attribution] = {}
    for numbers in _batches_of(evidences):
        scored = score(_as_batch(method, [evidences[number] for number in numbers]))
        found |= {number: _of_example(scored, row, evidences[number]) for row, number in enumerate(numbers)}
    return [found[number] for number in range(len(evidences))]


def _batches_of(evidences: Sequence[Evidence]) -> list[list[int]]:
    """Group examples of similar length, which may be attributed as one batch; return their numbers."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, evidence in enumerate(evidences):
        lengths = tuple(padded_length(len(evidence.tokens.get(side, ()))) for side in ("encoder", "decoder"))
        groups.setdefault(lengths, []).append(number)
    found = []
    for lengths, numbers in groups.items():
        size = max(MOST_VALUES // max(sum(lengths) ** 2 * 16, 1), 1)
        found += [numbers[first : first + size] for first in range(0, len(numbers), size)]
    return found


def _as_batch(method: HasCapacities, evidences: Sequence[Evidence]) -> Batch:
    """Put examples side by side."""
    lengths = {
        side: max(len(evidence.tokens.get(side, ())) for evidence in evidences) for side in ("encoder", "decoder")
    }
    attentions = [evidence.attention_by(method.heads) for evidence in evidences]
    stacks: dict[str, Any] = {
        name: _stacked([getattr(each, name) for each in attentions], tuple(lengths[side] for side in SIDES[name]))
        for name in STACKS
        if getattr(attentions[0], name) is not None
    }
    masks: dict[str, Any] = {
        f"{side}_mask": _masks(evidences, side, n_tokens) if n_tokens else None for side, n_tokens in lengths.items()
    }
    explained = np.zeros((len(evidences), lengths["decoder"] or lengths["encoder"]), bool)
    for row, evidence in zip(explained, evidences, strict=True):
        row[list(evidence.positions)] = True
    made = capacities_of_reduced(Attention(**stacks), heads=method.heads, residual=method.residual, **masks)
    return Batch(made, explained)


def _stacked(
    arrays: Sequence[Float[np.ndarray, "layer head _query _key"]], lengths: tuple[int, ...]
) -> Float[np.ndarray, "example layer head query key"]:
    first = arrays[0]
    stack = np.zeros((len(arrays), *first.shape[:-2], *lengths), first.dtype)
    for own, array in zip(stack, arrays, strict=True):
        own[..., : array.shape[-2], : array.shape[-1]] = array
    return stack


def _masks(evidences: Sequence[Evidence], side: str, n_tokens: int) -> Bool[np.ndarray, "example token"]:
    masks = np.zeros((len(evidences), n_tokens), bool)
    for own, evidence in zip(masks, evidences, strict=True):
        mask = evidence.masks.get(side)
        own[: len(evidence.tokens[side])] = True if mask is None else np.asarray(mask, bool)
    return masks


def _of_example(found: Attribution, number: int, evidence: Evidence) -> Attribution:
    """Return what was found for one example of a batch, of its own tokens and positions."""
    rows = np.asarray(evidence.positions)
    counts = {side: len(evidence.tokens.get(side, ())) for side in ("encoder", "decoder")}
    n_encoder = 0 if found.encoder is None else found.encoder.shape[-1]
    inputs = np.concatenate([np.arange(counts["encoder"]), n_encoder + np.arange(counts["decoder"])])
    certificate = found.certificate
    if certificate is not None:
        proofs: dict[str, Any] = {
            name: getattr(certificate, name)[number][np.ix_(rows, inputs)]
            for name in ("lower", "upper", "trivial", "stage")
        }
        certificate = Certificate(**proofs, quantum=certificate.quantum[number])
    return Attribution(
        encoder=None if found.encoder is None else found.encoder[number, rows, : counts["encoder"]],
        decoder=None if found.decoder is None else found.decoder[number, rows, : counts["decoder"]],
        positions=rows,
        certificate=certificate,
    )
