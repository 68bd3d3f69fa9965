"""Capacities of models of transformers, heads reduced as they are computed, and what XLA holds meanwhile."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxflow import capture, joint_capacities
from jaxflow.network import capture_capacities


class Deep(nn.Module):
    n_layers: int = 12

    @nn.compact
    def __call__(self, x):
        for _ in range(self.n_layers):
            x = x + nn.MultiHeadDotProductAttention(num_heads=8)(x)
        return x


def test_what_xla_holds_under_jit():
    model, x = Deep(), jax.random.normal(jax.random.key(0), (1, 64, 8))
    variables = jax.eval_shape(model.init, jax.random.key(1), x)

    def whole(variables, x):
        return joint_capacities(capture(model, x, variables=variables)[1])

    def streamed(variables, x):
        return capture_capacities(model, x, variables=variables)[1]

    held = [
        jax.jit(function).lower(variables, x).compile().memory_analysis().temp_size_in_bytes
        for function in (whole, streamed)
    ]
    heads_of_a_layer = 8 * 64 * 64 * 4
    assert held[0] > 12 * heads_of_a_layer
    assert held[1] < 4 * heads_of_a_layer


@pytest.mark.parametrize("name", ["Bert", "GPT2", "Marian"])
def test_models_of_transformers(name, standard_promotion):
    pytest.importorskip("transformers", "4", exc_type=ImportError)
    from tiny_models import build, inputs

    model, given = build(name), inputs(name)
    plain, attention = capture(model, **given)
    n_layers, n_heads = jax.tree.leaves(attention)[0].shape[-4:-2]
    masks = {"encoder_mask": given["attention_mask"]} if name == "Bert" else {}
    for heads in ("mean", np.random.default_rng(0).random((n_layers, n_heads), np.float32)):
        outputs, got = capture_capacities(model, **given, heads=heads, residual=0.3, **masks)
        expected = joint_capacities(attention, heads=heads, residual=0.3, **masks)
        for one, other in ((got, expected), (outputs, plain)):
            assert jax.tree.structure(one) == jax.tree.structure(other)
            jax.tree.map(np.testing.assert_array_equal, one, other)


def test_models_of_transformers_under_jit(standard_promotion):
    pytest.importorskip("transformers", "4", exc_type=ImportError)
    from tiny_models import build, inputs

    model, given = build("Bert"), inputs("Bert")
    streamed = jax.jit(functools.partial(capture_capacities, model))
    expected = joint_capacities(capture(model, **given)[1])
    np.testing.assert_allclose(streamed(**given)[1].encoder, expected.encoder, atol=1e-6)
    with pytest.raises(ValueError, match="variables=, sown=, roles= and mixing= are for others"):
        capture_capacities(model, **given, variables=model.params)
    with pytest.raises(ValueError, match="heads is 4, but encoder/layer/0/attention/self has 4 heads"):
        capture_capacities(model, **given, heads=4)
