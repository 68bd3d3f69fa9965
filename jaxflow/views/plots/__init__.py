"""An explanation as figures for papers: matplotlib axes in, matplotlib axes out, no pyplot, no display."""

from jaxflow.views.plots.flow import plot_flow
from jaxflow.views.plots.layers import plot_layers
from jaxflow.views.plots.matrix import plot_matrix
from jaxflow.views.plots.patches import plot_patches
from jaxflow.views.plots.tokens import plot_tokens

__all__ = ["plot_flow", "plot_layers", "plot_matrix", "plot_patches", "plot_tokens"]
