"""Which stack the attention of a linen model belongs to: by its path, by its inputs, or as the user says."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from capture.linen_models import Deep, Own, X, assert_same, build

from jaxflow.capture import capture

Y = jax.random.normal(jax.random.key(7), X.shape)  # a target as long as the source
STACKS = ("encoder", "decoder", "cross")


def attend(name=None):
    return nn.MultiHeadDotProductAttention(num_heads=2, name=name)


class Layer(nn.Module):
    """A layer of an encoder or, given a source, of a decoder; names run against the order."""

    itself: str = "z"
    other: str = "a"

    @nn.compact
    def __call__(self, x, source=None):
        x = x + attend(self.itself)(x)
        return x if source is None else x + attend(self.other)(x, source)


class Stack(nn.Module):
    n_layers: int = 2
    layer: Any = Layer

    @nn.compact
    def __call__(self, x, source=None):
        for i in range(self.n_layers):
            x = self.layer(name=f"layer_{9 - i}")(x, source)
        return x


class Both(nn.Module):
    """Encoder and decoder; the decoder's first layer runs before the encoder, so order tells nothing."""

    names: tuple[str, str] = ("encoder", "decoder")
    layer: Any = Layer

    @nn.compact
    def __call__(self, x, y=Y):
        source = Stack(3, self.layer, name=self.names[0])(x)
        return Stack(2, self.layer, name=self.names[1])(y, source)


def expected(model, variables):
    """All weights by their path, by flax's own means."""
    _, state = model.apply(variables, X, mutable=["intermediates"])
    assert not state.get("intermediates")

    def ask(call, args, kwargs, context):
        is_attention = isinstance(context.module, nn.MultiHeadDotProductAttention) and context.method_name == "__call__"
        return call(*args, **kwargs, **({"sow_weights": True} if is_attention else {}))

    with nn.intercept_methods(ask):
        _, state = model.apply(variables, X, mutable=["intermediates"])
    return state["intermediates"]


def take(tree, *paths):
    return jnp.stack([tree_at(tree, path)["attention_weights"][0] for path in paths], -4)


def tree_at(tree, path):
    for name in path.split("/"):
        tree = tree[name]
    return tree


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (("encoder", "decoder"), None),
        (("TextEncoder_0", "TextDecoder_0"), None),
        (("reader", "writer"), {"reader": "encoder", "writer": "decoder", "/a/": "cross"}),
        (
            ("reader", "writer"),
            {"": "decoder", "/reader": "encoder", "writer/layer_9/a": "cross", "layer_8/a/": "cross"},
        ),
        (("decoder", "encoder"), {"decoder": "encoder", "/encoder": "decoder", "/a/": "cross"}),  # named perversely
    ],
)
def test_encoder_and_decoder(names, roles):
    model = Both(names)
    variables = build(model)
    outputs, attention = capture(model, X, variables=variables, roles=roles)
    assert_same(outputs, model.apply(variables, X))
    weights, (reader, writer) = expected(model, variables), names
    np.testing.assert_allclose(
        attention.encoder, take(weights, *(f"{reader}/layer_{i}/z" for i in (9, 8, 7))), atol=1e-6
    )
    np.testing.assert_allclose(attention.decoder, take(weights, *(f"{writer}/layer_{i}/z" for i in (9, 8))), atol=1e-6)
    np.testing.assert_allclose(attention.cross, take(weights, *(f"{writer}/layer_{i}/a" for i in (9, 8))), atol=1e-6)


def test_a_target_of_another_length():
    model = Both()
    _, attention = capture(model, X, X[:, :3], variables=build(model))
    assert [getattr(attention, name).shape for name in STACKS] == [(2, 3, 2, 5, 5), (2, 2, 2, 3, 3), (2, 2, 2, 3, 5)]


def test_a_decoder_alone():
    model = Deep()
    variables = build(model)
    _, as_encoder = capture(model, X, variables=variables)
    _, attention = capture(model, X, variables=variables, roles={"": "decoder"})
    np.testing.assert_array_equal(attention.decoder, as_encoder.encoder)
    assert attention.encoder is attention.cross is None
    _, bound = capture(model.bind(variables), X, roles={"": "decoder"})
    assert_same(bound, attention)


def test_a_decoder_alone_by_its_path():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Stack(name="decoder")(x)

    _, attention = capture(Model(), X, variables=build(Model()))
    assert attention.decoder.shape == (2, 2, 2, 5, 5)
    assert attention.encoder is attention.cross is None


class Sows(nn.Module):
    """Computes attention by itself, and tells nobody what its keys are."""

    @nn.compact
    def __call__(self, x, source=None):
        keys = x if source is None else source
        weights = jax.nn.softmax(jnp.einsum("...qd,...kd->...qk", nn.Dense(8)(x), keys))[..., None, :, :]
        self.sow("intermediates", "attention_weights", weights)
        return x + weights[..., 0, :, :] @ keys


@pytest.mark.parametrize("cross", ["cross_attention", "encoder_attn", "EncDecAttention", "encoder_decoder_attention"])
def test_cross_attention_by_its_name(cross):
    class Sower(nn.Module):
        @nn.compact
        def __call__(self, x, source=None):
            x = Sows(name="self_attention")(x)
            return x if source is None else Sows(name=cross)(x, source)

    model = Both(layer=Sower)
    _, attention = capture(model, X, variables=build(model))
    assert [getattr(attention, name).shape[1] for name in STACKS] == [3, 2, 2]
    _, same = capture(model, X, variables=build(model), roles={"": "decoder", "/encoder": "encoder", cross: "cross"})
    assert_same(same, attention)


