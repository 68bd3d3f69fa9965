"""load_model: a name of the package, or a checkpoint directory -> a model ready for capture, with its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxflow import zoo
from jaxflow.models._transformers._checkpoint import load_checkpoint


def load_model(name_or_directory: str | Path) -> tuple[Any, Any]:
    """Load a model with its tokenizer, ready for `capture` and `explain`.

    Reads what is on disk and nothing else: nothing is fetched, unpickled, or run that the checkpoint brings along.

    Args:
        name_or_directory: a model of the package ("agreement", "agreement-lm"; `jaxflow.zoo.names()` has all), or the
            directory of a checkpoint of one of the Flax classes of transformers 4 (extra `hf`), weights in
            `model.safetensors` or `flax_model.msgpack`.

    Returns:
        The model and its tokenizer. Of a checkpoint that reads images or sound, its image processor or feature
        extractor stands in the tokenizer's place.

    Raises:
        ValueError: no such model; a directory without configuration, weights or tokenizer, with pickled weights alone,
            with code of its own, with weights that do not fit, or whose class has no Flax counterpart or none whose
            attention can be captured.
        ImportError: transformers 4 is not installed.

    Example:
        >>> model, tokenizer = load_model("agreement")
        >>> model.labels
        ('singular', 'plural')
    """
    if str(name_or_directory) in zoo.names():
        return zoo.load(str(name_or_directory))
    directory = Path(name_or_directory).expanduser()
    if not directory.is_dir():
        raise ValueError(
            f"There is no model {str(name_or_directory)!r}: expected a model of the package ({', '.join(zoo.names())}) or the "
            "directory of a checkpoint. Nothing is downloaded."
        )
    return load_checkpoint(directory)
