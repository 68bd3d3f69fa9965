"""Checkpoints that are damaged or hostile: a ValueError with a sentence, before memory is taken, or a model that runs."""

import json
import random
import shutil
import tracemalloc

import checkpoints
import jax
import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from jaxflow import explain, load_model

pytestmark = pytest.mark.usefixtures("standard_promotion")
JUNK = [None, True, -1, 0, 7, 2**70, 10**9, 0.5, "", "x", [], {}, [1], {"a": 1}, "\x1b[2J", [[]] * 3]


def save_torch_names(directory, params):
    """Write weights as PyTorch users publish them."""
    theirs = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
    weights = {
        ".".join((*path[:-1], theirs.get(path[-1], path[-1]))): np.asarray(leaf).T.copy()
        if path[-1] == "kernel"
        else np.asarray(leaf)
        for path, leaf in flatten_dict(params).items()
    }
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module", params=["flax", "torch"])
def whole(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    model = checkpoints.save_bert(directory, hidden_size=8, num_attention_heads=2, intermediate_size=8)
    if request.param == "torch":
        save_torch_names(directory, model.params)
        (directory / "flax_model.msgpack").unlink()
    return directory, model


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "copy")


def edit(directory, name="config.json", **changes):
    path = directory / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def weights_of(directory):
    return next(path for path in directory.iterdir() if path.suffix in (".msgpack", ".safetensors"))


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 10**9},
        {"vocab_size": 10**9},
        {"intermediate_size": 10**12},
        {"num_hidden_layers": 10**6},
        {"max_position_embeddings": 10**9},
        {"type_vocab_size": 10**9},
        {"num_attention_heads": 10**9},
        {"hidden_size": 9000, "num_attention_heads": 1, "intermediate_size": 9000},
        {"num_labels": 10**9},
        {"hidden_size": -8},
        {"hidden_size": "8"},
        {"hidden_size": True},
    ],
    ids=lambda changes: " ".join(f"{name}={value}" for name, value in changes.items()),
)
def test_a_configuration_takes_no_more_memory_than_the_file_has(copied, changes):
    edit(copied, **changes)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"does not fit its weights|do not load|are too few"):
        load_model(copied)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 150e6


def test_more_layers_than_the_configuration_says(copied):
    edit(copied, num_hidden_layers=1)
    with pytest.raises(
        ValueError, match=r"has 2 layers, and config.json says 1: without the others it is another model"
    ):
        load_model(copied)


def test_fewer_layers_than_the_configuration_says(copied):
    edit(copied, num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"\d+ are missing, such as bert/encoder/layer/2/"):
        load_model(copied)


def test_a_head_that_is_not_used_is_usual(copied):
    edit(copied, architectures=["BertModel"])
    model, _ = load_model(copied)
    assert type(model).__name__ == "FlaxBertModel"


@pytest.mark.parametrize("dtype", ["complex64", "int32", "bool"])
def test_weights_that_are_no_real_numbers(copied, whole, dtype):
    params = jax.tree.map(np.asarray, whole[1].params)
    params["classifier"]["bias"] = np.ones(params["classifier"]["bias"].shape, dtype)
    for path in [weights_of(copied)]:
        path.unlink()
    if dtype != "complex64" and "torch" in str(whole[0]):
        save_torch_names(copied, params)
    else:
        (copied / "flax_model.msgpack").write_bytes(msgpack_serialize(params))
    with pytest.raises(ValueError, match=f"the weight classifier/bias is {dtype}; expected real numbers"):
        load_model(copied)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt"])
def test_a_byte_order_mark(copied, name):
    path = copied / name
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    if name == "config.json":  # which is read here, and not by transformers
        assert load_model(copied)[0].config.num_labels == 2
        return
    with pytest.raises(ValueError, match=rf"{name} begins with a byte order mark.*UTF-8 without one"):
        load_model(copied)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"[" * 100_000),
        ("config.json", b"[]"),
        ("config.json", b"\xff\xfe"),
        ("config.json", b"null"),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b""),
        ("tokenizer.json", b"[" * 100_000),
        ("tokenizer_config.json", b"[]"),
        ("special_tokens_map.json", b"[]"),
    ],
)
def test_json_that_is_none(copied, name, content):
    (copied / name).write_bytes(content)
    reason = load_or_refuse(copied)
    assert reason is None or str(copied) in reason, "not every file is needed"
    assert reason is not None or name not in ("config.json", "tokenizer.json")


def mutated(directory, random_):
    """Change one file of a checkpoint: bytes of weights, or a part of JSON."""
    files = sorted(path for path in directory.iterdir() if path.suffix in (".json", ".msgpack", ".safetensors"))
    path = random_.choice(files)
    data = bytearray(path.read_bytes())
    if path.suffix == ".json" and random_.random() < 0.7:
        tree = json.loads(data)
        holder = tree
        while isinstance(holder, dict) and holder:
            key = random_.choice(sorted(holder))
            if not isinstance(holder[key], dict) or random_.random() < 0.4:
                if random_.random() < 0.2:
                    del holder[key]
                else:
                    holder[key] = random_.choice(JUNK)
                break
            holder = holder[key]
        path.write_text(json.dumps(tree))
        return
    for _ in range(random_.randrange(1, 4)):
        data[random_.randrange(min(len(data), 4096))] ^= 1 << random_.randrange(8)
    if random_.random() < 0.3:
        del data[random_.randrange(len(data)) :]
    path.write_bytes(data)


def load_or_refuse(directory):
    try:
        model, tokenizer = load_model(directory)
    except ValueError as error:
        return str(error)
    try:
        explain(model, "the old keys", tokenizer=tokenizer)
    except ValueError as error:
        return str(error)
    return None


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_checkpoints_that_were_changed(whole, tmp_path_factory, seed):
    directory = tmp_path_factory.mktemp("mutant") / "copy"
    shutil.copytree(whole[0], directory)
    mutated(directory, random.Random(seed))
    reason = load_or_refuse(directory)
    assert reason is None or len(reason) > 20
    shutil.rmtree(directory)


def test_the_layers_of_every_class_are_counted_alike(tmp_path):
    """The file's names of layers are found in what is read of it, whatever a class calls them."""
    from jaxflow.models._transformers._weights_file import layers_of

    for name in ("GPT2", "Llama", "Bart", "T5", "Bloom"):
        directory = tmp_path / name
        saved = checkpoints.save(directory, name)
        save_torch_names(directory, saved.params)
        held = layers_of(load_file(directory / "model.safetensors"))
        read = layers_of("/".join(path) for path in flatten_dict(saved.params))
        assert held == read
        assert set(held.values()) == {2}
