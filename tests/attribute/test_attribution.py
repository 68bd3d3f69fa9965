"""attention_flow: the whole way on attention, batches and padding, and Attribution as a PyTree."""

import operator

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import capacities_by_loops, networkx_values, scipy_values
from strategies import KINDS, attention, make_attention

from jaxflow import (
    Attention,
    AttentionFlow,
    Attribution,
    Capacities,
    attention_flow,
    capture,
    joint_capacities,
    load_model,
)
from jaxflow.attribute import rollout

SHAPE = (2, 3, 2, 4, 4)  # [batch, layer, head, query, key]
GOOD = make_attention("softmax", 0, SHAPE)
MASK = np.array([[1, 1, 1, 1], [0, 1, 1, 0]], bool)


def pairs(n_tokens):
    return [(source, sink) for sink in range(n_tokens) for source in range(n_tokens)]


# Values


@settings(deadline=None, max_examples=40)
@given(attention((3, 2, 4, 4)), st.sampled_from(("mean", "max", 1)), st.sampled_from((0.0, 0.3, 0.5, 1.0)))
def test_against_networkx_and_scipy_on_capacities_by_loops(weights, heads, residual):
    got = attention_flow(weights, heads=heads, residual=residual).encoder
    capacity = capacities_by_loops(weights, heads=heads, residual=residual)
    np.testing.assert_allclose(got.ravel(), networkx_values(capacity, pairs(4)), atol=1e-6)
    np.testing.assert_allclose(got.ravel(), scipy_values(capacity, pairs(4)), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("residual", [0, 0.5])
def test_a_sentence_of_22_tokens(kind, residual):
    weights = make_attention(kind, 7, (6, 3, 22, 22))
    got = attention_flow(weights, residual=residual).encoder
    capacity = capacities_by_loops(weights, residual=residual)
    np.testing.assert_allclose(got.ravel(), scipy_values(capacity, pairs(22)), atol=1e-6)
    some = [pairs(22)[i] for i in np.random.default_rng(0).choice(22 * 22, 15, replace=False)]
    expected = networkx_values(capacity, some)
    np.testing.assert_allclose([got[sink, source] for source, sink in some], expected, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(attention((12, 1, 3, 3)))
def test_twelve_layers_between_rollout_and_the_first_layers_column(weights):
    scores = attention_flow(weights).encoder
    first = capacities_by_loops(weights)[0]
    assert (rollout(weights).encoder <= scores + 1e-6).all()
    assert (scores <= np.minimum(1, first.sum(0)) + 1e-6).all()


@settings(deadline=None, max_examples=20)
@given(attention((1, 2, 4, 4)))
def test_one_layer_is_capacities_and_rollout(weights):
    scores = attention_flow(weights).encoder
    np.testing.assert_allclose(scores, capacities_by_loops(weights)[0], atol=1e-7)
    np.testing.assert_allclose(scores, rollout(weights).encoder, atol=1e-7)


def test_identity_and_the_residual_stream_alone_score_the_identity():
    identity = make_attention("identity", 0, (3, 2, 4, 4))
    np.testing.assert_array_equal(attention_flow(identity).encoder, np.eye(4))
    np.testing.assert_array_equal(attention_flow(identity, residual=0).encoder, np.eye(4))
    np.testing.assert_array_equal(attention_flow(GOOD[0], residual=1).encoder, np.eye(4))


@settings(deadline=None, max_examples=20)
@given(attention((3, 2, 4, 4), kinds=("causal",)))
def test_causal_attention_sends_nothing_back(weights):
    np.testing.assert_array_equal(np.triu(attention_flow(weights).encoder, 1), 0)


@pytest.mark.parametrize("n_layers", [1, 12])
def test_one_token(n_layers):
    ones = np.ones((n_layers, 2, 1, 1), np.float32)
    for residual in (0, 0.5, 1):
        np.testing.assert_array_equal(attention_flow(ones, residual=residual).encoder, [[1]])


@settings(deadline=None, max_examples=20)
@given(attention((3, 2, 4, 4)), st.permutations(range(4)))
def test_permuting_tokens_permutes_scores(weights, order):
    permuted = weights[:, :, order][:, :, :, order]
    expected = attention_flow(weights, residual=0.3).encoder[np.ix_(order, order)]
    np.testing.assert_array_equal(attention_flow(permuted, residual=0.3).encoder, expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, jnp.bfloat16])
def test_attention_of_other_types(dtype):
    weights = np.asarray(jnp.asarray(GOOD[0]).astype(dtype)) if dtype is not np.float64 else GOOD[0].astype(dtype)
    got = attention_flow(weights).encoder
    capacity = capacities_by_loops(weights.astype(np.float64))
    np.testing.assert_allclose(got.ravel(), networkx_values(capacity, pairs(4)), atol=1e-6)


@pytest.mark.weights
def test_real_attention_of_minilm(minilm_directory):
    """All pairs of a sentence, and 20 pairs of a text of 82 tokens."""
    model, tokenizer = load_model(minilm_directory)
    sentence = "The keys to the old cabinet near the doors are on the table."
    text = " ".join([sentence, "Nobody knows who left them there, or why the cabinet was locked at all."] * 4)
    for words, length, n_pairs in ((sentence, None, None), (text, 82, 20)):
        tokens = tokenizer(words, return_tensors="np", truncation=length is not None, max_length=length)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            _, captured = capture(model, **tokens)
        weights = np.asarray(captured.encoder)[0]
        n_tokens = weights.shape[-1]
        assert n_tokens == (length or 16)
        capacity = capacities_by_loops(weights)
        chosen = pairs(n_tokens)
        if n_pairs is not None:
            chosen = [chosen[i] for i in np.random.default_rng(0).choice(len(chosen), n_pairs, replace=False)]
        outputs = sorted({sink for _, sink in chosen})
        scores = attention_flow(weights, positions=outputs).encoder
        got = [scores[outputs.index(sink), source] for source, sink in chosen]
        np.testing.assert_allclose(got, networkx_values(capacity, chosen), atol=1e-6)
        np.testing.assert_allclose(got, scipy_values(capacity, chosen), atol=1e-6)


# Entries and options


def test_entered_at_any_stage():
    options = {"heads": "max", "residual": 0.3, "encoder_mask": MASK}
    expected = attention_flow(GOOD, **options)
    for entry in (jnp.asarray(GOOD), Attention(encoder=GOOD)):
        assert_same(attention_flow(entry, **options), expected)
    capacities = joint_capacities(Attention(encoder=GOOD), **options)
    assert_same(attention_flow(capacities), expected)
    assert_same(attention_flow(jax.tree.map(np.asarray, capacities)), expected)


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for leaf, same in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(leaf, same)


def test_chosen_outputs():
    everything = attention_flow(GOOD)
    assert everything.positions.tolist() == [0, 1, 2, 3]
    for outputs in ([2], [3, 0], (1, 1), np.array([0, 3]), np.int64(2), 3, jnp.array([1]), range(2)):
        got = attention_flow(GOOD, positions=outputs)
        positions = np.atleast_1d(np.asarray(outputs))
        np.testing.assert_array_equal(got.positions, positions)
        np.testing.assert_array_equal(got.encoder, everything.encoder[:, positions])
        np.testing.assert_array_equal(got.certificate.trivial, everything.certificate.trivial[:, positions])


def test_chosen_outputs_beside_padding():
    everything = attention_flow(GOOD, encoder_mask=MASK)
    got = attention_flow(GOOD, encoder_mask=MASK, positions=[2, 1])
    np.testing.assert_array_equal(got.encoder, everything.encoder[:, [2, 1]])


def test_normalised_scores_sum_to_one_and_rows_of_zeros_stay():
    capacity = np.array(joint_capacities(Attention(encoder=GOOD)).encoder)
    capacity[0, -1, 2] = 0  # nothing reaches this output
    raw = attention_flow(Capacities(encoder=capacity))
    got = AttentionFlow(normalise=True)(Capacities(encoder=capacity))
    np.testing.assert_array_equal(got.encoder[0, 2], 0)
    total = raw.encoder.sum(-1, keepdims=True)
    np.testing.assert_allclose(got.encoder, raw.encoder / np.where(total == 0, 1, total), rtol=1e-14)
    np.testing.assert_allclose(got.encoder.sum(-1), total[..., 0] > 0, rtol=1e-14)
    assert_same(got.certificate, raw.certificate)  # what was proved is the raw score
    zeros = AttentionFlow(normalise=True)(Capacities(encoder=np.zeros((2, 3, 3))))
    np.testing.assert_array_equal(zeros.encoder, 0)
    assert zeros.saturation == 0


def test_raw_by_default():
    raw = attention_flow(GOOD)
    np.testing.assert_array_equal(raw.encoder, raw.certificate.lower)
    assert (raw.encoder.sum(-1) >= 1 - 1e-6).all()
    assert raw.encoder.dtype == np.float64


# Batches and padding


@pytest.mark.parametrize(
    ("heads", "n_heads", "n_tokens", "lengths"), [("mean", 9, 16, (5, 16)), ("max", 3, 7, (1, 7, 6)), (1, 3, 7, (5, 2))]
)
def test_batch_equals_its_rows_alone_bit_for_bit(heads, n_heads, n_tokens, lengths):
    batch = np.full((len(lengths), 2, n_heads, n_tokens, n_tokens), np.nan, np.float32)
    for example, length in enumerate(lengths):
        batch[example, :, :, :length] = 0
        batch[example, :, :, :length, :length] = make_attention("softmax", example, (2, n_heads, length, length))
    mask = np.arange(n_tokens) < np.array(lengths)[:, None]
    options = {"heads": heads, "residual": 0.3}
    together = attention_flow(batch, encoder_mask=mask, **options)
    assert np.isfinite(together.encoder).all()
    for example, length in enumerate(lengths):
        row = attention_flow(batch[example], encoder_mask=mask[example], **options)
        assert_same(row.certificate, jax.tree.map(operator.itemgetter(example), together.certificate))
        np.testing.assert_array_equal(row.encoder, together.encoder[example])
        alone = attention_flow(batch[example, :, :, :length, :length], **options)
        for name in ("lower", "upper", "trivial"):
            padded = getattr(together.certificate, name)[example]
            np.testing.assert_array_equal(padded[:length, :length], getattr(alone.certificate, name))
            np.testing.assert_array_equal(padded[length:], 0)
            np.testing.assert_array_equal(padded[:, length:], 0)
        np.testing.assert_array_equal(together.encoder[example, :length, :length], alone.encoder)
        np.testing.assert_array_equal(together.encoder[example, length:], 0)
        np.testing.assert_array_equal(together.encoder[example, :, length:], 0)
        assert together.certificate.quantum[example] == alone.certificate.quantum


@settings(deadline=None, max_examples=15)
@given(attention((3, 2, 4, 4)), st.sets(st.integers(0, 3), min_size=1))
def test_padding_anywhere_is_as_if_it_were_not_there(weights, real):
    """Padding to the left, to the right and in between; where it stands, anything may stand."""
    real = sorted(real)
    alone = weights[np.ix_(range(3), range(2), real, real)]
    alone[..., 0] += alone.sum(-1) == 0
    alone = alone / alone.sum(-1, keepdims=True)
    padded = np.full((3, 2, 4, 4), np.nan, np.float32)
    padded[:, :, real] = 0
    padded[np.ix_(range(3), range(2), real, real)] = alone
    mask = np.isin(np.arange(4), real)
    got = attention_flow(padded, encoder_mask=mask).encoder
    expected = np.zeros((4, 4))
    expected[np.ix_(real, real)] = attention_flow(alone).encoder
    np.testing.assert_array_equal(got, expected)


def test_batch_axes_of_any_number():
    weights = make_attention("softmax", 1, (2, 3, *SHAPE[1:]))
    got = attention_flow(weights)
    assert got.encoder.shape == got.certificate.trivial.shape == (2, 3, 4, 4)
    assert got.certificate.quantum.shape == (2, 3)
    for index in np.ndindex(2, 3):
        np.testing.assert_array_equal(got.encoder[index], attention_flow(weights[index]).encoder)


def test_permuting_a_batch_permutes_results():
    weights = make_attention("softmax", 1, (5, 3, 2, 4, 4))
    mask = np.arange(4) < np.array([4, 1, 3, 2, 4])[:, None]
    order = np.array([3, 0, 4, 1, 2])
    got = attention_flow(weights[order], encoder_mask=mask[order])
    expected = attention_flow(weights, encoder_mask=mask)
    np.testing.assert_array_equal(got.encoder, expected.encoder[order])
    assert_same(got.certificate, jax.tree.map(lambda leaf: leaf[order], expected.certificate))


# What certifies


@pytest.mark.parametrize("kind", KINDS)
def test_certificate_and_saturation(kind):
    weights = make_attention(kind, 3, (2, 3, 2, 4, 4))
    got = attention_flow(weights)
    np.testing.assert_array_equal(got.certificate.lower, got.certificate.upper)
    saturated = np.zeros((2, 4, 4), bool)
    possible = 0
    for example in range(2):
        capacity = capacities_by_loops(weights[example])
        bound = np.minimum(capacity[0].sum(0)[None, :], capacity[-1].sum(1)[:, None])
        np.testing.assert_allclose(got.certificate.trivial[example], bound, rtol=1e-6)
        values = np.reshape(networkx_values(capacity, pairs(4)), (4, 4))
        saturated[example] = np.abs(values - bound) < 1e-6
        possible += (bound > 0).sum()
    np.testing.assert_array_equal(got.saturated, saturated)
    assert got.saturation == saturated.sum() / possible


def test_padding_is_not_saturated():
    """Under uniform attention without residual all that enters an output can come from any one input."""
    got = attention_flow(make_attention("uniform", 0, SHAPE), residual=0, encoder_mask=MASK)
    np.testing.assert_array_equal(got.encoder[0], 1)
    np.testing.assert_array_equal(got.encoder[1], 0.5 * np.outer(MASK[1], MASK[1]))
    np.testing.assert_array_equal(got.saturated, got.encoder > 0)
    assert got.saturation == 1.0


def test_bottleneck_is_not_saturated():
    capacity = np.ones((3, 2, 2))
    capacity[1] = np.diag([0.25, 0.0])
    got = attention_flow(Capacities(encoder=capacity))
    np.testing.assert_array_equal(got.encoder, 0.25)
    np.testing.assert_array_equal(got.certificate.trivial, 2)
    assert not got.saturated.any()
    assert got.saturation == 0.0


# Attribution is a PyTree


RESULTS = {
    "batch": lambda: attention_flow(GOOD, encoder_mask=MASK),
    "one example": lambda: AttentionFlow(normalise=True)(GOOD[0], positions=[2]),
    "without certificate": lambda: rollout(GOOD),
}
results = pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)


