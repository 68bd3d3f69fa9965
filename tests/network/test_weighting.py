"""Capacities of gradients: against the formulas, and flows over rows that do not sum to 1 against independent solvers."""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import graph, networkx_value
from strategies import make_attention

from jaxflow import Attention, attention_flow, flow_network, joint_capacities, min_cut
from jaxflow.attribute.shapley import set_shapley
from jaxflow.solve import barrier_flow, flow_bounds

SHAPE = (2, 3, 2, 4, 4)
A = make_attention("softmax", 0, SHAPE)
G = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)


def weighted(weights=A, gradients=G, *, weighting="attention_gradient", **options):
    return joint_capacities(
        Attention(encoder=weights), weighting=weighting, gradients=Attention(encoder=gradients), **options
    )


@pytest.mark.parametrize("residual", [0.0, 0.5])
@pytest.mark.parametrize(("weighting", "product"), [("gradient", G), ("attention_gradient", A * G)])
def test_formulas(weighting, product, residual):
    expected = (1 - residual) * np.maximum(product, 0).mean(-3) + residual * np.eye(4)
    np.testing.assert_allclose(weighted(weighting=weighting, residual=residual).encoder, expected, rtol=1e-6)
    largest = (1 - residual) * np.maximum(product, 0).max(-3) + residual * np.eye(4)
    got = weighted(weighting=weighting, residual=residual, heads="max").encoder
    np.testing.assert_allclose(got, largest, rtol=1e-6)


def test_attention_alone_is_as_ever():
    np.testing.assert_array_equal(
        joint_capacities(Attention(encoder=A), weighting="attention").encoder,
        joint_capacities(Attention(encoder=A)).encoder,
    )


def test_transformations_and_padding():
    jitted = jax.jit(lambda a, g: weighted(a, g).encoder)(A, G)
    np.testing.assert_allclose(jitted, weighted().encoder, rtol=1e-6)
    mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], bool)
    broken = G.copy()
    broken[0, ..., 3], broken[0, ..., 3, :] = np.nan, np.inf
    got = weighted(gradients=broken, encoder_mask=mask)
    np.testing.assert_array_equal(got.encoder[0, :, :3, :3], weighted(A, G).encoder[0, :, :3, :3])
    assert not got.encoder[0, :, 3].any()
    assert not got.encoder[0, :, :, 3].any()
    narrow = weighted(A.astype(jnp.bfloat16), jnp.asarray(G, jnp.bfloat16))
    assert narrow.encoder.dtype == jnp.float32


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 1e-2, 1.0, 50.0]), st.sampled_from([0.0, 0.3, 0.5]), st.data())
def test_flows_over_rows_of_any_sum(seed, scale, residual, data):
    rng = np.random.default_rng(seed)
    shape = (3, 2, 5, 5)
    weights = make_attention("softmax", seed, shape)
    gradients = (scale * rng.normal(size=shape)).astype(np.float32)
    capacities = weighted(
        weights, gradients, residual=residual, weighting=data.draw(st.sampled_from(["gradient", "attention_gradient"]))
    )
    result = attention_flow(capacities)
    proof, values = result.certificate, result.encoder
    capacity = np.asarray(capacities.encoder, np.float64)
    expected = np.array([[networkx_value(capacity, i, o) for i in range(5)] for o in range(5)])
    tolerance = 200 * float(proof.quantum)
    np.testing.assert_allclose(values, expected, atol=tolerance)
    assert proof.exact.all()
    assert (values <= proof.trivial + tolerance).all()
    reference = attention_flow(capacities, solver="ortools").encoder
    np.testing.assert_allclose(values, reference, atol=tolerance)

    network = flow_network(capacities)
    assert (np.asarray(flow_bounds(capacities)) >= values - tolerance - 1e-5 * scale).all()
    source, sink = data.draw(st.integers(0, 4)), data.draw(st.integers(0, 4))
    cut = min_cut(network, network.inputs[source], network.outputs[sink])
    assert abs(cut.value - expected[sink, source]) <= tolerance
    joined = graph(capacity)
    joined.add_edges_from(("all inputs", (0, player)) for player in range(5))  # without capacity: of any
    together = nx.maximum_flow_value(joined, "all inputs", (len(capacity), sink))
    shares = set_shapley(network, network.outputs[sink])
    np.testing.assert_allclose(shares.values.sum(), together, atol=tolerance)
    if expected[sink, source] > 1e-9:
        flow = barrier_flow(network, network.inputs[source], network.outputs[sink])
        assert flow.value <= expected[sink, source] + tolerance


def test_scores_scale_with_the_target_without_residual():
    once, thrice = (attention_flow(weighted(gradients=k * G, residual=0.0)).encoder for k in (1, 3))
    np.testing.assert_allclose(thrice, 3 * once, rtol=1e-5, atol=1e-6)


def test_refusals():
    with pytest.raises(ValueError, match="weighting is 'grad'; expected one of 'attention', 'gradient'"):
        weighted(weighting="grad")
    with pytest.raises(ValueError, match=r"weighting='gradient' needs gradients="):
        joint_capacities(Attention(encoder=A), weighting="gradient")
    with pytest.raises(ValueError, match="does not use them"):
        weighted(weighting="attention")
    with pytest.raises(
        ValueError, match=r"gradients.encoder has shape \(3, 2, 4, 4\); expected shape \(2, 3, 2, 4, 4\)"
    ):
        weighted(gradients=G[0])
    with pytest.raises(ValueError, match=r"gradients\.encoder has nothing"):
        joint_capacities(Attention(encoder=A), weighting="gradient", gradients=Attention(decoder=G))
    with pytest.raises(ValueError, match="1 values that are NaN"):
        weighted(gradients=np.where(np.arange(G.size).reshape(G.shape) == 7, np.nan, G))
    with pytest.raises(ValueError, match="layers one by one"):
        joint_capacities(iter(A[0]), weighting="gradient", gradients=Attention(encoder=G))


def test_what_a_mask_hides_stays_hidden():
    weights = jnp.tril(jnp.full((1, 1, 3, 3), 0.5))
    rows = Attention(decoder=weights / weights.sum(-1, keepdims=True))
    capacities = joint_capacities(
        rows, weighting="gradient", gradients=Attention(decoder=jnp.ones((1, 1, 3, 3))), residual=0.0
    )
    np.testing.assert_array_equal(capacities.decoder[0], np.tril(np.ones((3, 3))))
