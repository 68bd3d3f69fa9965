"""Models of other packages, where these are installed: what they compute is found without asking anything of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxflow.capture import capture

IDS = np.arange(12).reshape(2, 6) % 11


@pytest.mark.parametrize("window", [None, 2])
def test_penzai(window, standard_promotion):
    pz = pytest.importorskip("penzai.pz")
    llama = pytest.importorskip("penzai.models.transformer.variants.llamalike_common")
    attends = llama.AttentionTypeGlobalCausal() if window is None else llama.AttentionTypeSlidingWindowCausal(window)
    config = llama.LlamalikeTransformerConfig(
        num_kv_heads=2, query_head_multiplier=2, embedding_dim=16, projection_dim=4, mlp_hidden_dim=20,
        num_decoder_blocks=3, vocab_size=11, mlp_variant="swiglu", tie_embedder_and_logits=False, rope_wavelength=1e4,
        rms_norm_eps=1e-6, attention_type=attends, parameter_dtype=jnp.float32, activation_dtype=jnp.float32,
    )  # fmt: skip
    model = llama.build_llamalike_transformer(config, init_base_rng=jax.random.key(0))
    ids = pz.nx.wrap(jnp.asarray(IDS), "batch", "seq")
    outputs, attention = capture(model, ids)
    np.testing.assert_allclose(
        outputs.unwrap("batch", "seq", "vocabulary"), model(ids).unwrap("batch", "seq", "vocabulary"), atol=1e-5
    )
    assert attention.encoder.shape == (2, 3, 4, 6, 6)
    np.testing.assert_allclose(attention.encoder.sum(-1), 1, atol=1e-5)
    assert np.triu(attention.encoder, 1).max() == 0
    seen = np.tril(attention.encoder, 0 if window is None else 1 - window)
    assert (np.tril(attention.encoder, -window).max() == 0) if window else seen.min() == 0


def test_equinox(standard_promotion):
    eqx = pytest.importorskip("equinox")
    layers = [
        eqx.nn.MultiheadAttention(num_heads=2, query_size=8, key=key) for key in jax.random.split(jax.random.key(0), 3)
    ]
    x = jax.random.normal(jax.random.key(1), (2, 5, 8))

    def model(layers, x):
        for layer in layers:
            x = x + layer(x, x, x)
        return x

    def by_hand(x):
        found = []
        for layer in layers:
            q, k = (jax.vmap(p)(x).reshape(5, 2, 4) for p in (layer.query_proj, layer.key_proj))
            found.append(jax.nn.softmax(jnp.einsum("thf,shf->hts", q, k) / 2))
            x = x + layer(x, x, x)
        return jnp.stack(found)

    _, attention = capture(eqx.filter_jit(jax.vmap(model, (None, 0))), layers, x)
    np.testing.assert_allclose(attention.encoder, jax.vmap(by_hand)(x), atol=1e-6)


@pytest.mark.parametrize("remat", ["NONE", "DECODER"])
def test_tunix(remat, standard_promotion):
    llama = pytest.importorskip("tunix.models.llama3.model")
    config = llama.ModelConfig(
        num_layers=3, vocab_size=11, embed_dim=16, hidden_dim=20, num_heads=4, head_dim=8, num_kv_heads=2,
        rope_theta=10000, norm_eps=1e-6, remat_config=llama.RematConfig[remat],
    )  # fmt: skip
    model = llama.Llama3(config, rngs=nnx.Rngs(0))
    seen = jnp.broadcast_to(jnp.tril(jnp.ones((6, 6), bool)), (2, 6, 6))
    _, attention = capture(model, jnp.asarray(IDS), jnp.broadcast_to(jnp.arange(6), (2, 6)), None, seen)
    assert attention.encoder.shape == (2, 3, 4, 6, 6)
    np.testing.assert_allclose(attention.encoder.sum(-1), 1, atol=1e-5)
    assert np.triu(attention.encoder, 1).max() == 0
