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

# A label or token, by name or number; a function of the outputs; one of a written token and `position=`; or one for each output.
TargetChoice = str | int | Target | Callable[..., Target] | Sequence[Target]


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
) -> Targets:
    """Make the targets of the explained positions; of methods that need none they are never computed.

    Raises:
        ValueError: as many targets as there are positions were expected; a label that does not exist.
    """
    if reading.sequence is not None:
        assert positions is not None
        functions = [_of_written(target, model, reading, tokenizer, position) for position in positions]
        name = target if isinstance(target, str | int) else _name_of_written(target)
    elif isinstance(target, str | int):
        position = positions[0] if positions is not None and len(positions) == 1 else None
        functions, name = [label_target(target, model=model, tokenizer=tokenizer, position=position)], target
    elif target is None:
        functions, name = _predicted(model, reading, positions, is_needed=is_needed), None
    elif callable(target):
        functions, name = [cast(Target, target)], getattr(target, "__qualname__", "a function")
    else:
        functions, name = list(target), "a function for each output"
    if joint and len(functions) > 1:
        functions = [sum_of(functions)]
    return Targets(tuple(functions), name)


def sum_of(targets: Sequence[Target]) -> Target:
    """Make one target of several: their sum, for positions that are explained as one set."""
    return lambda outputs: functools.reduce(operator.add, [target(outputs) for target in targets])


def _predicted(model: Model, reading: Reading, positions: Sequence[int] | None, *, is_needed: bool) -> list[Target]:
    """Take the likeliest label as target: of the sequence, or of each position where logits are per position."""
    run = functools.cache(functools.partial(model.call, *reading.args, **reading.kwargs))
    if not is_needed:
        return [predicted_target(model, None, run)]  # which nobody asks for
    outputs = run()  # now, since inside a transformation of JAX it would have no values
    if positions is None or getattr(getattr(outputs, "logits", outputs), "ndim", 0) < 3:
        return [predicted_target(model, None, run)]
    return [predicted_target(model, position, run) for position in positions]


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