@results
def test_tree_map_and_device_get(result):
    result = result()
    assert_same(jax.device_get(result), result)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(jax.device_get(result)))
    doubled = jax.tree.map(lambda leaf: 2 * leaf, result)
    assert isinstance(doubled, Attribution)
    np.testing.assert_array_equal(doubled.encoder, 2 * result.encoder)
    with pytest.raises(AttributeError):
        result.encoder = 0


def blank(result):
    return jax.tree.map(np.zeros_like, jax.device_get(result))


@results
def test_flax_serialisation(result):
    result = result()
    assert_same(flax.serialization.from_bytes(blank(result), flax.serialization.to_bytes(result)), result)
    state = flax.serialization.to_state_dict(result)
    assert set(state) == {"encoder", "decoder", "positions", "certificate", "standard_error", "completeness_gap"}
    assert_same(flax.serialization.from_state_dict(blank(result), state), result)


@results
def test_orbax(result, tmp_path):
    result = jax.device_get(result())
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "attribution", result)
        checkpointer.wait_until_finished()
        assert_same(checkpointer.restore(tmp_path / "attribution", blank(result)), result)


def test_goes_in_and_out_of_jit():
    result = attention_flow(GOOD)
    got = jax.jit(lambda attribution: attribution.replace(encoder=attribution.encoder.sum(-1)))(result)
    np.testing.assert_allclose(got.encoder, result.encoder.sum(-1), rtol=1e-6)
    assert isinstance(jax.jit(lambda weights: rollout(weights))(GOOD), Attribution)


