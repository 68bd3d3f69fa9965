"""jaxflow from a shell."""

from jaxflow.cli._main import main

__all__ = ["main"]
