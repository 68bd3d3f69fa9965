"""Attention handed over layer by layer: against all layers at once, bit for bit, what is held meanwhile, what is refused."""

import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from strategies import make_attention

from jaxflow import Attention, attention_flow, joint_capacities
from jaxflow.attribute import raw_attention, rollout

BATCH, LAYERS, HEADS, SOURCE, TARGET = 2, 11, 3, 5, 4
HEAD_WEIGHTS = np.random.default_rng(0).random((LAYERS, HEADS), np.float32)
OPTIONS = {
    "mean": "mean",
    "max": "max",
    "one head": 1,
    "weights": HEAD_WEIGHTS,
    "list of weights": HEAD_WEIGHTS.tolist(),
}
WHOLE = Attention(
    encoder=make_attention("softmax", 0, (BATCH, LAYERS, HEADS, SOURCE, SOURCE)),
    decoder=make_attention("causal", 1, (BATCH, LAYERS, HEADS, TARGET, TARGET)),
    cross=make_attention("softmax", 2, (BATCH, LAYERS, HEADS, TARGET, SOURCE)),
)
MASKS = {
    "encoder_mask": np.array([[1, 1, 1, 1, 1], [0, 1, 1, 1, 0]], bool),
    "decoder_mask": np.array([[1, 1, 1, 0], [1, 1, 1, 1]], bool),
}


def arrays(whole):
    """An encoder's layers, `[*batch, head, query, key]` each."""
    return (whole[..., number, :, :, :] for number in range(whole.shape[-4]))


def parts(whole):
    """One layer of every stack at a time."""
    return (jax.tree.map(lambda w, n=n: w[..., n : n + 1, :, :, :], whole) for n in range(LAYERS))


def stack_by_stack(whole):
    """The encoder's layers, then the decoder's, self-attention and cross-attention apart: as models run."""
    yield from (Attention(encoder=w[..., None, :, :, :]) for w in arrays(whole.encoder))
    for own, cross in zip(arrays(whole.decoder), arrays(whole.cross), strict=True):
        yield Attention(decoder=own[..., None, :, :, :])
        yield Attention(cross=cross[..., None, :, :, :])


def assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("heads", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("residual", [0.0, 0.3])
@pytest.mark.parametrize("masks", [{}, MASKS], ids=["whole", "padded"])
def test_three_stacks_are_those_of_all_layers_at_once(heads, residual, masks):
    expected = joint_capacities(WHOLE, heads=heads, residual=residual, **masks)
    for hand_over in (parts, stack_by_stack):
        got = joint_capacities(hand_over(WHOLE), heads=heads, residual=residual, **masks)
        assert_same(got, expected)


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize("batch", [(), (1, 2)], ids=str)
def test_bare_layers_are_those_of_an_encoder(convert, batch):
    whole = convert(make_attention("softmax", 3, (*batch, LAYERS, HEADS, SOURCE, SOURCE)))
    assert_same(joint_capacities(arrays(whole)), joint_capacities(Attention(encoder=whole)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_types(dtype):
    whole = jax.nn.softmax(3 * jax.random.normal(jax.random.key(0), (LAYERS, HEADS, SOURCE, SOURCE)).astype(dtype))
    assert_same(joint_capacities(arrays(whole), heads="max"), joint_capacities(Attention(encoder=whole), heads="max"))


def test_float64():
    with jax.enable_x64(True):
        whole = WHOLE.encoder.astype(np.float64)
        whole /= whole.sum(-1, keepdims=True)
        got = joint_capacities(arrays(whole), heads=HEAD_WEIGHTS.astype(np.float64))
        assert got.encoder.dtype == jnp.float64
        assert_same(got, joint_capacities(Attention(encoder=whole), heads=HEAD_WEIGHTS.astype(np.float64)))


def test_what_padding_holds_is_not_looked_at():
    whole = WHOLE.encoder.copy()
    whole[1, :, :, ~MASKS["encoder_mask"][1]] = np.nan
    mask = {"encoder_mask": MASKS["encoder_mask"]}
    assert_same(joint_capacities(arrays(whole), **mask), joint_capacities(Attention(encoder=whole), **mask))
    with pytest.raises(ValueError, match=r"Layer 0 .*NaN or infinite in rows that are no padding"):
        joint_capacities(arrays(whole))


def test_the_whole_pipeline_takes_layers():
    own, heads = Attention(decoder=WHOLE.decoder), {"heads": "max", "residual": 0.3}

    def layers():
        return (Attention(decoder=w[..., None, :, :, :]) for w in arrays(WHOLE.decoder))

    for attribute in (attention_flow, rollout):
        assert_same(attribute(layers(), **heads), attribute(own, **heads))
    assert_same(raw_attention(layers(), layer=3), raw_attention(own, layer=3))
    flow = attention_flow(arrays(WHOLE.encoder), encoder_mask=MASKS["encoder_mask"], positions=2)
    assert_same(flow, attention_flow(WHOLE.encoder, encoder_mask=MASKS["encoder_mask"], positions=2))


def test_under_jit_vmap_and_grad():
    weights = jnp.asarray(WHOLE.encoder)

    def loss(weights, take):
        return (joint_capacities(take(weights), heads=HEAD_WEIGHTS).encoder ** 2).sum()

    def whole(weights):
        return Attention(encoder=weights)

    for function in (jax.value_and_grad(loss), jax.vmap(loss, in_axes=(0, None))):
        got, expected = (jax.jit(function, static_argnums=1)(weights, take) for take in (arrays, whole))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, expected)


def test_one_layer_is_held_at_a_time():
    """While a layer is made, those before it are gone: else the head axis of all layers would add up."""
    made = []

    def layer(number):
        assert all(before() is None for before in made), f"layer {number} is made while another is held"
        weights = jnp.asarray(WHOLE.encoder[:, number])
        made.append(weakref.ref(weights))
        return weights

    joint_capacities(layer(number) for number in range(LAYERS))
    assert len(made) == LAYERS
    made.clear()
    joint_capacities(Attention(encoder=layer(number)[:, None]) for number in range(LAYERS))
    assert len(made) == LAYERS


# What is refused

E = WHOLE.encoder
D, X = WHOLE.decoder[:, :1], WHOLE.cross[:, :1]
BAD = {
    "empty": ([], {}, r"There are no layers.*A generator can be read only once.*Make it anew"),
    "other tokens": ([E[:, 0], E[:, 1, :, :3, :3]], {}, r"Layer 1 .*encoder has shape \(2, 3, 3, 3\).*\(2, 3, 5, 5\)"),
    "other heads": ([E[:, 0], E[:, 1, :2]], {}, r"Layer 1 .*shape \(2, 2, 5, 5\).*expected the same for all layers"),
    "other batch": ([E[:, 0], E[0, 1]], {}, r"Layer 1 .*shape \(3, 5, 5\)"),
    "nothing": ([E[:, 0], None], {}, r"Layer 1 .*got NoneType; expected one layer of an encoder, \[\*batch, head"),
    "numbers": ([E[0, 0].tolist()], {}, "Layer 0 .*got list; expected one layer"),
    "one matrix": ([E[0, 0, 0]], {}, r"Layer 0 .*got shape \(5, 5\); expected one layer"),
    "no stack": ([Attention()], {}, "Layer 0 .*holds no stack"),
    "many layers": ([Attention(encoder=E)], {}, r"Layer 0 .*and so 11 layers; expected 1.*weights\[\.\.\., None"),
    "no layer axis": ([Attention(encoder=E[:, 0])], {}, r"Layer 0 .*and so 2 layers; expected 1"),
    "oblong": ([E[:, 0, :, :3]], {}, "Layer 0 .*has 3 queries and 5 keys"),
    "no probabilities": ([E[:, 0], 2 * E[:, 1]], {}, "Layer 1 .*sums to 2; expected 1"),
    "whole numbers": ([np.ones((2, 3, 3), int)], {}, "Layer 0 .*has dtype int64"),
    "no such head": ([E[:, 0]], {"heads": 3}, "heads is 3, but Attention.encoder has 3 heads"),
    "no such reduction": ([E[:, 0]], {"heads": "median"}, "heads is 'median'"),
    "too few weights": (
        list(arrays(E)),
        {"heads": HEAD_WEIGHTS[:4]},
        "Layer 4 .*for 4 layers, and none for layer 4 of enc",
    ),
    "too many weights": ([E[:, 0]], {"heads": HEAD_WEIGHTS[:2]}, "weights for 2 layers, but 1 layers of encoder came"),
    "weights of other heads": ([E[:, 0]], {"heads": HEAD_WEIGHTS[:, :2]}, r"heads has shape \(11, 2\).*for 3 heads"),
    "weights of one layer": ([E[:, 0]], {"heads": HEAD_WEIGHTS[0]}, r"heads has shape \(3,\)"),
    "negative weights": ([E[:, 0]], {"heads": -HEAD_WEIGHTS[:1]}, "negative, NaN or infinite"),
    "residual": ([E[:, 0]], {"residual": 2.0}, "residual is 2.0"),
    "mask of other tokens": ([E[:, 0]], {"encoder_mask": np.ones((2, 4), bool)}, r"encoder_mask has shape \(2, 4\)"),
    "mask of other values": ([E[:, 0]], {"encoder_mask": np.full((2, 5), 2)}, "encoder_mask holds 2"),
    "mask of no stack": ([E[:, 0]], {"decoder_mask": np.ones((2, 4), bool)}, "decoder_mask is given, but there is no"),
    "cross alone": ([Attention(cross=X)], {}, "cross-attention without a decoder"),
    "nothing that joins": ([Attention(encoder=E[:, :1]), Attention(decoder=D)], {}, "nothing that joins them"),
    "fewer cross": (
        [Attention(decoder=D), Attention(decoder=D), Attention(cross=X)],
        {},
        "has 1 layers and the decoder has 2",
    ),
}


@pytest.mark.parametrize(("layers", "options", "message"), BAD.values(), ids=BAD)
def test_bad_layers(layers, options, message):
    with pytest.raises(ValueError, match=message):
        joint_capacities(iter(layers), **options)


def test_a_list_could_be_of_examples():
    with pytest.raises(TypeError, match=r"got list; expected an Attention .*iterator over layers \(iter\(layers\)\)"):
        joint_capacities([E[:, 0]])
    with pytest.raises(ValueError, match=r"is a list; expected one array.*or pass iter\(layers\)"):
        rollout([E[:, 0]])


def test_a_generator_that_was_read_before():
    layers = arrays(WHOLE.encoder)
    joint_capacities(layers)
    with pytest.raises(ValueError, match=r"There are no layers.*was it read before\?"):
        joint_capacities(layers)


def test_layers_of_two_precisions():
    with jax.enable_x64(True):
        wide = E[:, 1].astype(np.float64)
        wide /= wide.sum(-1, keepdims=True)
        with pytest.raises(ValueError, match=r"Layer 1 .*gives float64, after layers that gave float32"):
            joint_capacities(iter([E[:, 0], wide]))


def test_what_the_layers_raise_comes_through():
    def layers():
        yield E[:, 0]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        joint_capacities(layers())
