"""Attention -> Capacities -> FlowNetwork: heads, masks, spans."""

from jaxflow.network._capacities import (
    Capacities,
    Heads,
    as_capacities,
    batch_of,
    build_capacities,
    check_residual,
    contribution_capacities,
    joint_capacities,
    lengths,
    uniform_capacities,
    weighted_on_host,
)
from jaxflow.network._contributions import Sign, check_sign
from jaxflow.network._from_model import capacities_of_reduced, capture_capacities
from jaxflow.network._network import (
    DECODER,
    ENCODER,
    MIDDLE,
    DecoderLayer,
    Feedback,
    FlowNetwork,
    Positions,
    build_networks,
    check_network,
    check_options,
    flow_network,
)
from jaxflow.network._selection import Selection, check_positions, real_tokens, select, selected_networks
from jaxflow.network._spans import NO_SPANS, Spans, ends_of, join_inputs, join_outputs, span_masks
from jaxflow.network._weighting import Weighting

__all__ = [
    "DECODER",
    "ENCODER",
    "MIDDLE",
    "NO_SPANS",
    "Capacities",
    "DecoderLayer",
    "Feedback",
    "FlowNetwork",
    "Heads",
    "Positions",
    "Selection",
    "Sign",
    "Spans",
    "Weighting",
    "as_capacities",
    "batch_of",
    "build_capacities",
    "build_networks",
    "capacities_of_reduced",
    "capture_capacities",
    "check_network",
    "check_options",
    "check_positions",
    "check_residual",
    "check_sign",
    "contribution_capacities",
    "ends_of",
    "flow_network",
    "join_inputs",
    "join_outputs",
    "joint_capacities",
    "lengths",
    "real_tokens",
    "select",
    "selected_networks",
    "span_masks",
    "uniform_capacities",
    "weighted_on_host",
]
