"""The version, and the name under which the package is installed, in one place."""

__version__ = "0.1.0"
# `jaxflow` on the index is another library; the import name is jaxflow.
DISTRIBUTION = "jaxflow-attention"
