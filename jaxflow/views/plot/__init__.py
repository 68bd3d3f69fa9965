"""An explanation as figures for papers: matplotlib axes in, matplotlib axes out, no pyplot, no display."""

from jaxflow.views.plot._flow import plot_flow
from jaxflow.views.plot._layers import plot_layers
from jaxflow.views.plot._matrix import plot_matrix
from jaxflow.views.plot._patches import plot_patches
from jaxflow.views.plot._tokens import plot_tokens

__all__ = ["plot_flow", "plot_layers", "plot_matrix", "plot_patches", "plot_tokens"]