def test_a_name_with_cross_in_it_is_not_enough():
    class CrossFormer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Stack(name="cross_former")(Stack(name="cross_encoder")(x))

    _, attention = capture(CrossFormer(), X, variables=build(CrossFormer()))
    assert attention.encoder.shape[1] == 4
    assert attention.cross is None


def test_scanned_decoder():
    class Step(nn.Module):
        @nn.compact
        def __call__(self, y, source):
            return Layer()(y, source), None

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, y=Y):
            source = Stack(name="encoder")(x)
            axes = {"params": 0, "intermediates": 0}
            scan = nn.scan(Step, axes, split_rngs={"params": True}, in_axes=nn.broadcast, length=3)
            return scan(name="decoder")(y, source)[0]

    _, attention = capture(Model(), X, variables=build(Model()))
    assert [getattr(attention, name).shape[1] for name in STACKS] == [2, 3, 3]
    np.testing.assert_allclose(attention.cross.sum(-1), 1, atol=1e-5)


# What cannot be told.


class Crosses(nn.Module):
    n_queries: int = 5

    @nn.compact
    def __call__(self, x):
        y = attend("itself")(x)
        return attend("other")(y[..., : self.n_queries, :], x)


@pytest.mark.parametrize("n_queries", [3, 5])  # as many queries as keys: the shape does not tell
def test_cross_attention_without_a_decoder(n_queries):
    model = Crosses(n_queries)
    variables = build(model)
    message = (
        r"of Crosses belongs to cannot be told. Keys and queries of these are different arrays.*:\n  /other/\n.*roles="
    )
    with pytest.raises(ValueError, match=message):
        capture(model, X, variables=variables)
    _, attention = capture(model, X, variables=variables, roles={"": "encoder", "other": "cross"})
    assert attention.encoder.shape == (2, 1, 2, 5, 5)
    assert attention.cross.shape == (2, 1, 2, n_queries, 5)


class Calls(nn.Module):
    """Calls whatever it is given."""

    function: Any

    @nn.compact
    def __call__(self, x):
        return self.function(x)


def tied(x):
    layer = attend("decoder")
    return layer(layer(x), x)


def unnamed_beside_a_decoder(x):
    return attend("pooler")(Stack(name="decoder")(x))


def no_self_attention(x):
    return attend("decoder")(x + 1.0, x + 1.0, x)


def unjoined(x):
    return Stack(name="decoder")(Stack(name="encoder")(x))


def hidden_cross(x):
    source = Sows(name="encoder")(x)
    return Sows(name="decoder_1")(Sows(name="decoder_0")(Y), source)


def only_cross(x):
    return Sows(name="cross")(Y, x)


def longer(x):
    return Sows(name="decoder")(Y[:, :3], x)


@pytest.mark.parametrize(
    ("function", "message", "roles"),
    [
        (tied, r"Keys and queries of these are different arrays, unlike others of the decoder:\n  /decoder/\n", None),
        (
            unnamed_beside_a_decoder,
            r"Their paths do not tell the stack of these:\n  /pooler/\n",
            {"pooler": "decoder"},
        ),
        (no_self_attention, r"Keys and queries of these are different arrays", {"": "decoder"}),
        (unjoined, r"Attention of decoder and encoder alone was found, and none that joins", {"": "encoder"}),
        (hidden_cross, r"Attention of decoder and encoder alone was found", {"decoder_1": "cross"}),
    ],
)  # fmt: skip
def test_what_cannot_be_told(function, message, roles):
    model = Calls(function)
    variables = build(model)
    with pytest.raises(ValueError, match=message):
        capture(model, X, variables=variables)
    if roles:
        capture(model, X, variables=variables, roles=roles)


@pytest.mark.parametrize(("function", "n_queries"), [(only_cross, 5), (longer, 3)])
def test_queries_that_never_read_each_other_are_a_decoder_of_their_own(function, n_queries):
    model = Calls(function)
    _, attention = capture(model, X, variables=build(model))
    assert attention.encoder is None
    assert attention.cross.shape == (2, 1, 1, n_queries, 5)
    np.testing.assert_array_equal(
        attention.decoder, np.broadcast_to(np.eye(n_queries), (2, 1, 1, n_queries, n_queries))
    )


def test_roles_that_are_none():
    model = Deep()
    variables = build(model)
    with pytest.raises(ValueError, match=r"roles\['c'\] is 'Encoder'; expected 'encoder', 'decoder' or 'cross'"):
        capture(model, X, variables=variables, roles={"c": "Encoder"})
    with pytest.raises(
        ValueError, match=r"roles names 'cross', which is in the path of no.* Deep. There are:\n  /c/z/\n"
    ):
        capture(model, X, variables=variables, roles={"": "decoder", "cross": "cross"})
    assert (
        capture(Own("probs"), X, variables=build(Own("probs")), sown="probs", roles={"": "decoder"})[1].decoder.ndim
        == 5
    )
