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

from jaxflow._attention import Attention
from jaxflow.capture._head_reduction import Heads
from jaxflow.capture._linen import capture_apply
from jaxflow.capture._marks import Marks

COUNTS_FROM_PADDING = ("camembert", "roberta", "roberta-prelayernorm", "xlm-roberta")  # position 0 is pad_token_id + 1


def capture_huggingface(
    model: Any, args: tuple, kwargs: dict, *, fuse_heads: Heads | None = None, marks: Marks | None = None
) -> tuple[Any, Attention]:
    """Run a model of transformers once, and take its attention.

    Args:
        model: an instance of a Flax class of transformers 4.
        args: positional arguments of the model's call.
        kwargs: its keyword arguments; `params=` runs it with other parameters.
        fuse_heads: heads, as in `joint_capacities`, to make one of all where they are computed.
        marks: where to mark the attention, to differentiate by it.

    Returns:
        What `model(*args, **kwargs)` returns, and the attention, probabilities after the softmax:
        `[batch, layer, head, query, key]` in `encoder`, `decoder` and `cross`, as many of them as the model has; of one head
        if heads are fused.

    Raises:
        ValueError: the model has no attention in that sense; it is called so that there is none of all tokens.
    """
    refuse(type(model).__name__, model.config)
    arguments = inspect.signature(model.__call__).bind_partial(*args, **kwargs).arguments
    if arguments.get("head_mask") is not None:
        raise ValueError(
            "head_mask scales attention after the softmax, so its rows no longer sum to 1. Leave it out, and weigh "
            "the heads where they are reduced: joint_capacities(attention, heads=weights)."
        )
    if arguments.get("past_key_values") is not None:
        raise ValueError(
            "past_key_values holds the keys of earlier steps, so only the last step's attention would be computed. Leave it "
            "out, and pass all tokens so far as input_ids (decoder_input_ids of an encoder-decoder): attention is causal, "
            "so one pass has every step's."
        )
    _refuse_too_long(model, arguments)
    watched = copy.copy(model)
    watched._module = stand_in = _Watched(model.module, fuse_heads=fuse_heads, marks=marks)
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

    def __init__(self, module: nn.Module, **options: Any) -> None:
        self.module = module
        self.options = options  # of `capture_apply`
        self.attention: Attention | None = None

    def apply(self, variables: Mapping, *args: Any, **kwargs: Any) -> Any:
        outputs, self.attention = capture_apply(self.module, variables, *args, **self.options, **kwargs)
        return outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


def _refuse_too_long(model: Any, arguments: Mapping[str, Any]) -> None:
    """Raise if tokens lie beyond the model's positions, which JAX would read as NaN or as the last one, in silence."""
    for prefix, part in (("", "encoder"), ("decoder_", "decoder")):
        tokens = arguments.get(f"{prefix}input_ids")
        config = getattr(model.config, part, model.config)  # EncoderDecoder models have a config for each part
        n_positions = _n_positions(config, is_target=part == "decoder")
        if tokens is None or n_positions is None or arguments.get(f"{prefix}position_ids") is not None:
            continue
        n_tokens = np.shape(tokens)[-1]
        if n_tokens > n_positions:
            raise ValueError(
                f"{type(model).__name__} is given {n_tokens} tokens in {prefix}input_ids and has {n_positions} positions. The "
                "input is not cut, since that would explain another one: shorten or split it."
            )


def _n_positions(config: Any, *, is_target: bool) -> int | None:
    """Return how many tokens have a position; None where positions are relative (T5, Bloom).

    The Bart family, OPT and XGLM number theirs from 2, and have tables that are longer by as much.
    """
    if is_target and hasattr(config, "max_target_positions"):  # Whisper
        return config.max_target_positions
    n_positions = getattr(config, "max_position_embeddings", None)
    if n_positions is not None and config.model_type in COUNTS_FROM_PADDING:
        return n_positions - config.pad_token_id - 1
    return n_positions


def refuse(name: str, config: Any) -> None:
    """Raise for the classes whose attention cannot be had, and say what to do.

    Args:
        name: the class.
        config: of the model.

    Raises:
        ValueError: no attention of this class.
    """
    kind = getattr(config, "model_type", "")
    if kind == "longt5":
        raise ValueError(
            f"{name} computes its encoder's attention in blocks of neighbouring tokens, [batch, block, head, query, key]: five "
            "axes, and no weight for two tokens of different blocks. Use T5 or MT5, whose attention is full."
        )
    if kind == "mistral" and not config.sliding_window:
        raise ValueError(
            f"{name} with sliding_window={config.sliding_window} lets every token attend to itself alone: a fault in "
            "transformers, which makes its outputs wrong too. Set a window in the config, such as "
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
