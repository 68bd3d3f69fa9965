"""Encoder, decoder and cross-attention of functions, told by what queries and keys are computed of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from capture.traced_models import B, D, H, T, attend, causal, encoder, layers, norm, parameters, tokens

from jaxflow._attention import check_attention
from jaxflow.capture import capture

P = {"encoder": parameters(2), "self": parameters(2, seed=3), "cross": parameters(2, seed=4)}
SOURCE, TARGET = tokens(seed=1), tokens(seed=2)


def decode(params, memory, y, *, kept=None):
    """One decoder layer for each of the parameters: causal self-attention, then cross-attention."""
    kept = {"decoder": [], "cross": []} if kept is None else kept
    for own, other in zip(layers(params["self"]), layers(params["cross"]), strict=True):
        y = y + attend(own, norm(y), bias=jnp.broadcast_to(causal(), (B, H, T, T)), kept=kept["decoder"])
        y = y + attend(other, norm(y), memory, kept=kept["cross"])
    return y


def seq2seq(params, x, y, *, kept=None):
    kept = {"encoder": [], "decoder": [], "cross": []} if kept is None else kept
    memory = norm(encoder(params["encoder"], x, kept=kept["encoder"]))
    return decode(params, memory, y, kept=kept)


def with_positions(params, x, y):
    positions = jnp.broadcast_to(tokens(T, D), (B, T, D))
    return seq2seq(params, x + positions, y + positions)


def of_itself(params, x, y):
    """The target is made of the source: both stacks read one argument."""
    return seq2seq(params, x, jnp.roll(x, 1, axis=1))


def scanned(params, x, y):
    memory = jax.lax.scan(lambda x, p: (x + attend(p, norm(x)), None), x, params["encoder"])[0]

    def step(y, p):
        y = y + attend(p["self"], norm(y), bias=jnp.broadcast_to(causal(), (B, H, T, T)))
        return y + attend(p["cross"], norm(y), norm(memory)), None

    return jax.lax.scan(step, y, {"self": params["self"], "cross": params["cross"]})[0]


def decoder_first(params, x, y):
    """The order in which stacks run says nothing."""
    own, other = layers(params["self"]), layers(params["cross"])
    y = y + attend(own[0], norm(y), bias=jnp.broadcast_to(causal(), (B, H, T, T)))
    memory = norm(encoder(params["encoder"], x))
    y = y + attend(other[0], norm(y), memory)
    y = y + attend(own[1], norm(y), bias=jnp.broadcast_to(causal(), (B, H, T, T)))
    return y + attend(other[1], norm(y), memory)


@pytest.mark.parametrize("model", [seq2seq, with_positions, of_itself, scanned, decoder_first])
def test_encoder_decoder(model):
    """Source and target of one length."""
    _, attention = capture(model, P, SOURCE, TARGET)
    check_attention(attention)
    if model in (with_positions, of_itself):
        assert attention.encoder.shape == attention.decoder.shape == attention.cross.shape == (B, 2, H, T, T)
        assert np.triu(attention.decoder, 1).max() == 0
        assert np.triu(attention.cross, 1).max() > 0
        return
    kept = {"encoder": [], "decoder": [], "cross": []}
    seq2seq(P, SOURCE, TARGET, kept=kept)
    for role, weights in kept.items():
        np.testing.assert_allclose(getattr(attention, role), jnp.stack(weights, 1), atol=2e-6)


def test_encoder_that_came_ready():
    _, attention = capture(decode, P, SOURCE, TARGET)
    assert attention.encoder is None
    assert attention.cross.shape == attention.decoder.shape == (B, 2, H, T, T)


def test_keys_of_an_earlier_layer_are_the_same_tokens():
    def model(params, x):
        first = x
        for p in layers(params):
            x = x + attend(p, norm(x), norm(first))
        return x

    _, attention = capture(model, P["self"], SOURCE)
    assert attention.encoder.shape == (B, 2, H, T, T)


def towers(p, x, y):
    return encoder(p["encoder"], x).mean(1) @ encoder(p["self"], y).mean(1).T


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (towers, r"/0/ and /2/ attend over different tokens:\n  /0/(.|\n)*/3/(.|\n)*jax.named_scope"),
    ],
)
def test_doubt(model, message):
    with pytest.raises(ValueError, match=message):
        capture(model, P, SOURCE, TARGET)


def test_what_is_said_counts():
    def model(p, x, y):
        with jax.named_scope("text"):
            x = encoder(p["encoder"], x)
        with jax.named_scope("image"):
            y = encoder(p["self"], y)
        with jax.named_scope("joined"):
            return attend(layers(p["cross"])[0], y, x)

    _, known = capture(model, P, SOURCE, TARGET)
    assert known.encoder is not None
    said = {"/text/": "decoder", "/image/": "encoder", "/4/": "cross"}
    _, attention = capture(model, P, SOURCE, TARGET, roles=said)
    np.testing.assert_array_equal(attention.decoder, known.encoder)
    np.testing.assert_array_equal(attention.encoder, known.decoder)
    np.testing.assert_array_equal(attention.cross, known.cross)
    _, attention = capture(encoder, P["self"], SOURCE, roles={"": "decoder"})
    assert attention.encoder is None
    with pytest.raises(ValueError, match=r"roles names 'txt', which is in the path(.|\n)*/text/0/"):
        capture(model, P, SOURCE, TARGET, roles={"txt": "decoder"})
