import json
import pickle

import numpy as np
import pytest

from jaxflow import load
from jaxflow.explain import _storage as storage


@pytest.fixture
def record():
    return {"a": np.arange(3.0), "b": (1, "two", None, True), "c": {"d": np.float32(0.1)}}


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_round_trip(record, tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    storage.write(path, storage.dump(record, suffix))
    loaded = storage.load(path)
    np.testing.assert_array_equal(loaded["a"], record["a"])
    assert loaded["b"] == record["b"]
    assert loaded["c"]["d"].dtype == np.float32
    assert loaded["c"]["d"] == record["c"]["d"]


def test_another_ending(record, tmp_path):
    with pytest.raises(ValueError, match=r"Cannot save as '\.pkl'"):
        storage.dump(record, ".pkl")
    with pytest.raises(ValueError, match=r"Cannot load 'x\.html'"):
        storage.load(tmp_path / "x.html")


@pytest.mark.parametrize("value", [object(), np.array([object()]), {1, 2}])
def test_what_is_not_plain_is_not_saved(value):
    with pytest.raises(ValueError, match="Cannot save a"):
        storage.dump({"x": value}, ".npz")


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "x.json")


@pytest.mark.parametrize("suffix", [".json", ".npz"])
@pytest.mark.parametrize("keep", [0, 10, -10])
def test_files_cut_off(record, tmp_path, suffix, keep):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(storage.dump(record, suffix)[:keep])
    with pytest.raises(ValueError, match="damaged or cut off"):
        load(path)


def test_a_file_with_flipped_bits(tmp_path):
    path = tmp_path / "x.npz"
    data = bytearray(storage.dump({"a": np.random.default_rng(0).random(1000)}, ".npz"))
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.npz is damaged"):
        load(path)


def test_python_objects_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "x.npz", header=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="holds Python objects, which are never unpickled"):
        load(tmp_path / "x.npz")
    (tmp_path / "y.npz").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match="cannot be read"):
        load(tmp_path / "y.npz")


def test_another_version(record, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**json.loads(storage.dump(record, ".json")), "format_version": 3}))
    with pytest.raises(ValueError, match="format version 3; this jaxflow reads version 5"):
        load(path)


@pytest.mark.parametrize("content", ["{}", "[1]", '{"format": "something else"}'])
def test_a_file_of_someone_else(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match="is no jaxflow explanation"):
        load(tmp_path / "x.json")


def test_a_record_that_is_no_explanation(record, tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(storage.dump(record, ".json"))
    with pytest.raises(ValueError, match="is damaged: a part of the explanation is missing"):
        load(path)


def test_an_array_that_does_not_fit(tmp_path):
    content = json.loads(storage.dump({"a": np.arange(3.0)}, ".json"))
    content["content"]["a"]["shape"] = [4]
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="an array is missing or does not fit"):
        storage.load(tmp_path / "x.json")
