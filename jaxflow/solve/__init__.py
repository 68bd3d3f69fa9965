"""FlowNetwork -> values, bounds, cuts, edge flows and gradients. Solvers leave JAX: they run on the host."""

from jaxflow.solve._barrier import BarrierFlow, barrier_flow
from jaxflow.solve._bounds import flow_bounds
from jaxflow.solve._certified import n_cores
from jaxflow.solve._coalitions import N_BLOCKS, all_values, sample, set_game
from jaxflow.solve._cut import CutExplanation, cut_sentence, explain_cut
from jaxflow.solve._cuts import minimum_cuts
from jaxflow.solve._flows import UNFINISHED, count_stages
from jaxflow.solve._gradient import flow_value, smooth_flow_value
from jaxflow.solve._max_flow import SOLVERS, MaxFlow, MinCut, Solver, check_options, cut_layers, max_flow, min_cut
from jaxflow.solve._quantise import check_arcs
from jaxflow.solve._ranges import ArcRange, arc_range

__all__ = [
    "N_BLOCKS",
    "SOLVERS",
    "UNFINISHED",
    "ArcRange",
    "BarrierFlow",
    "CutExplanation",
    "MaxFlow",
    "MinCut",
    "Solver",
    "all_values",
    "arc_range",
    "barrier_flow",
    "check_arcs",
    "check_options",
    "count_stages",
    "cut_layers",
    "cut_sentence",
    "explain_cut",
    "flow_bounds",
    "flow_value",
    "max_flow",
    "min_cut",
    "minimum_cuts",
    "n_cores",
    "sample",
    "set_game",
    "smooth_flow_value",
]
