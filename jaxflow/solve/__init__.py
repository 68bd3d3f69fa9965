"""FlowNetwork -> values, bounds, cuts, edge flows and gradients. Solvers leave JAX: they run on the host."""

from jaxflow.solve._barrier import BarrierFlow, barrier_flow
from jaxflow.solve._bounds import flow_bounds
from jaxflow.solve._certified import n_cores
from jaxflow.solve._coalitions import N_BLOCKS, all_values, sample, set_game
from jaxflow.solve._cut import CUT_STACKS, MinCut, bottleneck, cut_capacities, layer_share, min_cut, min_cuts
from jaxflow.solve._cut_sentence import cut_sentence
from jaxflow.solve._flows import STAGES, UNFINISHED, count_stages
from jaxflow.solve._gradient import flow_value, smooth_flow_value
from jaxflow.solve._many_networks import MOST_ARCS, max_flow_in_each
from jaxflow.solve._max_flow import SOLVERS, MaxFlow, Solver, check_options, max_flow
from jaxflow.solve._nodes import check_node_set, check_nodes
from jaxflow.solve._quantise import check_arcs
from jaxflow.solve._ranges import ArcRange, arc_range

__all__ = [
    "CUT_STACKS",
    "MOST_ARCS",
    "N_BLOCKS",
    "SOLVERS",
    "STAGES",
    "UNFINISHED",
    "ArcRange",
    "BarrierFlow",
    "MaxFlow",
    "MinCut",
    "Solver",
    "all_values",
    "arc_range",
    "barrier_flow",
    "bottleneck",
    "check_arcs",
    "check_node_set",
    "check_nodes",
    "check_options",
    "count_stages",
    "cut_capacities",
    "cut_sentence",
    "flow_bounds",
    "flow_value",
    "layer_share",
    "max_flow",
    "max_flow_in_each",
    "min_cut",
    "min_cuts",
    "n_cores",
    "sample",
    "set_game",
    "smooth_flow_value",
]
