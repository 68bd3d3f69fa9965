"""Small trained models that ship with the package. Importing this loads none."""

from importlib import import_module
from typing import Any

_NAMES = ("agreement", "agreement-lm", "ltl", "propositional")


def names() -> tuple[str, ...]:
    """Give the names that `load` takes."""
    return _NAMES


def load(name: str) -> tuple[Any, Any]:
    """Load a model of the package.

    Args:
        name: One of `names()`.

    Returns:
        The bound module and its tokenizer.

    Raises:
        ValueError: for a name that is none of them.

    Example:
        >>> model, tokenizer = load("agreement")
        >>> model.labels
        ('singular', 'plural')
    """
    if name not in _NAMES:
        raise ValueError(f"the package has no model {name!r}; it has {', '.join(_NAMES)}")
    return import_module(package_of(name)).load()


def package_of(name: str) -> str:
    """Give the package that holds a model: `agreement-lm` lies in `jaxflow.zoo.agreement_lm`."""
    return f"jaxflow.zoo.{name.replace('-', '_')}"
