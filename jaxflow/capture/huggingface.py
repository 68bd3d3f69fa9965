"""Capture from the Flax classes of transformers 4, without changing them.

A copy of the model object runs whose flax module is a stand-in that watches the one `apply` the model makes;
its outputs are those of the model itself. Transformers is never imported for that.
"""

from __future__ import annotations

import copy
import importlib.metadata
import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from jaxflow.attention import Attention
from jaxflow.capture.linen import capture_apply

COUNTS_FROM_PADDING = ("camembert", "roberta", "roberta-prelayernorm", "xlm-roberta")  # position 0 is pad_token_id + 1
DECODERS = ("bloom", "gemma", "gpt2", "gpt_neo", "gptj", "llama", "mistral", "opt", "xglm")


def capture_huggingface(model: Any, args: tuple, kwargs: dict) -> tuple[Any, Attention]:
    """Run an encoder-only model of transformers once, and take its attention.

    Args:
        model: an instance of a Flax class of transformers 4.
        args: positional arguments of the model's call.
        kwargs: its keyword arguments; `params=` runs it with other parameters.

    Returns:
        What `model(*args, **kwargs)` returns, and the attention: `encoder` of shape
        `[batch, layer, head, token, token]`, probabilities after the softmax.

    Raises:
        ValueError: the model has no attention in that sense, or of a kind that is not supported yet.
    """
    _refuse(model)
    arguments = inspect.signature(model.__call__).bind_partial(*args, **kwargs).arguments
    if arguments.get("head_mask") is not None:
        raise ValueError(
            "head_mask scales attention after the softmax, so its rows no longer sum to 1. Leave it out, and weigh "
            "the heads where they are reduced: joint_capacities(attention, heads=weights)."
        )
    _refuse_too_long(model, arguments)
    watched = copy.copy(model)
    watched._module = stand_in = _Watched(model.module)
    outputs = watched(*args, **kwargs)
    if stand_in.attention is None:
        raise ValueError(f"{type(model).__name__} did not run its module, so there is no attention to take.")
    return outputs, stand_in.attention


def is_huggingface(model: Any) -> bool:
    """Tell whether `model` is an instance of a Flax class of transformers, which need not be installed."""
    return any(
        cls.__name__ == "FlaxPreTrainedModel" and cls.__module__.startswith("transformers.")
        for cls in type(model).__mro__
    )


def require_transformers() -> None:
    """Raise unless a version of transformers is installed that has Flax classes.

    Raises:
        ImportError: transformers is missing, or is version 5 or later.
    """
    mend = 'Install the version that has them: pip install "jaxflow[hf]".'
    try:
        version = importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError(f"transformers is not installed, and this model is one of its Flax classes. {mend}") from None
    if int(version.split(".")[0]) >= 5:
        raise ImportError(
            f"transformers {version} has no Flax classes: version 5 removed them. {mend} Linen modules and arrays "
            "need no transformers and work beside any version of it."
        )


class _Watched:
    """Stands in for a model's flax module: runs it as it is, and keeps its attention."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.attention: Attention | None = None

    def apply(self, variables: Mapping, *args: Any, **kwargs: Any) -> Any:
        outputs, self.attention = capture_apply(self.module, variables, *args, **kwargs)
        return outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


def _refuse_too_long(model: Any, arguments: Mapping[str, Any]) -> None:
    """Raise if tokens lie beyond the model's positions, whose embeddings JAX would read as NaN in silence."""
    n_positions = getattr(model.config, "max_position_embeddings", None)
    tokens = arguments.get("input_ids")
    if n_positions is None or tokens is None or arguments.get("position_ids") is not None:
        return
    if model.config.model_type in COUNTS_FROM_PADDING:
        n_positions -= model.config.pad_token_id + 1
    n_tokens = np.shape(tokens)[-1]
    if n_tokens > n_positions:
        raise ValueError(
            f"{type(model).__name__} is given {n_tokens} tokens and has {n_positions} positions. The input is not cut, since "
            "that would explain another one: shorten or split it."
        )


def _refuse(model: Any) -> None:
    """Raise for the classes whose attention cannot be had, or not yet, and say what to do."""
    name, config = type(model).__name__, model.config
    kind = getattr(config, "model_type", "")
    if kind == "mistral" and config.sliding_window is None:
        raise ValueError(
            f"{name} with sliding_window=None lets every token attend to itself alone: a fault in transformers, "
            "which makes its outputs wrong too. Set a window in the config, such as "
            "sliding_window=config.max_position_embeddings."
        )
    if kind == "big_bird" and config.attention_type != "original_full":
        raise ValueError(
            f"{name} with attention_type={config.attention_type!r} computes attention in blocks and returns none. "
            'Build or load it with attention_type="original_full": the parameters fit.'
        )
    if hasattr(config, "text_config") and hasattr(config, "vision_config"):
        raise ValueError(
            f"{name} runs two encoders, for text and for images, which make no one network. Capture one of them: "
            "text = FlaxCLIPTextModel(model.config.text_config); capture(text, input_ids, "
            'params={"text_model": model.params["text_model"]}). Likewise FlaxCLIPVisionModel with vision_config '
            'and "vision_model".'
        )
    if getattr(config, "is_encoder_decoder", False):
        what = "an encoder-decoder"
    elif getattr(config, "is_decoder", False) or kind in DECODERS or "ForCausalLM" in name:
        what = "a decoder"
    else:
        return
    raise ValueError(f"{name} is {what}: not supported yet. So far capture takes encoder-only transformers models.")
