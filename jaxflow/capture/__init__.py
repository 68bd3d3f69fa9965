"""A model -> its attention, and gradients by it: recorded, or found in the traced program."""

from jaxflow.capture._capture import capture, run_capture
from jaxflow.capture._compiled import (
    capture_compiled,
    contributions_compiled,
    contributions_to_each,
    gradients_compiled,
    gradients_of_each,
    run_scored,
)
from jaxflow.capture._contributions import Contributions, capture_contributions, pull_contributions
from jaxflow.capture._gradients import attention_gradients, pull_gradients
from jaxflow.capture._head_reduction import (
    SIDES,
    Heads,
    Masks,
    Residual,
    capacities_on_host,
    is_index,
    is_named,
    reduce_heads,
    stack_capacities,
)
from jaxflow.capture._knock_out import knock_out
from jaxflow.capture._recompute import attention_weights
from jaxflow.capture._targets import (
    LabelTarget,
    Logit,
    Target,
    TargetSum,
    contrast,
    evaluate_target,
    log_probability,
    logit,
)
from jaxflow.models import logits_of

__all__ = [
    "SIDES",
    "Contributions",
    "Heads",
    "LabelTarget",
    "Logit",
    "Masks",
    "Residual",
    "Target",
    "TargetSum",
    "attention_gradients",
    "attention_weights",
    "capacities_on_host",
    "capture",
    "capture_compiled",
    "capture_contributions",
    "contrast",
    "contributions_compiled",
    "contributions_to_each",
    "evaluate_target",
    "gradients_compiled",
    "gradients_of_each",
    "is_index",
    "is_named",
    "knock_out",
    "log_probability",
    "logit",
    "logits_of",
    "pull_contributions",
    "pull_gradients",
    "reduce_heads",
    "run_capture",
    "run_scored",
    "stack_capacities",
]
