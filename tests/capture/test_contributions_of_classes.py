"""Contributions of classes of transformers that differ in their units, norms, positions and stacks."""

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("transformers", "4", exc_type=ImportError)

from tiny_models import CONFIGS, WITH_GENERATION, build, inputs

from jaxflow.capture import capture_contributions

pytestmark = pytest.mark.usefixtures("standard_promotion")
POSITION = 3  # padded in none of the inputs
# Post-norm, shared layers, NumPy tables of relative positions, convolutions, windows, gated units, rotary positions, slopes,
# states from outside, RMSNorm with relative positions, sounds.
NAMES = (
    "Bert",
    "Albert",
    "Beit",
    "Wav2Vec2",
    "GPTNeo",
    "Gemma",
    "Bloom",
    "GPT2 with cross-attention",
    "MT5",
    "Whisper",
)


def largest(outputs):
    """The number of a position that is farthest from 0, for each example."""
    row = getattr(outputs, "logits", getattr(outputs, "last_hidden_state", None))[:, POSITION]
    return jnp.take_along_axis(row, jnp.abs(row).argmax(-1)[:, None], -1)[:, 0]


@pytest.mark.parametrize("name", NAMES)
def test_add_up_and_nothing_comes_from_padding_or_later_tokens(name):
    assert name in CONFIGS
    model, given = build(name, WITH_GENERATION.get(name)), inputs(name)
    outputs, _, found = capture_contributions(model, target=largest, **given)
    np.testing.assert_allclose(found.value, largest(outputs), rtol=1e-6)
    together = sum(np.asarray(tokens).sum(-1) for tokens in found.inputs.values())
    np.testing.assert_allclose(together, found.value, rtol=1e-5)
    stack = next(iter(found.inputs))
    mask = given.get("attention_mask")
    if mask is not None:
        assert np.abs(np.asarray(found.inputs[stack if "cross" not in name else "decoder"])[mask == 0]).max() == 0
    if "decoder" in found.inputs:
        assert np.abs(found.inputs["decoder"][:, POSITION + 1 :]).max() == 0
    assert all(np.abs(tokens).max() > 0 for tokens in found.inputs.values())
