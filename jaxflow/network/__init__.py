"""Attention -> Capacities -> FlowNetwork: heads, masks, spans."""

from jaxflow.network._capacities import (
    Capacities,
    Heads,
    as_capacities,
    batch_of,
    build_capacities,
    check_residual,
    joint_capacities,
    lengths,
    uniform_capacities,
)
from jaxflow.network._from_model import capture_capacities, capture_fused, fused_capacities
from jaxflow.network._network import (
    DECODER,
    ENCODER,
    MIDDLE,
    DecoderLayer,
    Feedback,
    FlowNetwork,
    check_network,
    flow_network,
)
from jaxflow.network._selection import Selection, check_outputs, real_tokens, select, selected_networks
from jaxflow.network._spans import ends_of, join_inputs, join_outputs, span_masks
from jaxflow.network._weighting import Weighting

__all__ = [
    "DECODER",
    "ENCODER",
    "MIDDLE",
    "Capacities",
    "DecoderLayer",
    "Feedback",
    "FlowNetwork",
    "Heads",
    "Selection",
    "Weighting",
    "as_capacities",
    "batch_of",
    "build_capacities",
    "capture_capacities",
    "capture_fused",
    "check_network",
    "check_outputs",
    "check_residual",
    "ends_of",
    "flow_network",
    "fused_capacities",
    "join_inputs",
    "join_outputs",
    "joint_capacities",
    "lengths",
    "real_tokens",
    "select",
    "selected_networks",
    "span_masks",
    "uniform_capacities",
]
