"""Models of other packages, where these are installed: what they compute is found without asking anything of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from capture.softmax_recorder import recorded_softmaxes
from flax import nnx

from jaxflow import as_model
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


def expected(run):
    """Run a model, and return the softmax of queries and keys of each layer, `[*batch, layer, head, query, key]`."""
    with recorded_softmaxes() as kept:
        run()
    n_tokens = IDS.shape[1]
    found = [weights for weights in kept if weights.shape[-2:] == (n_tokens, n_tokens)]
    return np.stack([weights.reshape(len(IDS), -1, n_tokens, n_tokens) for weights in found], 1)


def test_haiku(standard_promotion):
    hk = pytest.importorskip("haiku")

    def model(ids):
        x = hk.Embed(11, 16)(ids)
        for _ in range(2):
            attention = hk.MultiHeadAttention(2, 8, w_init=hk.initializers.VarianceScaling(1.0), model_size=16)
            x = x + attention(x, x, x)
            x = x + hk.Linear(16)(jax.nn.gelu(hk.Linear(32)(x)))
        return x

    transformed = hk.transform(model)
    params = transformed.init(jax.random.key(0), jnp.asarray(IDS))
    outputs, attention = capture(transformed.apply, params, None, jnp.asarray(IDS))
    np.testing.assert_allclose(outputs, transformed.apply(params, None, jnp.asarray(IDS)), atol=1e-5)
    recorded = expected(lambda: transformed.apply(params, None, jnp.asarray(IDS)))
    np.testing.assert_allclose(attention.encoder, recorded, atol=1e-6)
    with pytest.raises(TypeError, match=r"got Transformed, .*pass model.apply"):
        capture(transformed, params, None, jnp.asarray(IDS))


def test_esm2quinox(standard_promotion):
    esm2quinox = pytest.importorskip("esm2quinox")
    model = esm2quinox.ESM2(num_layers=2, embed_size=16, num_heads=2, token_dropout=True, key=jax.random.key(0))
    recorded = expected(lambda: jax.vmap(model)(jnp.asarray(IDS)))
    _, attention = capture(lambda model, ids: jax.vmap(model)(ids).logits, model, jnp.asarray(IDS))
    np.testing.assert_allclose(attention.encoder, recorded, atol=1e-6)


SMALL = {"vocabulary_size": 11, "num_layers": 2, "hidden_dim": 16, "intermediate_dim": 32}
GROUPED = SMALL | {"num_query_heads": 2, "num_key_value_heads": 1}
KERAS_HUB = {
    "BertBackbone": SMALL | {"num_heads": 2, "max_sequence_length": 8},
    "DebertaV3Backbone": SMALL | {"num_heads": 2, "max_sequence_length": 8, "bucket_size": 4},
    "GPT2Backbone": SMALL | {"num_heads": 2, "max_sequence_length": 8},
    "Gemma3Backbone": GROUPED | {"head_dim": 8, "image_size": 16},
    "MixtralBackbone": GROUPED | {"num_experts": 2, "top_k": 1},
}


@pytest.mark.parametrize("name", KERAS_HUB)
def test_keras_hub(name, standard_promotion, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    models = pytest.importorskip("keras_hub").models
    model = getattr(models, name)(**KERAS_HUB[name])
    given = {"token_ids": IDS, "padding_mask": np.ones_like(IDS), "segment_ids": np.zeros_like(IDS)}
    inputs = {each: given[each] for each in model.input}
    trained, others = (
        [each.value for each in kind] for kind in (model.trainable_variables, model.non_trainable_variables)
    )
    _, attention = capture(lambda trained, inputs: model.stateless_call(trained, others, inputs)[0], trained, inputs)
    np.testing.assert_allclose(
        attention.encoder, expected(lambda: model.stateless_call(trained, others, inputs)), atol=1e-6
    )


def test_recurrentgemma(standard_promotion):
    """Griffin: two recurrent blocks before each attention."""
    common = pytest.importorskip("recurrentgemma.common")
    griffin = pytest.importorskip("recurrentgemma.jax")
    kinds = common.TemporalBlockType
    config = griffin.GriffinConfig(
        vocab_size=11, width=32, mlp_expanded_width=48, num_heads=4, lru_width=32, embeddings_scale_by_sqrt_dim=True,
        block_types=(kinds.RECURRENT, kinds.RECURRENT, kinds.ATTENTION) * 2, attention_window_size=8, logits_soft_cap=30.0,
    )  # fmt: skip
    model, ids, positions = griffin.Griffin(config), jnp.asarray(IDS), jnp.broadcast_to(jnp.arange(6), (2, 6))
    variables = model.init(jax.random.key(0), ids, positions)
    with pytest.raises(ValueError, match=r"/Griffin/blocks.0/.*a recurrence over tokens(.|\n)*mixing='accept'"):
        capture(model, ids, positions, variables=variables)
    _, attention = capture(as_model(model, variables=variables, mixing="accept"), ids, positions)
    assert attention.mixing
    recorded = expected(lambda: model.apply(variables, ids, positions))
    np.testing.assert_allclose(attention.encoder, recorded, atol=1e-6)
