import json
import os
import pickle

import checkpoints
import jax
import numpy as np
import pytest
import transformers
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from jaxflow import load_model, zoo
from jaxflow.models._transformers import _refusals as refusals

pytestmark = pytest.mark.usefixtures("standard_promotion")  # models of transformers run here


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bert")
    model = checkpoints.save_bert(directory)
    return directory, model


@pytest.fixture
def broken(bert, tmp_path):
    """A copy of the checkpoint for a test to break."""
    for path in bert[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_directory_loads_as_it_was_saved(bert):
    directory, saved = bert
    model, tokenizer = load_model(directory)
    assert type(model) is transformers.FlaxBertForSequenceClassification
    jax.tree.map(np.testing.assert_array_equal, model.params, saved.params)
    inputs = tokenizer(["the old keys"], return_tensors="np")
    np.testing.assert_array_equal(model(**inputs).logits, saved(**inputs).logits)


def test_a_model_of_the_package_loads_by_name():
    model, tokenizer = load_model("agreement")
    assert model.labels == ("singular", "plural")
    assert tokenizer.convert_ids_to_tokens(tokenizer(["the keys"])["input_ids"][0]) == ["[CLS]", "the", "keys"]


@pytest.mark.weights
def test_real_pytorch_weights_load_without_torch(minilm_directory):
    model, tokenizer = load_model(minilm_directory)
    hidden = model(**tokenizer(["the keys to the old cabinet", "the key"], padding=True, return_tensors="np"))
    assert type(model) is transformers.FlaxBertModel
    assert np.isfinite(hidden.last_hidden_state).all()


@pytest.mark.parametrize("name", ["GPT2", "Llama", "Marian", "Whisper", "T5"])
def test_weights_as_pytorch_names_them(name, tmp_path):
    saved = checkpoints.save(tmp_path, name)
    (tmp_path / "flax_model.msgpack").unlink()
    theirs = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
    weights = {
        ".".join((*path[:-1], theirs.get(path[-1], path[-1]))): np.asarray(leaf).T.copy()
        if path[-1] == "kernel"
        else leaf
        for path, leaf in flatten_dict(saved.params).items()
    }
    save_file(jax.tree.map(np.asarray, weights), tmp_path / "model.safetensors", metadata={"format": "pt"})
    model, _ = load_model(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, model.params, saved.params)


def test_a_base_model_without_a_pooler_loads(tmp_path):
    model = transformers.FlaxBertModel(checkpoints.bert_config(), add_pooling_layer=False)
    model.config.architectures = ["BertModel"]
    model.save_pretrained(tmp_path)
    checkpoints.save_tokenizer(tmp_path)
    loaded, tokenizer = load_model(tmp_path)
    inputs = tokenizer(["the keys"], return_tensors="np")
    np.testing.assert_array_equal(loaded(**inputs).last_hidden_state, model(**inputs).last_hidden_state)


def test_weights_that_are_missing_are_not_made_up(broken):
    edit_config(broken, architectures=["BertForMaskedLM"])
    with pytest.raises(ValueError, match=r"do not fit FlaxBertForMaskedLM: \d+ are missing, such as cls/"):
        load_model(broken)


def test_weights_of_another_size_are_refused(broken):
    edit_config(broken, hidden_size=64)
    with pytest.raises(ValueError, match=r"do not load as FlaxBertForSequenceClassification"):
        load_model(broken)


def test_damaged_weights_are_refused(broken):
    weights = next(path for path in broken.iterdir() if path.name in ("flax_model.msgpack", "model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"do not load as FlaxBertForSequenceClassification"):
        load_model(broken)


def test_no_such_model():
    message = rf"no model 'agrement'.*\({', '.join(zoo.names())}\) or the directory.*Nothing is downloaded"
    with pytest.raises(ValueError, match=message):
        load_model("agrement")


def test_a_directory_without_configuration(tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json"):
        load_model(tmp_path)


def test_a_damaged_configuration(broken):
    (broken / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        load_model(broken)


def without_weights(directory):
    for name in ("flax_model.msgpack", "model.safetensors"):
        (directory / name).unlink(missing_ok=True)


def test_a_directory_without_weights(broken):
    without_weights(broken)
    with pytest.raises(ValueError, match=r"has no weights: expected one of flax_model\.msgpack"):
        load_model(broken)


def test_pickled_weights_are_never_unpickled(broken, tmp_path):
    without_weights(broken)
    marker = tmp_path / "unpickled"

    class Mark:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    (broken / "pytorch_model.bin").write_bytes(pickle.dumps(Mark()))
    with pytest.raises(ValueError, match=r"pickled weights alone \(pytorch_model\.bin\).*safe_serialization=True"):
        load_model(broken)
    assert not marker.exists()


def test_sharded_safetensors(broken):
    without_weights(broken)
    (broken / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"several safetensors files.*max_shard_size"):
        load_model(broken)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_its_own_is_never_run(broken, name):
    path = broken / name
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoConfig": "evil.Config"}}))
    (broken / "evil.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(ValueError, match=f"code of its own \\(auto_map in {name}\\), which is never run"):
        load_model(broken)


def test_a_directory_without_tokenizer(tmp_path):
    checkpoints.save_bert(tmp_path, tokenizer=False)
    with pytest.raises(ValueError, match=r"has no tokenizer that loads"):
        load_model(tmp_path)


def test_a_class_without_flax_counterpart(broken):
    edit_config(broken, architectures=["DebertaV2Model"])
    with pytest.raises(ValueError, match=r"holds a DebertaV2Model, but transformers .* has no FlaxDebertaV2Model"):
        load_model(broken)


def test_a_configuration_without_architecture(broken):
    edit_config(broken, architectures=None)
    with pytest.raises(ValueError, match=r"names 0 architectures"):
        load_model(broken)


@pytest.mark.parametrize(
    ("version", "message"), [(None, "transformers is not installed"), ("5.1.0", "5.1.0 has no Flax")]
)
def test_transformers_missing_or_too_new(bert, monkeypatch, version, message):
    def installed(name):
        if version is None:
            raise refusals.importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(refusals.importlib.metadata, "version", installed)
    with pytest.raises(ImportError, match=f'{message}.*pip install "jaxflow-attention'):
        load_model(bert[0])
