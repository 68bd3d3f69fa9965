"""What a configuration of transformers says of its model."""

from __future__ import annotations

from typing import Any

from jaxflow.models._facts import Facts, Generation, is_multi_label, labels_of, patch_grid

DECODERS = ("bloom", "gemma", "gpt2", "gpt_neo", "gptj", "llama", "mistral", "opt", "xglm")
# These call their layers "encoder" in any case, and are decoders if the config says so.
EITHER = ("bert", "big_bird", "camembert", "electra", "roberta", "roberta-prelayernorm", "xlm-roberta")
COUNTS_FROM_PADDING = ("camembert", "roberta", "roberta-prelayernorm", "xlm-roberta")  # position 0 is pad_token_id + 1


def attention_sizes(model: Any) -> dict[str, tuple[int, int]] | None:
    """Read the sizes of a model's attention from its configuration.

    Args:
        model: a model of transformers, or the configuration of one, which need not be installed.

    Returns:
        For each of "encoder" and "decoder" that there is, the number of layers and the number of heads in each; None if
        `model` is something else.

    Raises:
        ValueError: a configuration that does not say.
    """
    config = getattr(model, "config", model)
    if not hasattr(config, "model_type"):
        return None
    return {stack: _sizes(config, stack) for stack in _stacks(config)}


def config_facts(config: Any) -> Facts:
    """Read the facts of a model from its configuration; `labels` and `generation` depend on its class too."""
    return Facts(
        stacks=_stacks(config),
        n_words=getattr(config, "vocab_size", None),
        is_multi_label=is_multi_label(config),
        n_positions=_longest_text(config),
        patches=patch_grid(config),
        ignores_padding=True,
    )


def class_facts(model: Any) -> tuple[tuple[str, ...] | None, Generation | None]:
    """Tell labels and generation of a model of transformers.

    Every config names two labels by default. They are those of the logits only of classes that classify.
    """
    config = model.config
    classifies = any(head in type(model).__name__ for head in ("Classification", "NextSentencePrediction"))
    labels = labels_of(config) if classifies else None
    if not model.can_generate():
        return labels, None
    ends = getattr(getattr(model, "generation_config", config), "eos_token_id", None)
    has_encoder = bool(config.is_encoder_decoder)
    return labels, Generation(
        has_encoder=has_encoder,
        start_token=config.decoder_start_token_id if has_encoder else None,
        end_tokens=() if ends is None else tuple(ends) if isinstance(ends, list | tuple) else (int(ends),),
        max_length=n_positions(getattr(config, "decoder", config), is_target=has_encoder),
    )


def is_decoder(config: Any) -> bool:
    """Whether a model of transformers without a separate encoder is a decoder."""
    return config.model_type in DECODERS or (config.model_type in EITHER and config.is_decoder)


def n_positions(config: Any, *, is_target: bool) -> int | None:
    """Return how many tokens have a position; None where positions are relative (T5, Bloom).

    The Bart family, OPT and XGLM number theirs from 2, and have tables that are longer by as much.
    """
    if is_target and hasattr(config, "max_target_positions"):  # Whisper
        return config.max_target_positions
    length = getattr(config, "max_position_embeddings", None)
    if length is not None and config.model_type in COUNTS_FROM_PADDING:
        return length - config.pad_token_id - 1
    return length


def _stacks(config: Any) -> tuple[str, ...]:
    if getattr(config, "is_encoder_decoder", False):
        return ("encoder", "decoder")
    return ("decoder",) if is_decoder(config) else ("encoder",)


def _longest_text(config: Any) -> int | None:
    """Return a length that any model of this kind reads: some tables begin with 2 rows that no token has."""
    length = getattr(config, "max_position_embeddings", None)
    if length is not None:
        return int(length) - 2
    length = getattr(config, "n_positions", None)
    return None if length is None else int(length)


def _sizes(config: Any, part: str) -> tuple[int, int]:
    """Read layers and heads, under the names that encoder-decoders have for them, or those that all have."""
    own = getattr(config, part, config)  # EncoderDecoder models have a config for each part
    names = (
        (f"{part}_layers", f"num_{part}_layers", "num_hidden_layers"),
        (f"{part}_attention_heads", "num_attention_heads"),
    )
    layers, heads = (next((int(n) for name in each if (n := getattr(own, name, None))), None) for each in names)
    if layers is None or heads is None:
        raise ValueError(
            f"a {config.model_type} config does not say how many layers and heads its {part} has: give shapes instead."
        )
    return layers, heads
