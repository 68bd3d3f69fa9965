"""Attention: what is accepted, and what is refused with which words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from strategies import KINDS, make_attention

from jaxflow import Attention
from jaxflow._attention import check_attention

SHAPE = (2, 3, 2, 4, 4)  # [batch, layer, head, query, key]
GOOD = make_attention("softmax", 0, SHAPE)


def changed(index, value, weights=GOOD):
    weights = np.array(weights)
    weights[index] = value
    return weights


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (12, 1, 3, 3), SHAPE, (2, *SHAPE)])
def test_attention_is_accepted(kind, shape):
    check_attention(Attention(encoder=make_attention(kind, 1, shape)))
    check_attention(Attention(decoder=jnp.asarray(make_attention(kind, 2, shape))))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("n_tokens", [2, 77, 512])
@pytest.mark.parametrize("scale", [0.0, 1.0, 8.0])
def test_softmax_in_a_narrow_type_is_accepted(dtype, n_tokens, scale):
    scores = scale * jax.random.normal(jax.random.key(n_tokens), (1, 2, n_tokens, n_tokens))
    check_attention(Attention(encoder=jax.nn.softmax(scores.astype(dtype))))


@pytest.mark.parametrize(
    ("dtype", "wrong"), [(jnp.float32, 5e-4), (jnp.float16, 0.01), (jnp.bfloat16, 0.05), (np.float64, 5e-4)]
)
@pytest.mark.parametrize("sign", [-1, 1])
def test_rows_are_checked_to_the_precision_of_their_type(dtype, wrong, sign):
    weights = np.full((1, 1, 4, 4), 0.25)
    weights[0, 0, 2, 1] += sign * wrong
    weights = weights if dtype is np.float64 else jnp.asarray(weights, dtype)
    with pytest.raises(
        ValueError, match=r"row \[0, 0, 2\] .* sums to (0|1)\.\d+; expected 1 within .*after the softmax"
    ):
        check_attention(Attention(encoder=weights))


def test_cross_attention_has_its_own_length():
    cross, decoder = (make_attention("softmax", 0, (2, 3, 2, 5, n_keys)) for n_keys in (7, 5))
    attention = Attention(decoder=decoder, cross=cross)
    check_attention(attention)
    check_attention(attention, encoder_mask=np.arange(7) < [[7], [2]], decoder_mask=np.arange(5) < [[1], [5]])
    with pytest.raises(
        ValueError, match=r"decoder_mask has shape \(2, 7\); expected \(2, 5\) to fit the decoder stack"
    ):
        check_attention(attention, decoder_mask=np.ones((2, 7), bool))
    with pytest.raises(ValueError, match=r"encoder_mask has shape \(2, 5\); expected \(2, 7\) to fit the cross stack"):
        check_attention(attention, encoder_mask=np.ones((2, 5), bool))


BAD_SHAPES = [
    (Attention(), "holds no stack: encoder, decoder and cross are all None"),
    (Attention(encoder=GOOD[0, 0]), r"shape \(2, 4, 4\), which is rank 3; expected at least rank 4.*forget vmap"),
    (Attention(cross=GOOD[0, 0, 0]), r"Attention.cross has shape \(4, 4\).*forget vmap"),
    (Attention(encoder=GOOD[..., :3]), "encoder has 4 queries and 3 keys.*belongs in `cross`"),
    (Attention(decoder=GOOD[..., :3, :]), "decoder has 3 queries and 4 keys"),
    (Attention(encoder=GOOD[:0]), r"has no examples: its shape is \(0, 3, 2, 4, 4\)"),
    (Attention(encoder=GOOD[:, :0]), "has no layers"),
    (Attention(encoder=GOOD[:, :, :0]), "has no heads"),
    (Attention(encoder=GOOD[..., :0, :0]), r"has no queries \(tokens\)"),
    (Attention(cross=GOOD[..., :0]), r"has no keys \(tokens\)"),
    (Attention(encoder=GOOD.astype(int)), "has dtype int64; expected floating-point probabilities"),
    (Attention(encoder=GOOD > 0), "has dtype bool"),
    (Attention(encoder=GOOD.astype(complex)), "has dtype complex128"),
    (Attention(encoder=tuple(GOOD)), r"is a tuple; expected one array.*jnp\.stack\(layers, axis=-4\)"),
    (Attention(encoder=GOOD.tolist()), "is a list; expected one array"),
]


@pytest.mark.parametrize(("attention", "message"), BAD_SHAPES, ids=[message[:30] for _, message in BAD_SHAPES])
def test_bad_shape_or_type(attention, message):
    with pytest.raises(ValueError, match=message):
        check_attention(attention)


def test_tuple_of_layers_stacks_as_the_message_says():
    layers = tuple(GOOD[:, layer] for layer in range(3))  # as models of transformers return them
    np.testing.assert_array_equal(jnp.stack(layers, axis=-4), GOOD)
    np.testing.assert_array_equal(jnp.stack([layer[0] for layer in layers], axis=-4), GOOD[0])


BAD_VALUES = [
    (changed((0, 1, 0, 2, 1), np.nan), "encoder holds 1 values that are NaN or infinite.*pass the padding mask"),
    (changed((0, 1, 0, 2), np.inf), "holds 4 values that are NaN or infinite"),
    (changed((1, 0, 0, 0), [-0.5, 0.5, 0.5, 0.5]), "holds -0.5; expected probabilities >= 0.*before the softmax"),
    (changed((1, 0, 0, 0), [-1e-30, 0.5, 0.25, 0.25]), "holds -1e-30"),
    (changed((1, 2, 1, 3), 0), r"row \[1, 2, 1, 3\] \(.*\) sums to 0; expected 1"),
    (2 * GOOD, r"sums to 2; expected 1 within 0.0001 \(float32\)"),
    (np.log(GOOD), "before the softmax"),
]


@pytest.mark.parametrize(("weights", "message"), BAD_VALUES, ids=[message[:30] for _, message in BAD_VALUES])
@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_bad_values(weights, message, convert):
    with pytest.raises(ValueError, match=message):
        check_attention(Attention(encoder=convert(weights)))


@pytest.mark.parametrize("stack", ["encoder", "decoder", "cross"])
def test_every_stack_is_checked(stack):
    bad = dict.fromkeys(("encoder", "decoder", "cross"), GOOD) | {stack: 2 * GOOD}
    with pytest.raises(ValueError, match=f"Attention.{stack}: row"):
        check_attention(Attention(**bad))


@pytest.mark.parametrize("junk", [np.nan, -7.0, 0.0, np.inf])
def test_rows_of_padding_may_hold_anything(junk):
    mask = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])
    padded = changed((1, slice(None), slice(None), 3), junk)
    check_attention(Attention(encoder=padded), encoder_mask=mask)
    with pytest.raises(ValueError, match=r"Attention\.encoder"):
        check_attention(Attention(encoder=padded), encoder_mask=mask[::-1])
    # In cross-attention the queries are the decoder's.
    check_attention(Attention(decoder=padded, cross=padded), decoder_mask=mask)
    with pytest.raises(ValueError, match=r"Attention\.cross"):
        check_attention(Attention(decoder=GOOD, cross=padded), encoder_mask=mask)


BAD_MASKS = [
    ({"encoder_mask": np.ones(4)}, r"encoder_mask has shape \(4,\); expected \(2, 4\) to fit the encoder stack"),
    ({"encoder_mask": np.ones((2, 5))}, r"encoder_mask has shape \(2, 5\)"),
    ({"encoder_mask": np.ones((4, 2))}, r"encoder_mask has shape \(4, 2\)"),
    ({"encoder_mask": np.full((2, 4), 0.5)}, r"encoder_mask holds 0.5; expected True or False \(1 or 0\)"),
    ({"encoder_mask": np.full((2, 4), np.nan)}, "encoder_mask holds nan"),
    ({"encoder_mask": np.full((2, 4), -10000)}, "encoder_mask holds -10000"),
    ({"encoder_mask": np.zeros((2, 4), bool)}, r"encoder_mask is all padding in row \[0\]"),
    ({"encoder_mask": np.array([[1, 0, 0, 0], [0, 0, 0, 0]])}, r"all padding in row \[1\]: there is no token"),
    ({"decoder_mask": np.ones((2, 4), bool)}, "decoder_mask is given, but there is no stack that it could mask"),
]


@pytest.mark.parametrize(("masks", "message"), BAD_MASKS, ids=[message[:40] for _, message in BAD_MASKS])
def test_bad_masks(masks, message):
    with pytest.raises(ValueError, match=message):
        check_attention(Attention(encoder=GOOD), **masks)


def test_all_padding_without_a_batch():
    with pytest.raises(ValueError, match="encoder_mask is all padding: there is no token"):
        check_attention(Attention(encoder=GOOD[0]), encoder_mask=np.zeros(4, bool))


def test_masks_of_any_kind_that_holds_zeros_and_ones():
    for dtype in (bool, np.int32, np.float32):
        check_attention(Attention(encoder=GOOD), encoder_mask=np.ones((2, 4), dtype))
        check_attention(Attention(encoder=GOOD), encoder_mask=jnp.ones((2, 4), dtype))
    check_attention(Attention(encoder=GOOD), encoder_mask=[[1, 1, 1, 1], [1, 0, 0, 1]])


def test_shapes_are_checked_under_jit_and_values_where_there_are_values():
    check = jax.jit(lambda weights: check_attention(Attention(encoder=weights)))
    check(GOOD)
    check(2 * GOOD)  # has no values yet
    with pytest.raises(ValueError, match="forget vmap"):
        check(GOOD[0, 0])
    good, bad = jnp.asarray(GOOD), jnp.asarray(2 * GOOD)
    assert jax.jit(lambda x: (check_attention(Attention(encoder=good)), 2 * x)[1])(1.0) == 2
    with pytest.raises(ValueError, match="sums to 2"):
        jax.jit(lambda x: (check_attention(Attention(encoder=bad)), 2 * x)[1])(1.0)
    jax.vmap(lambda weights: check_attention(Attention(encoder=weights)))(GOOD)


def test_attention_is_a_pytree():
    attention = Attention(encoder=GOOD)
    assert len(jax.tree.leaves(attention)) == 1
    doubled = jax.tree.map(lambda leaf: 2 * leaf, attention)
    assert doubled.decoder is None
    np.testing.assert_array_equal(doubled.encoder, 2 * GOOD)
