"""What is explained: `load_model`."""

from jaxflow.models._load import load_model

__all__ = ["load_model"]
