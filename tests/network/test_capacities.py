"""Capacities: against loops over the definition, under JAX's transformations, with padding, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import capacities_by_loops
from strategies import attention, make_attention

from jaxflow import Attention, Capacities, attention_flow, joint_capacities
from jaxflow.attribute import rollout
from jaxflow.network import flow_network
from jaxflow.network._capacities import as_capacities, check_capacities
from jaxflow.solve import flow_bounds, flow_value

SHAPE = (2, 3, 2, 4, 4)  # [batch, layer, head, query, key]
GOOD = make_attention("softmax", 0, SHAPE)
HEAD_WEIGHTS = np.array([[0.25, 0.75], [1.0, 0.0], [0.5, 2.0]], np.float32)  # [layer, head]
HEADS = {
    "mean": "mean",
    "max": "max",
    "first": 0,
    "numpy integer": np.int64(1),
    "weights": HEAD_WEIGHTS,
    "float64 weights": HEAD_WEIGHTS.astype(np.float64),
    "list of weights": HEAD_WEIGHTS.tolist(),
    "whole weights": np.array([[1, 0], [0, 1], [2, 3]]),
}
MASK = np.array([[1, 1, 1, 1], [0, 1, 1, 0]], bool)


def encoder(weights, **options):
    return joint_capacities(Attention(encoder=weights), **options).encoder


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("residual", [0, 0.3, 0.5, 1, np.float32(0.25), np.float64(0.3)])
def test_equal_to_loops(heads, residual):
    got = encoder(GOOD[0], heads=heads, residual=residual)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(
        got, capacities_by_loops(GOOD[0], heads=heads, residual=float(residual)), rtol=3e-7, atol=1e-9
    )


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
def test_padding_has_no_arc_and_leaves_the_others_alone(heads):
    got = joint_capacities(Attention(encoder=GOOD), heads=heads, residual=0.3, encoder_mask=MASK)
    for example in range(2):
        expected = capacities_by_loops(GOOD[example], heads=heads, residual=0.3, mask=MASK[example])
        np.testing.assert_allclose(got.encoder[example], expected, rtol=3e-7, atol=1e-9)
        np.testing.assert_array_equal(got.encoder[example] == 0, expected == 0)
    np.testing.assert_array_equal(got.encoder_mask, MASK)
    assert got.encoder_mask.dtype == bool


@settings(deadline=None, max_examples=40)
@given(attention((3, 2, 4, 4)), st.sampled_from(("mean", "max", 0)), st.sampled_from((0.0, 0.3, 0.5, 1.0)))
def test_any_attention_against_loops(weights, heads, residual):
    got = np.asarray(encoder(weights, heads=heads, residual=residual))
    np.testing.assert_allclose(got, capacities_by_loops(weights, heads=heads, residual=residual), rtol=3e-7, atol=1e-37)
    if heads != "max":
        np.testing.assert_allclose(got.sum(-1), 1, atol=1e-6)


def test_defaults_are_the_mean_over_heads_and_half_of_the_residual_stream():
    np.testing.assert_array_equal(encoder(GOOD), encoder(GOOD, heads="mean", residual=0.5))
    expected = 0.5 * GOOD.mean(2) + 0.5 * np.eye(4)
    np.testing.assert_allclose(encoder(GOOD), expected, rtol=1e-6)


def test_three_stacks_and_their_masks():
    """Cross-attention has no residual stream, the decoder's queries and the encoder's keys."""
    decoder, cross = make_attention("causal", 1, (2, 3, 2, 5, 5)), make_attention("softmax", 2, (2, 3, 2, 5, 4))
    targets = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]], bool)
    got = joint_capacities(
        Attention(encoder=GOOD, decoder=decoder, cross=cross),
        residual=0.3,
        encoder_mask=MASK,
        decoder_mask=targets,
    )
    for example in range(2):
        np.testing.assert_allclose(
            got.decoder[example],
            capacities_by_loops(decoder[example], residual=0.3, mask=targets[example]),
            rtol=3e-7,
        )
    visible = targets[:, None, :, None] & MASK[:, None, None, :]
    np.testing.assert_allclose(got.cross, 0.7 * cross.mean(2) * visible, rtol=3e-7)
    np.testing.assert_array_equal(
        got.encoder, joint_capacities(Attention(encoder=GOOD), residual=0.3, encoder_mask=MASK).encoder
    )


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("heads", ["mean", "max", HEAD_WEIGHTS])
def test_narrow_types_are_computed_in_float32(dtype, heads):
    narrow = jax.nn.softmax(3 * jax.random.normal(jax.random.key(0), SHAPE).astype(dtype))
    got = encoder(narrow, heads=heads, residual=0.3)
    assert got.dtype == jnp.float32
    for example in range(2):
        wide = np.asarray(narrow[example]).astype(np.float64)
        np.testing.assert_allclose(got[example], capacities_by_loops(wide, heads=heads, residual=0.3), rtol=3e-7)


@pytest.mark.parametrize("residual", [0.3, np.float32(0.3), np.float64(0.3)])
def test_only_float64_attention_gives_float64(residual):
    with jax.enable_x64(True):
        heads = HEAD_WEIGHTS.astype(np.float64)
        assert encoder(GOOD, heads=heads, residual=residual).dtype == jnp.float32
        wide = GOOD.astype(np.float64)
        wide /= wide.sum(-1, keepdims=True)
        got = encoder(wide, heads=heads, residual=0.3)
        assert got.dtype == jnp.float64
        expected = capacities_by_loops(wide[1], heads=heads, residual=0.3)
        np.testing.assert_allclose(got[1], expected, rtol=1e-15)


def test_float64_arrays_without_x64_are_computed_in_float32():
    assert encoder(GOOD.astype(np.float64)).dtype == jnp.float32
    np.testing.assert_array_equal(encoder(GOOD.astype(np.float64)), encoder(GOOD))
    np.testing.assert_array_equal(encoder(GOOD[0].astype(np.float64)), encoder(GOOD[0]))


@pytest.mark.parametrize("heads", ["mean", "max", 1, "weights"])
@pytest.mark.parametrize(("n_heads", "n_tokens", "lengths"), [(9, 16, (5, 2, 16)), (7, 21, (12, 1))])
def test_batch_equals_its_rows_alone_bit_for_bit(heads, n_heads, n_tokens, lengths):
    n_layers = 2
    heads = np.random.default_rng(0).random((n_layers, n_heads), np.float32) if heads == "weights" else heads
    batch = np.full((len(lengths), n_layers, n_heads, n_tokens, n_tokens), np.nan, np.float32)
    for example, length in enumerate(lengths):
        alone = make_attention("softmax", example, (n_layers, n_heads, length, length))
        batch[example, :, :, :length] = 0
        batch[example, :, :, :length, :length] = alone
    mask = np.arange(n_tokens) < np.array(lengths)[:, None]
    got = np.asarray(encoder(batch, heads=heads, residual=0.3, encoder_mask=mask))
    assert np.isfinite(got).all()
    for example, length in enumerate(lengths):
        row = encoder(batch[example], heads=heads, residual=0.3, encoder_mask=mask[example])
        np.testing.assert_array_equal(got[example], row)
        alone = encoder(batch[example, :, :, :length, :length], heads=heads, residual=0.3)
        np.testing.assert_array_equal(got[example, :, :length, :length], alone)
        np.testing.assert_array_equal(got[example, :, length:], 0)
        np.testing.assert_array_equal(got[example, :, :, length:], 0)


def test_two_batch_axes():
    weights = make_attention("softmax", 5, (2, *SHAPE))
    mask = np.ones((2, 2, 4), bool)
    mask[1, 0, 2:] = False
    weights[1, 0, ..., 2:, :] = np.nan
    got = encoder(weights, encoder_mask=mask)
    for index in np.ndindex(2, 2):
        np.testing.assert_array_equal(got[index], encoder(weights[index], encoder_mask=mask[index]))


# JAX's transformations


def test_jit_gives_the_same():
    jitted = jax.jit(
        lambda weights, residual, heads, mask: encoder(weights, residual=residual, heads=heads, encoder_mask=mask)
    )
    got = jitted(GOOD, 0.3, HEAD_WEIGHTS, MASK)
    np.testing.assert_allclose(got, encoder(GOOD, residual=0.3, heads=HEAD_WEIGHTS, encoder_mask=MASK), rtol=5e-7)


def test_jit_over_attention_it_closes_over():
    weights = jnp.asarray(GOOD)
    got = jax.jit(lambda residual: encoder(weights, residual=residual, encoder_mask=MASK))(0.3)
    np.testing.assert_allclose(got, encoder(GOOD, residual=0.3, encoder_mask=MASK), rtol=5e-7)
    with pytest.raises(ValueError, match="sums to 2"):
        jax.jit(lambda residual: encoder(2 * GOOD, residual=residual))(0.3)
    with pytest.raises(ValueError, match="heads holds weights that are negative"):
        jax.jit(lambda weights: encoder(weights, heads=-HEAD_WEIGHTS))(GOOD)


def test_vmap_is_the_batch():
    got = jax.vmap(lambda weights, mask: encoder(weights, residual=0.3, encoder_mask=mask))(GOOD, MASK)
    np.testing.assert_array_equal(got, encoder(GOOD, residual=0.3, encoder_mask=MASK))


def test_vmap_over_head_weights_and_residuals():
    many = np.stack([HEAD_WEIGHTS, HEAD_WEIGHTS[::-1]])
    got = jax.vmap(lambda heads, residual: encoder(GOOD[0], heads=heads, residual=residual))(
        many, np.array([0.25, 0.75], np.float32)
    )
    for row, residual in enumerate((0.25, 0.75)):
        np.testing.assert_allclose(got[row], encoder(GOOD[0], heads=many[row], residual=residual), rtol=5e-7)


def test_gradients_in_closed_form():
    """With `C = (1 - r) sum_h w_h A_h + r I` and loss `sum(U * C)`, every derivative is one line."""
    upstream = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    visible = (MASK[:, None, :, None] & MASK[:, None, None, :]) * upstream

    def loss(weights, residual, heads):
        return (upstream * encoder(weights, residual=residual, heads=heads, encoder_mask=MASK)).sum()

    for_weights, for_residual, for_heads = jax.grad(loss, argnums=(0, 1, 2))(GOOD, 0.3, HEAD_WEIGHTS)
    np.testing.assert_allclose(
        for_weights, 0.7 * HEAD_WEIGHTS[:, :, None, None] * visible[:, :, None], rtol=1e-6, atol=1e-7
    )
    mixed = np.einsum("lh,blhqk->blqk", HEAD_WEIGHTS, GOOD)
    np.testing.assert_allclose(for_residual, (visible * (np.eye(4) - mixed)).sum(), rtol=1e-5)
    np.testing.assert_allclose(for_heads, 0.7 * np.einsum("blqk,blhqk->lh", visible, GOOD), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("heads", ["mean", "max", 1, "weights"])
def test_what_padding_holds_reaches_no_gradient(heads):
    padded = GOOD.copy()
    padded[1, :, :, ~MASK[1]] = np.nan
    padded[1, :, :, :, ~MASK[1]] = np.nan  # of real queries too: under jit nothing is checked

    @jax.jit
    def gradients(weights, residual, head_weights):
        def loss(weights, residual, head_weights):
            chosen = head_weights if heads == "weights" else heads
            return encoder(weights, residual=residual, heads=chosen, encoder_mask=MASK).sum()

        return jax.value_and_grad(loss, argnums=(0, 1, 2))(weights, residual, head_weights)

    for leaf in jax.tree.leaves(gradients(padded, 0.3, HEAD_WEIGHTS)):
        assert np.isfinite(leaf).all()


# What is refused

BAD_OPTIONS = [
    ({"residual": -0.1}, r"residual is -0.1; expected a number in \[0, 1\]"),
    ({"residual": 1.0001}, "residual is 1.0001"),
    ({"residual": np.nan}, "residual is nan"),
    ({"residual": np.inf}, "residual is inf"),
    ({"heads": "median"}, "heads is 'median'; expected 'mean', 'max', the index of a head, or weights"),
    ({"heads": 2}, "heads is 2, but Attention.encoder has 2 heads: expected 0 to 1"),
    ({"heads": -1}, "heads is -1, but"),
    ({"heads": np.int32(7)}, "heads is 7, but"),
    ({"heads": True}, r"heads has shape \(\); expected weights \(3, 2\)"),
    ({"heads": 1.0}, r"heads has shape \(\)"),
    ({"heads": HEAD_WEIGHTS.T}, r"heads has shape \(2, 3\); expected weights \(3, 2\), \[layer, head\]"),
    ({"heads": HEAD_WEIGHTS[0]}, r"heads has shape \(2,\)"),
    ({"heads": HEAD_WEIGHTS - 1}, "heads holds weights that are negative, NaN or infinite"),
    ({"heads": HEAD_WEIGHTS * np.nan}, "heads holds weights that are negative, NaN or infinite"),
    ({"heads": jnp.asarray(HEAD_WEIGHTS + np.inf)}, "heads holds weights that are negative, NaN or infinite"),
    ({"encoder_mask": np.ones((2, 3), bool)}, r"encoder_mask has shape \(2, 3\); expected \(2, 4\)"),
    ({"encoder_mask": MASK & [True, False, False, True]}, r"all padding in row \[1\]"),
    ({"decoder_mask": MASK}, "decoder_mask is given, but there is no stack"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS, ids=[message[:40] for _, message in BAD_OPTIONS])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        encoder(GOOD, **options)


def test_attention_is_checked():
    with pytest.raises(ValueError, match="forget vmap"):
        encoder(GOOD[0, 0])
    with pytest.raises(ValueError, match="sums to 2"):
        encoder(2 * GOOD)


@pytest.mark.parametrize(
    "options", [{"heads": "mean"}, {"residual": 0.5}, {"encoder_mask": MASK}, {"decoder_mask": MASK}]
)
def test_options_that_come_too_late(options):
    capacities = joint_capacities(Attention(encoder=GOOD))
    with pytest.raises(ValueError, match=f"{next(iter(options))} given together with Capacities.*joint_capacities"):
        as_capacities(capacities, **options)
    assert as_capacities(capacities) is capacities


def test_pipeline_is_entered_at_any_stage():
    expected = joint_capacities(Attention(encoder=GOOD), heads="max", residual=0.3)
    for entry in (GOOD, jnp.asarray(GOOD), Attention(encoder=GOOD)):
        np.testing.assert_array_equal(as_capacities(entry, heads="max", residual=0.3).encoder, expected.encoder)
    np.testing.assert_array_equal(as_capacities(GOOD).encoder, encoder(GOOD))
    with pytest.raises(ValueError, match=r"is a tuple.*jnp\.stack\(layers, axis=-4\)"):
        as_capacities(tuple(GOOD))


C = np.full((2, 3, 4, 4), 0.25)
CUT = C * MASK[:, None, :, None] * MASK[:, None, None, :]
BAD_CAPACITIES = [
    (Capacities(), "Capacities hold no stack"),
    (Capacities(encoder=C[0, 0]), r"shape \(4, 4\); expected at least rank 3.*forget vmap"),
    (Capacities(encoder=C[..., :3]), "has 4 queries and 3 keys"),
    (Capacities(encoder=C[:, :0]), r"no examples, layers or tokens: its shape is \(2, 0, 4, 4\)"),
    (Capacities(encoder=C[:0]), "no examples, layers or tokens"),
    (Capacities(encoder=C[..., :0, :0]), "no examples, layers or tokens"),
    (Capacities(encoder=-C), "negative, NaN or infinite"),
    (Capacities(encoder=0 * C - 1e-300), "negative, NaN or infinite"),
    (Capacities(decoder=C * np.nan), "Capacities.decoder holds values that are negative, NaN or infinite"),
    (Capacities(encoder=jnp.asarray(C * np.inf)), "negative, NaN or infinite"),
    (Capacities(encoder=CUT, encoder_mask=MASK[:, :3]), r"encoder_mask has shape \(2, 3\); expected \(2, 4\)"),
    (Capacities(encoder=CUT, decoder_mask=MASK), "decoder_mask is given, but there is no stack"),
    (Capacities(encoder=C, encoder_mask=MASK), "encoder has arcs of tokens that encoder_mask marks as padding"),
    (Capacities(encoder=C * MASK[:, None, None, :], encoder_mask=MASK), "marks as padding"),
    (Capacities(encoder=C * MASK[:, None, :, None], encoder_mask=MASK), "marks as padding"),
    (Capacities(encoder=CUT, encoder_mask=0 * MASK), "all padding in row"),
]


@pytest.mark.parametrize(("capacities", "message"), BAD_CAPACITIES, ids=[message[:40] for _, message in BAD_CAPACITIES])
def test_bad_capacities(capacities, message):
    with pytest.raises(ValueError, match=message):
        check_capacities(capacities)


def test_good_capacities():
    check_capacities(Capacities(encoder=CUT, encoder_mask=MASK))
    check_capacities(Capacities(encoder=CUT, encoder_mask=MASK.astype(int)))
    check_capacities(Capacities(encoder=1e30 * C[0]))
    check_capacities(Capacities(decoder=C[0], cross=C[0, :, :, :2], decoder_mask=np.ones(4, bool)))
    check_capacities(Capacities(encoder=0 * C[0]))
    with pytest.raises(ValueError, match="cross has arcs of tokens that encoder_mask marks as padding"):
        check_capacities(Capacities(decoder=C[0], cross=C[0, :, :, :2], encoder_mask=np.array([True, False])))
    own = C[0] * (np.arange(4) < 3) * (np.arange(4) < 3)[:, None]
    with pytest.raises(ValueError, match="cross has arcs of tokens that decoder_mask marks as padding"):
        check_capacities(Capacities(decoder=own, cross=C[0, :, :, :2], decoder_mask=np.arange(4) < 3))


@pytest.mark.parametrize("take", [attention_flow, flow_network, flow_bounds, rollout, flow_value])
def test_nested_lists_are_no_capacities(take):
    nested = Capacities(encoder=[[[0.5, 0.5], [0.5, 0.5]]])
    further = (0, 0) if take is flow_value else ()
    with pytest.raises(ValueError, match=r"Capacities\.encoder is a list; expected one array.*np\.asarray\(encoder\)"):
        take(nested, *further)
