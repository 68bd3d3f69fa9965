"""Where two backends reach a model, they take the same attention; and what came from where makes no difference."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models
from capture.linen_models import DECLARED, HOSTILE, Block, Deep, Own, Scanned, X, build
from flax.core import freeze

from jaxflow._attention import STACKS, Attention
from jaxflow.capture import capture

LINEN = {
    "deep": Deep(),
    "twelve": Deep(HOSTILE),
    "two attentions a layer": Deep(two=True),
    "remat": Deep(block=nn.remat(Block)),
    "scan": Scanned(),
    "scan and remat": Scanned(block=nn.remat(Block), axes=freeze(DECLARED)),
    "own softmax": Own(),
}


def assert_agree(one, other, atol=1e-6):
    for name in STACKS:
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None), name
        if a is not None:
            np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), atol=atol)


@pytest.mark.parametrize("model", LINEN.values(), ids=LINEN)
def test_linen_and_traced(model):
    variables = build(model)
    _, sown = capture(model, X, variables=variables)
    _, traced = capture(model.apply, variables, X)
    assert (sown.backend, traced.backend) == ("linen", "traced")
    assert_agree(sown, traced)


TRANSFORMERS = ["Bert", "Albert", "DistilBert", "ViT", "GPT2", "GPTNeo", "Llama", "Mistral", "Bloom", "Bart", "T5"]
ROLES = {name: {"": "decoder"} for name in tiny_models.DECODERS}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_and_traced(name, standard_promotion):
    model, inputs = tiny_models.build(name), tiny_models.inputs(name)
    _, known = capture(model, **inputs)
    run = functools.partial(type(model).__call__, model)
    _, traced = capture(
        lambda params, inputs: run(**inputs, params=params), model.params, inputs, roles=ROLES.get(name)
    )
    assert (known.backend, traced.backend) == ("transformers", "traced")
    assert_agree(known, traced)


class TestProvenance:
    def captured(self):
        return Attention(
            encoder=jnp.ones((1, 1, 2, 2)), provenance=capture(Deep(), X, variables=build(Deep()))[1].provenance
        )

    def test_it_is_no_leaf_and_makes_no_difference(self):
        captured, made = self.captured(), Attention(encoder=jnp.ones((1, 1, 2, 2)))
        assert (captured.backend, made.backend) == ("linen", None)
        assert len(jax.tree.leaves(captured)) == 1
        assert jax.tree.structure(captured) == jax.tree.structure(made)
        assert hash(jax.tree.structure(captured)) == hash(jax.tree.structure(made))
        both = jax.tree.map(jnp.add, captured, made)
        assert both.backend == "linen"
        np.testing.assert_array_equal(both.encoder, 2)

    def test_jit_compiles_once(self):
        traces = []

        @jax.jit
        def double(attention):
            traces.append(attention.backend)
            return jax.tree.map(lambda weights: 2 * weights, attention)

        double(self.captured())
        double(Attention(encoder=jnp.ones((1, 1, 2, 2))))
        assert traces == ["linen"]

    def test_it_survives_jit_vmap_and_replace(self):
        captured = self.captured()
        assert jax.jit(lambda a: a)(captured).backend == "linen"
        assert jax.vmap(lambda a: a)(captured).backend == "linen"
        assert captured.replace(encoder=None).backend == "linen"
        assert "linen" not in repr(captured)

    def test_scan_carries_either(self):
        captured, made = self.captured(), Attention(encoder=jnp.ones((1, 1, 2, 2)))
        carried, _ = jax.lax.scan(lambda _, x: (made, None), captured, jnp.arange(2))
        np.testing.assert_array_equal(carried.encoder, 1)
