"""A checkpoint directory -> an instance of a Flax class of transformers, with its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError

from jaxflow.models._transformers._llama import tie_head
from jaxflow.models._transformers._mending import mend_model, mended
from jaxflow.models._transformers._refusals import refuse, require_transformers

WEIGHTS = ("flax_model.msgpack", "flax_model.msgpack.index.json", "model.safetensors")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def load_checkpoint(directory: Path) -> tuple[Any, Any]:
    """Load a model and its tokenizer from a directory; errors as in `load_model`."""
    config = _read_config(directory)
    _check_weights(directory)
    require_transformers()
    model = _load_model(directory, config)
    return model, _load_tokenizer(directory, model)


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        raise ValueError(f"{directory} has no config.json: expected a directory that save_pretrained wrote.")
    for name in ("config.json", "tokenizer_config.json"):
        file = directory / name
        try:
            content = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        except ValueError as error:
            raise ValueError(f"{file} is damaged: it is no JSON ({error}).") from error
        if "auto_map" in content:
            raise ValueError(
                f"{directory} brings code of its own (auto_map in {name}), which is never run. Save the checkpoint with a class "
                "of transformers, or run its model yourself and pass its attention to attention_flow."
            )
        if name == "config.json":
            config = content
    return config


def _check_weights(directory: Path) -> None:
    if any((directory / name).is_file() for name in WEIGHTS):
        return
    convert = (
        "Convert them where PyTorch is installed and you trust the file: "
        f"AutoModel.from_pretrained({str(directory)!r}).save_pretrained({str(directory)!r}, safe_serialization=True), with the "
        "model's own class in place of AutoModel."
    )
    pickled = sorted(path.name for pattern in PICKLED for path in directory.glob(pattern))
    if pickled:
        raise ValueError(
            f"{directory} has pickled weights alone ({', '.join(pickled)}), which are never unpickled. {convert}"
        )
    if (directory / "model.safetensors.index.json").is_file():
        raise ValueError(
            f"{directory} has its weights in several safetensors files, which the Flax classes do not read. Save them as one: "
            "save_pretrained(..., max_shard_size='100GB')."
        )
    raise ValueError(f"{directory} has no weights: expected one of {', '.join(WEIGHTS)}.")


def _load_model(directory: Path, config: dict[str, Any]) -> Any:
    import transformers

    architectures = config.get("architectures") or []
    if len(architectures) != 1:
        raise ValueError(
            f"config.json of {directory} names {len(architectures)} architectures {architectures}; expected one, such as "
            "['BertForSequenceClassification']."
        )
    name = f"Flax{architectures[0].removeprefix('Flax')}"
    model_class = getattr(transformers, name, None)
    if model_class is None:
        raise ValueError(
            f"{directory} holds a {architectures[0]}, but transformers {transformers.__version__} has no {name}. Run the model "
            "yourself and pass its attention to attention_flow."
        )
    refuse(name, transformers.AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False))
    model, missing = _read_weights(directory, model_class)
    if missing and all("pooler" in path for path in missing):
        # Attention lies below the pooler, and many encoders are published without one.
        model, missing = _read_weights(directory, model_class, add_pooling_layer=False)
    if missing:
        raise ValueError(
            f"The weights in {directory} do not fit {name}: {len(missing)} are missing, such as {missing[0]}. "
            "Is `architectures` in config.json right?"
        )
    return model


def _read_weights(directory: Path, model_class: Any, **options: bool) -> tuple[Any, list[str]]:
    """Load a model, and name the weights that its checkpoint lacks."""

    def blank(self: Any, rng: Any, input_shape: Any, params: Any = None) -> Any:
        shapes = jax.eval_shape(lambda: model_class.init_weights(self, jax.random.key(0), input_shape))
        return jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, leaf.dtype), shapes)

    # from_pretrained fills what a checkpoint lacks with fresh random numbers, and only logs it. Filled with NaN instead,
    # it shows; and the time for random numbers is saved.
    reader: Any = type(
        model_class.__name__, (model_class,), {"init_weights": blank, "__module__": model_class.__module__}
    )
    try:
        with mended():
            read = reader.from_pretrained(directory, local_files_only=True, **options)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"The weights in {directory} do not load as {model_class.__name__}: {error}") from error
    tie_head(read)
    missing = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in jax.tree_util.tree_leaves_with_path(read.params)
        if leaf.size and np.isnan(leaf).all()
    ]
    read.__class__ = model_class  # all that the reader does differently is done
    mend_model(read)
    return read, missing


def _load_tokenizer(directory: Path, model: Any) -> Any:
    import transformers

    kinds: dict[str, tuple[Any, str]] = {
        "input_ids": (transformers.AutoTokenizer, "tokenizer"),
        "pixel_values": (transformers.AutoImageProcessor, "image processor"),
        "input_values": (transformers.AutoFeatureExtractor, "feature extractor"),
        "input_features": (transformers.AutoFeatureExtractor, "feature extractor"),
    }
    loader, what = kinds[model.main_input_name]
    try:
        return loader.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ValueError(
            f"{directory} has no {what} that loads: save it there with {what.replace(' ', '_')}.save_pretrained. "
            f"transformers says: {error}"
        ) from error
