"""What is refused of the Flax classes of transformers, because their attention would be missing or wrong."""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxflow._version import DISTRIBUTION
from jaxflow.models._transformers._config import n_positions
from jaxflow.models._transformers._llama import refuse_unread


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
    refuse_unread(name, config)


def refuse_call(model: Any, args: tuple, kwargs: Mapping[str, Any]) -> None:
    """Raise unless a call computes attention of all tokens to all tokens.

    Raises:
        ValueError: heads are masked; keys are cached; more tokens than the model has positions.
        TypeError: inputs that the model does not take.
    """
    signature = inspect.signature(model.__call__)
    if unknown := [name for name in kwargs if name not in signature.parameters]:
        arrays = [name for name in signature.parameters if name.endswith(("ids", "mask", "values", "features"))]
        raise TypeError(
            f"{type(model).__name__} takes no {', '.join(unknown)}; of arrays it takes {', '.join(arrays)}. A tokenizer may "
            "return more than its model takes: leave these out, or explain the text, which does so."
        )
    arguments = signature.bind_partial(*args, **kwargs).arguments
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


def require_transformers() -> None:
    """Raise unless a version of transformers is installed that has Flax classes.

    Raises:
        ImportError: transformers is missing, or is version 5 or later.
    """
    mend = f'Install the version that has them: pip install "{DISTRIBUTION}[hf]".'
    try:
        version = importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError(f"transformers is not installed, and this model is one of its Flax classes. {mend}") from None
    if int(version.split(".")[0]) >= 5:
        raise ImportError(
            f"transformers {version} has no Flax classes: version 5 removed them. {mend} Linen modules and arrays "
            "need no transformers and work beside any version of it."
        )


def _refuse_too_long(model: Any, arguments: Mapping[str, Any]) -> None:
    """Raise if tokens lie beyond the model's positions, which JAX would read as NaN or as the last one, in silence."""
    for prefix, part in (("", "encoder"), ("decoder_", "decoder")):
        tokens = arguments.get(f"{prefix}input_ids")
        config = getattr(model.config, part, model.config)  # EncoderDecoder models have a config for each part
        length = n_positions(config, is_target=part == "decoder")
        if tokens is None or length is None or arguments.get(f"{prefix}position_ids") is not None:
            continue
        n_tokens = np.shape(tokens)[-1]
        if n_tokens > length:
            raise ValueError(
                f"{type(model).__name__} is given {n_tokens} tokens in {prefix}input_ids and has {length} positions. The "
                "input is not cut, since that would explain another one: shorten or split it."
            )
