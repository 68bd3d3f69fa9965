"""Small trained models that ship with the package. Importing this module loads none of them."""

from importlib import import_module
from typing import Any

__all__ = ["load", "names", "package_of"]

_NAMES = ("agreement", "agreement-lm", "ltl", "propositional")


def names() -> tuple[str, ...]:
    """Give the names that `load` takes."""
    return _NAMES


def load(name: str) -> tuple[Any, Any]:
    """Load a model of the package.

    Args:
        name: One of `names()`.

    Returns:
        The module, bound to its parameters, and its tokenizer.

    Raises:
        ValueError: for any other name; the message lists the names.

    Example:
        >>> model, tokenizer = load("agreement")
        >>> model.labels
        ('singular', 'plural')
    """
    if name not in _NAMES:
        raise ValueError(f"the package has no model {name!r}; it has {', '.join(_NAMES)}")
    return import_module(package_of(name)).load()


def package_of(name: str) -> str:
    """Give the package of a model: that of `agreement-lm` is `jaxflow.zoo.agreement_lm`."""
    return f"jaxflow.zoo.{name.replace('-', '_')}"
