"""What each explained position is explained for: the targets that `explain` is asked for, or those that the model chose."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

from jaxflow.capture import Target, logit
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


def choose_targets(
    target: TargetChoice | None,
    *,
    model: Model,
    reading: Reading,
    tokenizer: Any,
    positions: Sequence[int] | None,
    joint: bool,
    is_needed: bool,
    outputs: Any = None,
) -> Targets:
    """Make the targets of the explained positions; of methods that need none they are never computed.

    Args:
        target: as in `explain`.
        model: the model.
        reading: what it read.
        tokenizer: the model's.
        positions: which are explained; None for all.
        joint: whether they are explained as one set.
        is_needed: whether the method depends on targets.
        outputs: what the model returned, where it ran already.

    Raises:
        ValueError: as many targets as there are positions were expected; a label that does not exist.
    """
    run = functools.cache(lambda: model.call(*reading.args, **reading.kwargs) if outputs is None else outputs)
    make = functools.partial(_of_label, model=model, tokenizer=tokenizer, run=run)
    if reading.sequence is not None and not _is_pair(target):
        assert positions is not None
        functions = [_of_written(target, model, reading, tokenizer, position) for position in positions]
        name = target if isinstance(target, str | int) else _name_of_written(target)
    elif _is_pair(target):
        label, other = cast(tuple[Label | None, Label | None], target)
        functions = []
        for position in _positions(positions, run, is_written=reading.sequence is not None):
            chosen, against = (_written(each, reading, position) for each in (label, other))
            functions.append(_difference(make(chosen, position), make(against, position)))
        name = f"{_label_name(label, reading)} rather than {_label_name(other, reading)}"
    elif isinstance(target, str | int):
        one = positions[0] if positions is not None and len(positions) == 1 else None
        places = [one] if outputs is None else _positions(positions, run, is_written=False)
        functions, name = [make(target, position) for position in places], target
    elif target is None:
        functions, name = _predicted(model, positions, run, is_needed=is_needed), None
    elif callable(target):
        functions, name = [cast(Target, target)], getattr(target, "__qualname__", "a function")
    else:
        functions, name = list(cast(Sequence[Target], target)), "a function for each output"
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


def _positions(positions: Sequence[int] | None, run: Callable[[], Any], *, is_written: bool) -> Sequence[int | None]:
    """Return the positions that have targets of their own: each, where logits are per position; else None, for the sequence."""
    outputs = run()
    per_position = getattr(getattr(outputs, "logits", outputs), "ndim", 0) > 2
    if positions is None or not (is_written or per_position):
        return [None]
    return positions


def _written(label: Label | None, reading: Reading, position: int | None) -> Label | None:
    """Return the token that was written after a position, for a label that is None."""
    if label is not None or reading.sequence is None or position is None:
        return label
    return int(reading.sequence[position + 1])


def _label_name(label: Label | None, reading: Reading) -> Label:
    if label is not None:
        return label
    return PREDICTED if reading.sequence is None else "each token"


def _of_label(
    label: Label | None, position: int | None, *, model: Model, tokenizer: Any, run: Callable[[], Any]
) -> Target:
    if label is None:
        run()  # now, since inside a transformation of JAX it would have no values
        return predicted_target(model, position, run)
    return label_target(label, model=model, tokenizer=tokenizer, position=position)


def _difference(target: Target, other: Target) -> Target:
    return lambda outputs: target(outputs) - other(outputs)


def sum_of(targets: Sequence[Target]) -> Target:
    """Make one target of several: their sum, for positions that are explained as one set."""
    return lambda outputs: functools.reduce(operator.add, [target(outputs) for target in targets])


def _predicted(
    model: Model, positions: Sequence[int] | None, run: Callable[[], Any], *, is_needed: bool
) -> list[Target]:
    """Take the likeliest label as target: of the sequence, or of each position where logits are per position."""
    if not is_needed:
        return [predicted_target(model, None, run)]  # which nobody asks for
    places = _positions(positions, run, is_written=False)
    return [_of_label(None, place, model=model, tokenizer=None, run=run) for place in places]


def _of_written(target: Any, model: Model, reading: Reading, tokenizer: Any, position: int) -> Target:
    assert reading.sequence is not None
    if isinstance(target, str | int):
        return label_target(target, model=model, tokenizer=tokenizer, position=position)
    if target is None or _makes_targets(target):
        return (target or logit)(int(reading.sequence[position + 1]), position=position)
    if callable(target):
        return target
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
