from importlib import resources

import flax.linen as nn
import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from jaxflow.zoo._weights import file_of, read_weights
from jaxflow.zoo.agreement import NAME, load
from zoo.weights import write_weights

FILE = file_of(NAME)


@pytest.fixture
def spoil(tmp_path):
    """Write the shipped weights with something changed."""

    def write(change):
        package = resources.files("jaxflow.zoo.agreement")
        with resources.as_file(package / FILE) as path, safetensors.safe_open(path, framework="numpy") as file:
            arrays, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
        change(arrays, metadata)
        safetensors.numpy.save_file(arrays, tmp_path / FILE, metadata=metadata)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, m: a.pop("head/bias"), r"head/bias: got nothing, expected float32\[2\]"),
        (lambda a, m: a.update(extra=a["head/bias"]), r"extra: got float32\[2\], expected nothing"),
        (lambda a, m: a.update({"head/bias": np.zeros(3, np.float32)}), r"got float32\[3\], expected float32\[2\]"),
        (lambda a, m: a.update({"head/bias": np.zeros(2, np.float16)}), r"got float16\[2\], expected float32\[2\]"),
        (lambda a, m: a.clear() or a.update(x=np.zeros(1)), r"does not fit the module: .* and \d+ more"),
        (lambda a, m: m.update(format="other"), "has the format 'other'; expected 'jaxflow-agreement-1'"),
        (lambda a, m: m.update(format="other"), r"written by `python -m zoo\.agreement\.train`"),
        (lambda a, m: m.update(vocabulary="a b"), "another vocabulary"),
    ],
)
def test_wrong_weights_are_refused(spoil, change, message):
    directory = spoil(change)
    with pytest.raises(ValueError, match=message):
        load(directory)


def test_unchanged_weights_load(spoil, trained):
    ours = load(spoil(lambda arrays, metadata: None))[0].variables
    jax.tree.map(np.testing.assert_array_equal, ours, trained[0].variables)


def test_damaged_or_missing_weights_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=FILE):
        load(tmp_path)
    (tmp_path / FILE).write_bytes(b"no weights")
    with pytest.raises(ValueError, match="no safetensors file, or a damaged one"):
        load(tmp_path)


def test_any_module_goes_to_a_file_and_back(tmp_path):
    class Both(nn.Module):
        @nn.compact
        def __call__(self, x, y):
            return nn.Dense(3, name="x")(x) + nn.Dense(3, name="y")(y)

    inputs = [np.ones((1, 2), np.float32), np.ones((1, 5), np.float32)]
    params = Both().init(jax.random.key(1), *inputs)["params"]
    path = tmp_path / file_of("a-name")
    write_weights(params, path, name="a-name", vocabulary=["[PAD]", "x"], made_by={"seed": "1"})
    read = read_weights(Both(), path, name="a-name", vocabulary=["[PAD]", "x"], inputs=inputs)
    jax.tree.map(np.testing.assert_array_equal, read, params)
    with pytest.raises(ValueError, match=r"`python -m zoo\.other_name\.train`"):
        read_weights(Both(), path, name="other-name", vocabulary=["[PAD]", "x"], inputs=inputs)
    with pytest.raises(ValueError, match=r"y/kernel: got float32\[5,3\]|x/kernel: got float32\[2, 3\], expected"):
        read_weights(Both(), path, name="a-name", vocabulary=["[PAD]", "x"], inputs=inputs[::-1])
