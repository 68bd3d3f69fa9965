"""A checkpoint's weights before they are read: what the file itself says of them, held against the configuration.

A configuration may ask for a billion hidden units, or have fewer layers than the file. Both are told without memory for a weight.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import msgpack  # type: ignore[import-untyped]
import numpy as np
import safetensors
from flax.traverse_util import flatten_dict

# Names of sizes in the configurations of transformers: each stands for weights, or for tables that are made of them.
SIZES = re.compile(
    r"(hidden|intermediate|vocab|embedding|head|ffn|inner|feed_forward|image|patch|attention|projection)\w*_(size|dim)"
    r"|(n|num|max)_\w*(layers?|heads|positions?|embeddings|blocks|groups|channels|labels|ctx)|\w*_(layers|ffn_dim|attention_heads)"
    r"|d_(model|ff|kv)|n_(embd|inner|ctx|layer|head)|num_labels|type_vocab_size|vocab_size|max_position_embeddings"
)
# The largest sizes by what a name has in it, and what is let through whatever a file's length: shapes tell later.
LIMITS, SMALL = {"position": 2**20, "label": 2**17, "layer": 2**12}, 2**20
LAYERS = re.compile(r"(?:^|[./])(\w+)[./](\d+)(?=[./])")  # the name of a list of layers, and the number of one


def check_config(config: Mapping[str, Any], weights: Path) -> None:
    """Refuse a configuration whose sizes are no numbers, or so large that the file cannot have the weights.

    Args:
        config: as `config.json` holds it.
        weights: the file of the weights, of which the length alone is read.

    Raises:
        ValueError: the size, what it is, and what it can be at most.
    """
    n_bytes = _n_bytes(weights)
    for key, value in _sizes(config):
        if not isinstance(value, int):
            raise ValueError(f"{key} is {value!r:.40}; expected a whole number")
        limit = max(n_bytes, SMALL)
        for part, most in LIMITS.items():
            limit = most if part in key else limit
        if not 0 <= value <= limit:
            raise ValueError(f"{key} is {value}; expected 0 to {limit}, as {weights.name} is {n_bytes} bytes long")


def check_layers(config: Mapping[str, Any], weights: Path) -> None:
    """Refuse a configuration with more layers than the file has weights; errors as those of `names_of`.

    Raises:
        ValueError: how many layers, and how many weights.
    """
    n_weights = len(names_of(weights))
    for key, value in _sizes(config):
        if "layer" in key and value > n_weights:
            raise ValueError(f"config.json says {key} is {value}, and {weights.name} has {n_weights} weights")


def _sizes(config: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _sizes(value)
        elif SIZES.fullmatch(key) and value is not None and not isinstance(value, bool | list | float):
            yield key, value


def names_of(weights: Path) -> list[str]:
    """List the names of the weights in a file, without making arrays of them.

    Raises:
        Exception: whatever a damaged file makes its library raise.
    """
    if weights.suffix == ".safetensors":
        with safetensors.safe_open(weights, framework="numpy") as file:
            return list(file.keys())
    if weights.suffix == ".json":  # of shards
        return [str(name) for name in json.loads(weights.read_bytes())["weight_map"]]
    tree = msgpack.unpackb(weights.read_bytes(), ext_hook=lambda code, content: None, strict_map_key=False)
    return ["/".join(map(str, path)) for path in flatten_dict(tree)]


def _n_bytes(weights: Path) -> int:
    """Return how many bytes a file has, or all shards together that it lists."""
    if weights.suffix != ".json":
        return weights.stat().st_size
    shards = {str(name) for name in json.loads(weights.read_bytes())["weight_map"].values()}
    return sum((weights.parent / Path(shard).name).stat().st_size for shard in shards)


def layers_of(names: Iterable[str]) -> dict[tuple[str, bool], int]:
    """Count layers by the names of weights: in a list of that name, within a decoder or not.

    Example:
        >>> layers_of(["bert.encoder.layer.0.weight", "bert.encoder.layer.1.weight", "cls.bias"])
        {('layer', False): 2}
    """
    found: dict[tuple[str, bool], int] = {}
    for name in names:
        place = LAYERS.search(name)
        if place is not None:
            key = place[1], "decoder" in name[: place.start(1)]
            found[key] = max(found.get(key, 0), int(place[2]) + 1)
    return found


def check_size(shapes: Any, weights: Path) -> None:
    """Refuse parameters that are more than a file can hold, before memory is taken for them.

    Raises:
        ValueError: how many there are, and how many bytes the file has.
    """
    n_numbers = sum(int(np.prod(leaf.shape, dtype=object)) for leaf in jax.tree.leaves(shapes))
    n_bytes = _n_bytes(weights)
    if n_numbers > n_bytes:
        raise ValueError(
            f"config.json describes a model of {n_numbers} weights; {weights.name} is {n_bytes} bytes long, which are too few"
        )


def check_parameters(params: Any, weights: Path) -> None:
    """Refuse parameters that are no real numbers, and a file that has more layers than were read.

    Raises:
        ValueError: which weight, or how many layers.
    """
    paths = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    ]
    for path, leaf in paths:
        if not jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating):
            raise ValueError(f"the weight {path} is {leaf.dtype}; expected real numbers, such as float32")
    read, held = layers_of(path for path, _ in paths), layers_of(names_of(weights))
    for key, n_held in held.items():
        if n_held > read.get(key, n_held):
            raise ValueError(
                f"{weights.name} has {n_held} layers, and config.json says {read[key]}: without the others it is another model"
            )
