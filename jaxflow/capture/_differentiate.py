"""A model on its inputs -> what it is as a function of its attention weights: recorded, or found in the traced program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxflow.capture._differentiable import Differentiable
from jaxflow.capture._recorded_check import check_recorded, records
from jaxflow.capture._recorded_gradients import differentiate_recorded
from jaxflow.capture._traced import trace_model, trace_unrecorded, with_remark
from jaxflow.models import Model


def differentiate(model: Model, args: tuple, kwargs: Mapping[str, Any]) -> Differentiable:
    """Trace a model once.

    Args:
        model: the model.
        args: what it is called with.
        kwargs: what it is called with.

    Raises:
        ValueError: as `Model.record`, and as `capture` of a traced function.
    """
    if not records(model):
        return trace_model(model, args, kwargs)
    checked = check_recorded(model, args, kwargs)
    recorded = differentiate_recorded(model, args, kwargs) if checked.serves else None
    if recorded is None:
        return trace_unrecorded(model, args, kwargs, checked.error)
    return with_remark(recorded, checked.mixing)
