"""A checkpoint directory -> an instance of a Flax class of transformers, with its tokenizer."""

from __future__ import annotations

import codecs
import contextlib
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxflow.models._facts import labels_of
from jaxflow.models._transformers._config import class_facts, config_facts
from jaxflow.models._transformers._llama import tie_head
from jaxflow.models._transformers._mending import mend_model, mended
from jaxflow.models._transformers._refusals import refuse, require_transformers
from jaxflow.models._transformers._weights_file import check_config, check_layers, check_parameters, check_size

WEIGHTS = ("flax_model.msgpack", "flax_model.msgpack.index.json", "model.safetensors")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def load_checkpoint(directory: Path) -> tuple[Any, Any]:
    """Load a model and its tokenizer from a directory; errors as in `load_model`."""
    config = _read_config(directory)
    weights = _check_weights(directory)
    require_transformers()
    with refused(f"config.json of {directory} does not fit its weights"):
        check_config(config, weights)
    model = _load_model(directory, config, weights)
    return model, _load_tokenizer(directory, model)


@contextlib.contextmanager
def refused(what: str) -> Iterator[None]:
    """Turn whatever a library raises over a damaged file into a ValueError that begins with `what`.

    No kind of exception can be left out: transformers and its tokenizers raise what their code happens to run into, a panic of
    Rust among it, which is a BaseException.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        reason = str(error) or "no reason given"
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        raise ValueError(f"{what}: {kind}{reason:.600}") from error


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        raise ValueError(f"{directory} has no config.json: expected a directory that save_pretrained wrote.")
    for file in sorted(directory.glob("*.json")) + sorted(directory.glob("*.txt")):
        with file.open("rb") as opened:
            begins = opened.read(len(codecs.BOM_UTF8))
        if begins == codecs.BOM_UTF8 and file != path:
            raise ValueError(
                f"{file} begins with a byte order mark, which transformers takes for a part of it: save it as UTF-8 without one."
            )
    config = _read_json(path)
    for name, content in (
        ("config.json", config),
        ("tokenizer_config.json", _read_json(directory / "tokenizer_config.json")),
    ):
        if "auto_map" in content:
            raise ValueError(
                f"{directory} brings code of its own (auto_map in {name}), which is never run. Save the checkpoint with a class "
                "of transformers, or run its model yourself and pass its attention to attention_flow."
            )
    return config


def _read_json(file: Path) -> dict[str, Any]:
    """Read a file, in any encoding of JSON; nothing where there is none."""
    try:
        content = json.loads(file.read_bytes()) if file.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: it is no JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is damaged: it holds {type(content).__name__}; expected an object.")
    return content


def _check_weights(directory: Path) -> Path:
    """Return the file that transformers will read.

    Raises:
        ValueError: there is none that it may read.
    """
    found = next((directory / name for name in WEIGHTS if (directory / name).is_file()), None)
    if found is not None:
        return found
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


def _load_model(directory: Path, config: dict[str, Any], weights: Path) -> Any:
    import transformers

    architectures = config.get("architectures") or []
    if not isinstance(architectures, list) or len(architectures) != 1 or not isinstance(architectures[0], str):
        number = len(architectures) if isinstance(architectures, list) else 1
        raise ValueError(
            f"config.json of {directory} names {number} architectures {architectures}; expected one, such as "
            "['BertForSequenceClassification']."
        )
    name = f"Flax{architectures[0].removeprefix('Flax')}"
    model_class = getattr(transformers, name, None)
    if not (isinstance(model_class, type) and issubclass(model_class, transformers.FlaxPreTrainedModel)):
        raise ValueError(
            f"{directory} holds a {architectures[0]}, but transformers {transformers.__version__} has no {name}. Run the model "
            "yourself and pass its attention to attention_flow."
        )
    with refused(f"config.json of {directory} is no configuration of {name}"):
        own = _configuration(config, model_class, directory)
    refuse(name, own)
    with refused(f"The weights in {directory} do not load as {name}"):
        check_layers(config, weights)
    model, missing = _read_weights(directory, model_class, own, weights)
    if missing and all("pooler" in path for path in missing):
        # Attention lies below the pooler, and many encoders are published without one.
        model, missing = _read_weights(directory, model_class, own, weights, add_pooling_layer=False)
    if missing:
        raise ValueError(
            f"The weights in {directory} do not fit {name}: {len(missing)} are missing, such as {missing[0]}. "
            "Is `architectures` in config.json right?"
        )
    return model


def _configuration(config: dict[str, Any], model_class: Any, directory: Path) -> Any:
    """Make the configuration of a model, and see that all that is read off it later can be read."""
    import transformers

    kind = str(config.get("model_type"))
    if kind in transformers.CONFIG_MAPPING:
        own = transformers.CONFIG_MAPPING[kind].from_dict(copy.deepcopy(config))
    else:
        own = transformers.AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    if not isinstance(own, model_class.config_class):
        raise ValueError(f"it is of a {own.model_type}")
    config_facts(own)
    labels_of(own)
    return own


def _read_weights(
    directory: Path, model_class: Any, config: Any, weights: Path, **options: bool
) -> tuple[Any, list[str]]:
    """Load a model, and name the weights that its checkpoint lacks."""

    def blank(self: Any, rng: Any, input_shape: Any, params: Any = None) -> Any:
        shapes = jax.eval_shape(lambda: model_class.init_weights(self, jax.random.key(0), input_shape))
        check_size(shapes, weights)
        return jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, leaf.dtype), shapes)

    # from_pretrained fills what a checkpoint lacks with fresh random numbers, and only logs it. Filled with NaN instead,
    # it shows; and the time for random numbers is saved.
    reader: Any = type(
        model_class.__name__, (model_class,), {"init_weights": blank, "__module__": model_class.__module__}
    )
    with refused(f"The weights in {directory} do not load as {model_class.__name__}"):
        with mended():
            read = reader.from_pretrained(directory, config=copy.deepcopy(config), local_files_only=True, **options)
        tie_head(read)
        check_parameters(read.params, weights)
        class_facts(read)
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
    with refused(
        f"{directory} has no {what} that loads: save it there with {what.replace(' ', '_')}.save_pretrained. transformers says"
    ):
        return loader.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
