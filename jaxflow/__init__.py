"""Attention flow for JAX: how much each input token can influence a Transformer's decision, as certified maximum flows.

model -> `Attention` -> `Capacities` -> `FlowNetwork` -> `Attribution` -> `Explanation`: each step is a function that
can be entered or left at, and only the solver leaves JAX.
"""

from jaxflow._version import __version__
from jaxflow.attention import Attention
from jaxflow.attribution import Attribution, attention_flow
from jaxflow.baselines import gradient_rollout, random_scores, raw_attention, rollout
from jaxflow.capacities import Capacities, joint_capacities
from jaxflow.capture import attention_weights, capture
from jaxflow.certificate import Certificate
from jaxflow.comparing import Comparison, Question, compare
from jaxflow.cost import CostEstimate, estimate_cost
from jaxflow.cut import CutExplanation, cut_sentence, explain_cut
from jaxflow.explaining import explain
from jaxflow.explanation import Explanation, load
from jaxflow.faithfulness import (
    ErasureCurves,
    Faithfulness,
    SanityCheck,
    erase,
    erasure_curves,
    layer_groups,
    masked_value,
    randomise,
    rank_correlation,
    sanity_check,
)
from jaxflow.flow_graph import FlowGraph, flow_graph
from jaxflow.generation import explain_generation
from jaxflow.gradients import gradient_norm, input_x_gradient, integrated_gradients
from jaxflow.leave_one_out import leave_one_out
from jaxflow.models import load_model
from jaxflow.monitoring import FlowMonitor
from jaxflow.network import FlowNetwork, flow_network
from jaxflow.prediction import Prediction
from jaxflow.shapley import (
    ShapleyValues,
    additive_shapley,
    fixed_flow_shapley,
    sample_set_shapley,
    set_shapley,
    shapley_flow,
)
from jaxflow.solve import MaxFlow, MinCut, cut_layers, max_flow, min_cut
from jaxflow.solve.barrier import BarrierFlow, barrier_flow
from jaxflow.solve.bounds import flow_bounds
from jaxflow.solve.gradient import flow_value, smooth_flow_value
from jaxflow.solve.ranges import ArcRange, arc_range
from jaxflow.spans import join_outputs, join_players, span_masks
from jaxflow.streaming import capture_capacities
from jaxflow.summary import FlowSummary, flow_summary
from jaxflow.target import attention_gradients, contrast, log_probability, logit
from jaxflow.views.html import compare_html, compare_page
from jaxflow.views.plots import plot_flow, plot_layers, plot_matrix, plot_patches, plot_tokens
from jaxflow.what_if import Scale, WhatIf, edit, edited_capacities, what_if
from jaxflow.words import text_spans
from jaxflow.writing import generate, generate_with

# In the order of the pipeline.
__all__ = [  # noqa: RUF022
    "load_model",
    "capture",
    "attention_weights",
    "Attention",
    "attention_gradients",
    "logit",
    "log_probability",
    "contrast",
    "joint_capacities",
    "Capacities",
    "capture_capacities",
    "flow_network",
    "FlowNetwork",
    "join_players",
    "join_outputs",
    "span_masks",
    "text_spans",
    "max_flow",
    "MaxFlow",
    "min_cut",
    "MinCut",
    "cut_layers",
    "explain_cut",
    "CutExplanation",
    "cut_sentence",
    "flow_bounds",
    "flow_value",
    "smooth_flow_value",
    "barrier_flow",
    "BarrierFlow",
    "flow_graph",
    "FlowGraph",
    "arc_range",
    "ArcRange",
    "attention_flow",
    "Attribution",
    "Certificate",
    "flow_summary",
    "FlowSummary",
    "shapley_flow",
    "additive_shapley",
    "fixed_flow_shapley",
    "set_shapley",
    "sample_set_shapley",
    "ShapleyValues",
    "estimate_cost",
    "CostEstimate",
    "what_if",
    "Scale",
    "WhatIf",
    "edit",
    "edited_capacities",
    "rollout",
    "raw_attention",
    "gradient_rollout",
    "gradient_norm",
    "input_x_gradient",
    "integrated_gradients",
    "leave_one_out",
    "random_scores",
    "masked_value",
    "erase",
    "Faithfulness",
    "erasure_curves",
    "ErasureCurves",
    "rank_correlation",
    "sanity_check",
    "SanityCheck",
    "randomise",
    "layer_groups",
    "compare",
    "Comparison",
    "Question",
    "explain",
    "Explanation",
    "explain_generation",
    "generate",
    "generate_with",
    "Prediction",
    "load",
    "compare_page",
    "compare_html",
    "plot_tokens",
    "plot_matrix",
    "plot_flow",
    "plot_layers",
    "plot_patches",
    "FlowMonitor",
    "__version__",
]
