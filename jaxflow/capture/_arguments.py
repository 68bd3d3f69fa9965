"""A model's inputs by name."""

from __future__ import annotations

import inspect
from typing import Any


def arguments(model: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> dict[str, Any]:
    """Name a model's inputs, however they were passed."""
    try:
        call = inspect.signature(model)
    except ValueError:  # written in C, or wrapped in something that is
        return inputs
    named = {name: value for name, value in inputs.items() if name in call.parameters}
    return call.bind_partial(*args, **named).arguments
