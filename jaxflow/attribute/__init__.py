"""The methods: FlowNetwork -> Attribution, and what methods are compared with."""

from jaxflow.attribute._attribution import Attribution, attention_flow, attribution_scores
from jaxflow.attribute._certificate import Certificate
from jaxflow.attribute._cost import CostEstimate, estimate_cost
from jaxflow.attribute._gradients import gradient_norm, input_x_gradient, integrated_gradients
from jaxflow.attribute._intervene import Scale, WhatIf, edit, edited_capacities, what_if
from jaxflow.attribute._leave_one_out import leave_one_out, with_mask
from jaxflow.attribute._rollout import add_up, gradient_rollout, random_scores, raw_attention, rollout
from jaxflow.attribute._targeted import attribute_each, name_of, sum_of

__all__ = [
    "Attribution",
    "Certificate",
    "CostEstimate",
    "Scale",
    "WhatIf",
    "add_up",
    "attention_flow",
    "attribute_each",
    "attribution_scores",
    "edit",
    "edited_capacities",
    "estimate_cost",
    "gradient_norm",
    "gradient_rollout",
    "input_x_gradient",
    "integrated_gradients",
    "leave_one_out",
    "name_of",
    "random_scores",
    "raw_attention",
    "rollout",
    "sum_of",
    "what_if",
    "with_mask",
]
