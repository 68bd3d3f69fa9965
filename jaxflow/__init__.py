"""What each input token could send to a Transformer's decision, and what it did give, as certified maximum flows in JAX.

model -> `Attention` (and `Contributions`) -> `Capacities` -> `FlowNetwork` -> `Attribution` -> `Explanation`: each step is
a function that can be entered or left at, and only the solvers leave JAX.

What stands here is what most work needs. The rest is in namespaces, in the order of the pipeline: `jaxflow.models`,
`jaxflow.network`, `jaxflow.solve`, `jaxflow.attribute`, `jaxflow.shapley`, `jaxflow.evaluate`, `jaxflow.training`,
`jaxflow.plot`.
"""

from jaxflow import attribute, evaluate, models, network, solve, training
from jaxflow._attention import Attention
from jaxflow._version import __version__
from jaxflow.attribute import (
    AttentionFlow,
    Attribution,
    ContributionFlow,
    ContributionScores,
    GradientNorm,
    InputXGradient,
    IntegratedGradients,
    LeaveOneOut,
    Random,
    RawAttention,
    Rollout,
    SetShapley,
    attention_flow,
    estimate_cost,
    shapley,
)
from jaxflow.capture import (
    Contributions,
    attention_gradients,
    attention_weights,
    capture,
    capture_contributions,
    contrast,
    log_probability,
    logit,
)
from jaxflow.evaluate import compare
from jaxflow.explain import Example, Explanation, Generate, explain, load
from jaxflow.models import as_model, load_model
from jaxflow.network import Capacities, FlowNetwork, flow_network, joint_capacities
from jaxflow.solve import max_flow, min_cut
from jaxflow.training import FlowMonitor
from jaxflow.views import html, plot

# In the order of the pipeline; then the namespaces.
__all__ = [  # noqa: RUF022
    "load_model",
    "as_model",
    "capture",
    "capture_contributions",
    "attention_gradients",
    "attention_weights",
    "Attention",
    "Contributions",
    "logit",
    "log_probability",
    "contrast",
    "joint_capacities",
    "Capacities",
    "flow_network",
    "FlowNetwork",
    "max_flow",
    "min_cut",
    "attention_flow",
    "Attribution",
    "AttentionFlow",
    "ContributionFlow",
    "ContributionScores",
    "Rollout",
    "RawAttention",
    "SetShapley",
    "GradientNorm",
    "InputXGradient",
    "IntegratedGradients",
    "LeaveOneOut",
    "Random",
    "estimate_cost",
    "explain",
    "Example",
    "Generate",
    "Explanation",
    "load",
    "compare",
    "FlowMonitor",
    "attribute",
    "evaluate",
    "html",
    "models",
    "network",
    "plot",
    "shapley",
    "solve",
    "training",
    "__version__",
]
