"""What each explained position is explained for: the targets that `explain` is asked for, or those that the model chose."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

from jaxflow.capture import LabelTarget, Target, TargetSum, contrast, logit
from jaxflow.explain._prediction import label_target, predicted_target
from jaxflow.explain._reading import Reading
from jaxflow.models import Model

PREDICTED = "the predicted label"
Label = str | int
# A label or token, by name or number; a pair of them, for a contrast; a function of the outputs; one of a written token and
# `position=`; or one for each output.
TargetChoice = Label | tuple[Label | None, Label | None] | Target | Callable[..., Target] | Sequence[Target]


@dataclasses.dataclass(frozen=True)
class Targets:
    """Targets, and what they are called.

    Attributes:
        functions: of the model's outputs: one for all explained positions, or one for each.
        name: what is explained, for people; None for the label that the model predicts.
    """

    functions: tuple[Target, ...]
    name: str | int | None


NO_TARGETS = Targets((lambda outputs: outputs,), None)  # of methods that are the same for every target: never computed


def choose_targets(
    target: TargetChoice | None,
    *,
    model: Model,
    reading: Reading,
    tokenizer: Any,
    positions: Sequence[int],
    joint: bool,
    outputs: Any,
) -> Targets:
    """Make the targets of the explained positions.

    Args:
        target: as in `explain`.
        model: the model.
        reading: what it read.
        tokenizer: the model's.
        positions: which are explained.
        joint: whether they are explained as one set.
        outputs: what the model returned.

    Raises:
        ValueError: as many targets as there are positions were expected; a label that does not exist; outputs without logits.
    """
    make = functools.partial(_of_label, model=model, tokenizer=tokenizer, outputs=outputs)
    functions: list[Target]
    name: str | int | None
    if reading.sequence is not None and not _is_pair(target):
        functions = [_of_written(target, model, reading, tokenizer, position, outputs) for position in positions]
        name = target if isinstance(target, str | int) else _name_of_written(target)
    elif _is_pair(target):
        label, other = cast(tuple[Label | None, Label | None], target)
        functions = []
        for position in _positions(positions, outputs, is_written=reading.sequence is not None):
            chosen, against = (make(_written(each, reading, position), position) for each in (label, other))
            functions.append(contrast(chosen.label, against.label, position=chosen.position))
        name = f"{_label_name(label, reading)} rather than {_label_name(other, reading)}"
    elif isinstance(target, str | int) or target is None:
        functions = [make(target, position) for position in _positions(positions, outputs, is_written=False)]
        name = target
    elif callable(target):
        functions, name = [_located(cast(Target, target), outputs)], getattr(target, "__qualname__", "a function")
    else:
        functions = [_located(each, outputs) for each in cast(Sequence[Target], target)]
        name = "a function for each output"
    if joint and len(functions) > 1:
        functions = [sum_of(functions)]
    return Targets(tuple(functions), name)


def _is_pair(target: Any) -> bool:
    """Whether a target is two labels, of which one is explained against the other."""
    is_labels = isinstance(target, tuple) and len(target) == 2 and all(isinstance(e, str | int | None) for e in target)
    if is_labels and target[0] == target[1]:
        raise ValueError(
            f"target is {target}; expected two labels that differ, or None for the one that the model chose."
        )
    return is_labels


def _positions(positions: Sequence[int], outputs: Any, *, is_written: bool) -> Sequence[int | None]:
    """Return the positions that have targets of their own: each, where logits are per position; else None, for the sequence."""
    per_position = getattr(getattr(outputs, "logits", outputs), "ndim", 0) > 2
    return positions if is_written or per_position else [None]


def _written(label: Label | None, reading: Reading, position: int | None) -> Label | None:
    """Return the token that was written after a position, for a label that is None."""
    if label is not None or reading.sequence is None or position is None:
        return label
    return int(reading.sequence[position + 1])


def _label_name(label: Label | None, reading: Reading) -> Label:
    if label is not None:
        return label
    return PREDICTED if reading.sequence is None else "each token"


def _of_label(label: Label | None, position: int | None, *, model: Model, tokenizer: Any, outputs: Any) -> LabelTarget:
    if label is None:
        return predicted_target(model, outputs, position)
    return label_target(label, model=model, outputs=outputs, tokenizer=tokenizer, position=position)


def sum_of(targets: Sequence[Target]) -> Target:
    """Make one target of several: their sum, for positions that are explained as one set."""
    if all(isinstance(target, LabelTarget) for target in targets):
        return TargetSum(cast(tuple[LabelTarget, ...], tuple(targets)))
    return lambda outputs: functools.reduce(operator.add, [target(outputs) for target in targets])


def _located(target: Target, outputs: Any) -> Target:
    return target.located(outputs) if isinstance(target, LabelTarget) else target


def _of_written(target: Any, model: Model, reading: Reading, tokenizer: Any, position: int, outputs: Any) -> Target:
    assert reading.sequence is not None
    if isinstance(target, str | int):
        return label_target(target, model=model, outputs=outputs, tokenizer=tokenizer, position=position)
    if target is None or _makes_targets(target):
        return _located((target or logit)(int(reading.sequence[position + 1]), position=position), outputs)
    if callable(target):
        return _located(target, outputs)
    raise ValueError(
        f"target is {type(target).__name__}; expected for what is written a token, a function of the outputs, or one that makes "
        "a target of each written token, such as jaxflow.log_probability."
    )


def _makes_targets(target: Any) -> bool:
    """Whether a function makes a target of a token, as `logit` and `log_probability` do: it takes `position=`."""
    try:
        return "position" in inspect.signature(target).parameters
    except (TypeError, ValueError):
        return False


def _name_of_written(target: Any) -> str:
    if target is not None and not _makes_targets(target):
        return getattr(target, "__qualname__", "a function")
    return f"each token's {getattr(target or logit, '__name__', 'target')}"
