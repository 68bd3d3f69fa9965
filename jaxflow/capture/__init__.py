"""A model in, its attention out, and gradients by it: sown, asked for, or read off the traced program."""

from jaxflow.capture._arguments import arguments
from jaxflow.capture._calling import call_model, take_apart
from jaxflow.capture._capture import capture
from jaxflow.capture._embedding import first_stack, run_embedded
from jaxflow.capture._head_reduction import SIDES, Heads, Masks, head_reduction, is_index, is_named, stack_capacities
from jaxflow.capture._huggingface import capture_huggingface, is_huggingface, refuse, require_transformers
from jaxflow.capture._jaxpr import model_name, take_arrays
from jaxflow.capture._linen import DEFAULT_NAME, capture_linen
from jaxflow.capture._nnx import is_nnx
from jaxflow.capture._recompute import attention_weights
from jaxflow.capture._roles import Role, is_decoder
from jaxflow.capture._t5 import mend_model, mended_t5
from jaxflow.capture._targets import (
    Target,
    attention_gradients,
    contrast,
    evaluate,
    log_probability,
    logit,
    logits_of,
    pull_gradients,
)
from jaxflow.capture._writing import can_generate, continued, generate, generate_with, is_encoder_decoder

__all__ = [
    "DEFAULT_NAME",
    "SIDES",
    "Heads",
    "Masks",
    "Role",
    "Target",
    "arguments",
    "attention_gradients",
    "attention_weights",
    "call_model",
    "can_generate",
    "capture",
    "capture_huggingface",
    "capture_linen",
    "continued",
    "contrast",
    "evaluate",
    "first_stack",
    "generate",
    "generate_with",
    "head_reduction",
    "is_decoder",
    "is_encoder_decoder",
    "is_huggingface",
    "is_index",
    "is_named",
    "is_nnx",
    "log_probability",
    "logit",
    "logits_of",
    "mend_model",
    "mended_t5",
    "model_name",
    "pull_gradients",
    "refuse",
    "require_transformers",
    "run_embedded",
    "stack_capacities",
    "take_apart",
    "take_arrays",
]
