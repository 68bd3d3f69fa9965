"""The methods: what a model computed -> a score for every output and input, an `Attribution`.

A method is a frozen dataclass that holds its own options, with one function, `attribute(evidence)`. The same object goes to
`explain`, `compare` and `FlowMonitor`. Methods that need attention alone can be called on arrays: `AttentionFlow()(attention)`.
"""

from jaxflow.attribute import shapley
from jaxflow.attribute._attribution import Attribution
from jaxflow.attribute._certificate import Certificate
from jaxflow.attribute._contributions import ContributionFlow, ContributionScores, Flow
from jaxflow.attribute._cost import CostEstimate, estimate_cost
from jaxflow.attribute._evidence import EmbeddingScore, Evidence, Runs, Without
from jaxflow.attribute._flow import AttentionFlow, attention_flow
from jaxflow.attribute._gradients import (
    GradientNorm,
    InputXGradient,
    IntegratedGradients,
    gradient_norm,
    input_x_gradient,
    integrated_gradients,
)
from jaxflow.attribute._hiding import batched, hide, shown_compiled, shown_values, without_one
from jaxflow.attribute._intervene import (
    Ablation,
    Intervention,
    ablate,
    ablated_capacities,
    intervene,
)
from jaxflow.attribute._leave_one_out import LeaveOneOut, leave_one_out, lost_without_each
from jaxflow.attribute._method import METHODS, AttributesEach, Method, as_attribution, as_method
from jaxflow.attribute._methods import method_label, method_name, method_options, needs_target
from jaxflow.attribute._networks import network_of
from jaxflow.attribute._random import Random, random_scores
from jaxflow.attribute._rollout import RawAttention, Rollout, raw_attention, rollout
from jaxflow.attribute._token_shapley import TokenShapley
from jaxflow.attribute.shapley import SetShapley

__all__ = [
    "METHODS",
    "Ablation",
    "AttentionFlow",
    "AttributesEach",
    "Attribution",
    "Certificate",
    "ContributionFlow",
    "ContributionScores",
    "CostEstimate",
    "EmbeddingScore",
    "Evidence",
    "Flow",
    "GradientNorm",
    "InputXGradient",
    "IntegratedGradients",
    "Intervention",
    "LeaveOneOut",
    "Method",
    "Random",
    "RawAttention",
    "Rollout",
    "Runs",
    "SetShapley",
    "TokenShapley",
    "Without",
    "ablate",
    "ablated_capacities",
    "as_attribution",
    "as_method",
    "attention_flow",
    "batched",
    "estimate_cost",
    "gradient_norm",
    "hide",
    "input_x_gradient",
    "integrated_gradients",
    "intervene",
    "leave_one_out",
    "lost_without_each",
    "method_label",
    "method_name",
    "method_options",
    "needs_target",
    "network_of",
    "random_scores",
    "raw_attention",
    "rollout",
    "shapley",
    "shown_compiled",
    "shown_values",
    "without_one",
]
