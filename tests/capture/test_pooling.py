"""Pooling by attention: learned queries over the last layer are an output node that reads it, whichever way it is taken."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from capture.traced_models import B, D, T, attend, encoder, layers, norm, parameters, tokens
from flax import nnx

from jaxflow import attention_flow, attention_gradients, capture, capture_contributions, explain, joint_capacities

HEADS = 2


class MapHead(nn.Module):
    """As the ViTs of big_vision and SigLIP pool: queries that are parameters, over the tokens of the last layer."""

    n_queries: int = 1

    @nn.compact
    def __call__(self, x):
        for i in range(3):
            x = x + nn.MultiHeadDotProductAttention(num_heads=HEADS, name=f"layer{i}")(nn.LayerNorm()(x))
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, self.n_queries, x.shape[-1]))
        probe = jnp.tile(probe, [x.shape[0], 1, 1])
        y = nn.MultiHeadDotProductAttention(num_heads=HEADS, name="pool")(probe, x)
        y = y + nn.Dense(D)(nn.gelu(nn.Dense(2 * D)(nn.LayerNorm()(y))))
        return nn.Dense(3)(y.mean(1))


class NnxMapHead(nnx.Module):
    def __init__(self, sows):
        rngs = nnx.Rngs(0)
        self.attention = nnx.List(
            [nnx.MultiHeadAttention(num_heads=HEADS, in_features=D, decode=False, rngs=rngs) for _ in range(3)]
        )
        self.probe = nnx.Param(tokens(1, 1, D, seed=4))
        self.head = nnx.Linear(D, 3, rngs=rngs)
        self.sows = sows

    def __call__(self, x):
        *each, pool = self.attention
        for attention in each:
            x = x + attention(x, sow_weights=self.sows)
        probe = jnp.tile(self.probe[...], (x.shape[0], 1, 1))
        return self.head(pool(probe, x, sow_weights=self.sows)[:, 0])


def sown(model, variables, x):
    """What the modules of flax sow by themselves when they are asked to: `[batch, head, query, key]`, by name."""

    def ask(call, args, kwargs, context):
        asked = isinstance(context.module, nn.MultiHeadDotProductAttention) and context.method_name == "__call__"
        return call(*args, **kwargs, **({"sow_weights": True} if asked else {}))

    with nn.intercept_methods(ask):
        _, state = model.apply(variables, x, mutable="intermediates")
    return {name: each["attention_weights"][0] for name, each in state["intermediates"].items()}


@pytest.mark.parametrize("n_queries", [1, 4])
@pytest.mark.parametrize("way", ["linen", "apply", "jit"])
def test_linen(n_queries, way):
    model, x = MapHead(n_queries), tokens()
    variables = model.init(jax.random.key(0), x)
    if way == "linen":
        outputs, attention = capture(model, x, variables=variables)
    elif way == "apply":
        outputs, attention = capture(model.apply, variables, x)
    else:
        outputs, attention = jax.jit(lambda v, x: capture(model, x, variables=v))(variables, x)
    expected = sown(model, variables, x)
    np.testing.assert_allclose(outputs, model.apply(variables, x), atol=1e-5)
    np.testing.assert_allclose(attention.encoder, jnp.stack([expected[f"layer{i}"] for i in range(3)], 1), atol=1e-5)
    np.testing.assert_allclose(attention.cross, expected["pool"][:, None], atol=1e-5)
    np.testing.assert_array_equal(
        attention.decoder, np.broadcast_to(np.eye(n_queries), (B, 1, HEADS, n_queries, n_queries))
    )


@pytest.mark.parametrize("sows", [False, True])
def test_nnx(sows):
    _, attention = capture(NnxMapHead(sows), tokens())
    module = NnxMapHead(True)
    module(tokens())
    weights = [each.attention_weights.get_value()[0] for each in module.attention]
    np.testing.assert_allclose(attention.encoder, jnp.stack(weights[:2], 1), atol=1e-5)
    np.testing.assert_allclose(attention.cross[:, 0], weights[2], atol=1e-5)


def pooled(params, probe, x, kept=None):
    x = encoder(params, x, kept=kept)
    query = jnp.broadcast_to(probe, (x.shape[0], *probe.shape))
    return attend(layers(params)[0], query, norm(x), kept=kept)[:, 0]


def test_a_function():
    params, probe, x = parameters(2), tokens(1, D, seed=4), tokens()
    _, attention = capture(pooled, params, probe, x)
    kept = []
    pooled(params, probe, x, kept=kept)
    np.testing.assert_allclose(attention.encoder, jnp.stack(kept[:2], 1), atol=1e-5)
    np.testing.assert_allclose(attention.cross[:, 0], kept[2], atol=1e-5)


def test_flow_reads_the_last_layer():
    """Of one layer of attention, the scores are the best of all ways: through one token of the layer below."""
    params, probe, x = parameters(1), tokens(1, D, seed=4), tokens()
    attention = capture(pooled, params, probe, x)[1]
    scores = attention_flow(attention).encoder[:, 0]
    capacities = joint_capacities(attention)
    first, last = np.asarray(capacities.encoder[:, 0]), np.asarray(capacities.cross[:, 0, 0])
    expected = np.minimum(first, last[..., None]).sum(1)  # two steps: what each token below takes and hands on
    np.testing.assert_allclose(scores, np.minimum(expected, 0.5), atol=1e-6)


def test_contributions_sum_to_the_target_and_the_query_gives_what_no_token_does():
    params, probe, x = parameters(2), tokens(1, D, seed=4), tokens()
    outputs, _, contributions = capture_contributions(pooled, params, probe, x, target=lambda y: y[:, 3])
    inputs = contributions.inputs
    np.testing.assert_allclose(inputs["encoder"].sum(-1) + inputs["decoder"].sum(-1), outputs[:, 3], atol=1e-5)
    np.testing.assert_allclose(inputs["decoder"], 0, atol=1e-5)  # no bias, and no residual stream around the pooling
    _, _, gradients = attention_gradients(pooled, params, probe, x, target=lambda y: y[:, 3])
    assert gradients.decoder.shape == (B, 1, 2, 1, 1)
    np.testing.assert_array_equal(gradients.decoder, 0)


def test_explain_has_one_output_and_names_the_query():
    model, x = MapHead(), tokens()[:1]
    explanation = explain(model, x, variables=model.init(jax.random.key(0), x))
    assert explanation.decoder_tokens == ("query",)
    assert len(explanation.encoder_tokens) == T
    assert explanation.scores.shape == (1, T + 1)


def test_a_first_token_that_reads_all_is_still_refused():
    """Its query comes from a token of the last layer, which the network would lose."""

    def model(params, x):
        x = encoder(params, x)
        return attend(layers(params)[0], x[:, :1], x)

    with pytest.raises(ValueError, match="Queries and keys of one sequence differ in number"):
        capture(model, parameters(2), tokens())