# What is refused


BAD_OUTPUTS = [
    (4, "Output 4 does not exist: outputs are positions 0 to 3"),
    (-1, "Output -1 does not exist"),
    ([0, 17], "Output 17 does not exist"),
    ([], r"positions is \[\]; expected a position, a sequence of positions, or None for all"),
    (1.0, "positions is 1.0; expected a position"),
    (True, "positions is True; expected a position"),
    ([[0, 1]], r"positions is \[\[0, 1\]\]; expected a position"),
    ("all", "positions is 'all'; expected a position"),
]


@pytest.mark.parametrize(("outputs", "message"), BAD_OUTPUTS, ids=[message[:24] for _, message in BAD_OUTPUTS])
def test_bad_outputs(outputs, message):
    with pytest.raises(ValueError, match=message):
        attention_flow(GOOD, positions=outputs)


BAD = [
    (GOOD, {"encoder_mask": MASK, "positions": 0}, r"Output 0 is padding in row \[1\]: there is nothing to explain"),
    (GOOD[1], {"encoder_mask": MASK[1], "positions": [1, 3]}, "Output 3 is padding: there is nothing to explain"),
    (GOOD[0, 0], {}, "forget vmap"),
    (GOOD[..., :3], {}, "4 queries and 3 keys"),
    (GOOD[:, :0], {}, "has no layers"),
    (GOOD[..., :0, :0], {}, "has no queries"),
    (GOOD[:0], {}, "has no examples"),
    (np.ones((1, 2, 3, 3), int), {}, "expected floating-point probabilities"),
    (GOOD * np.nan, {}, "NaN or infinite"),
    (GOOD - 1, {}, "before the softmax"),
    (2 * GOOD, {}, "sums to 2"),
    (list(GOOD), {}, r"is a list; expected one array.*jnp\.stack"),
    (GOOD, {"residual": -0.5}, r"residual is -0.5; expected a number in \[0, 1\]"),
    (GOOD, {"residual": 2}, "residual is 2"),
    (GOOD, {"heads": 5}, "heads is 5, but"),
    (GOOD, {"heads": "min"}, "heads is 'min'"),
    (GOOD, {"heads": np.ones((2, 3))}, r"heads has shape \(2, 3\); expected weights \(3, 2\)"),
    (GOOD, {"encoder_mask": np.zeros((2, 4))}, "all padding"),
    (GOOD, {"encoder_mask": MASK[0]}, r"encoder_mask has shape \(4,\); expected \(2, 4\)"),
    (GOOD, {"encoder_mask": 2 * MASK}, "encoder_mask holds 2; expected True or False"),
    (GOOD, {"solver": "simplex"}, r"solver is 'simplex'; expected one of .*'ortools'"),
    (Attention(), {}, "holds no stack"),
    (Attention(decoder=GOOD), {}, "The decoder looks ahead"),
    (Attention(encoder=GOOD, decoder=GOOD, cross=GOOD), {}, "The decoder looks ahead"),
    (Attention(decoder=GOOD), {"encoder_mask": MASK}, "encoder_mask is given, but there is no stack"),
    (Capacities(encoder=GOOD[:, :, 0]), {"heads": "mean"}, "heads given together with Capacities"),
    (Capacities(encoder=GOOD[:, :, 0]), {"residual": 0.5}, "residual given together with Capacities"),
    (Capacities(encoder=GOOD[:, :, 0]), {"encoder_mask": MASK}, "encoder_mask given together with Capacities"),
    (Capacities(encoder=-GOOD[:, :, 0]), {}, "negative, NaN or infinite"),
    (Capacities(encoder=GOOD[:, :, 0], encoder_mask=MASK), {}, "marks as padding"),
    (Capacities(encoder=GOOD[:, :, 0], encoder_mask=MASK[:, 1:]), {}, r"encoder_mask has shape \(2, 3\)"),
]


@pytest.mark.parametrize(("entry", "options", "message"), BAD, ids=[message[:40] for *_, message in BAD])
def test_bad_input(entry, options, message, monkeypatch):
    """Before any solve."""
    if options.get("solver") is None:
        monkeypatch.setattr("jaxflow.attribute._flow.max_flow_in_each", None)
    with pytest.raises(ValueError, match=message):
        attention_flow(entry, **options)


def test_not_under_jit_vmap_and_grad():
    message = "Attention flow is solved on the host and cannot be traced: call it outside jit"
    weights = jnp.asarray(GOOD)
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda weights: attention_flow(weights).encoder)(GOOD)
    with pytest.raises(ValueError, match=message):
        jax.vmap(lambda weights: attention_flow(weights).encoder)(GOOD)
    with pytest.raises(ValueError, match=message):
        jax.grad(lambda residual: attention_flow(weights, residual=residual).encoder.sum())(0.5)
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda x: x * attention_flow(weights).encoder)(1.0)
