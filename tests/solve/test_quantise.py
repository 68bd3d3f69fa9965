"""quantise: as fine as int64 allows, and never farther off than it says."""

from fractions import Fraction

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import exact_value
from strategies import capacities, make_attention

from jaxflow import Capacities, flow_network, max_flow
from jaxflow.solve._quantise import quantise

INT64 = 2**63 - 1


def network_of(capacity):
    return flow_network(Capacities(encoder=capacity))


def capacities_far_apart(seed, n_layers, n_tokens, span):
    """Powers of 10 from -span to span, or to 300."""
    rng = np.random.default_rng(seed)
    return 10.0 ** rng.uniform(-span, min(span, 300), size=(n_layers, n_tokens, n_tokens))


wild = st.builds(
    capacities_far_apart,
    st.integers(0, 2**32 - 1),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from((0.1, 9, 30, 150, 330)),  # 330 reaches down to what float64 holds no more
)


@settings(deadline=None, max_examples=60)
@given(st.one_of(wild, capacities((1, 12), (1, 6))))
def test_every_capacity_is_within_half_a_quantum(capacity):
    network = network_of(capacity)
    quantised = quantise(network)
    assert quantised.capacity.dtype == quantised.leaving.dtype == quantised.entering.dtype == np.int64
    assert np.frexp(quantised.quantum)[0] == 0.5  # a power of 2
    assert (quantised.capacity >= 1).all()
    # Exactly, in Python's integers: as fine as can be, and far from an overflow.
    total = sum(quantised.capacity.tolist())
    assert total < 2**61 < INT64
    if quantised.quantum > 2.0**-1022:
        assert total > 2**59
    # Arcs in the network's order; those of less than half a quantum are gone.
    kept = dict(zip(zip(quantised.senders, quantised.receivers, strict=True), quantised.capacity.tolist(), strict=True))
    for sender, receiver, number in zip(network.senders, network.receivers, np.ravel(capacity).tolist(), strict=True):
        quanta = kept.get((sender, receiver), 0)
        assert abs(Fraction(number) - quanta * Fraction(quantised.quantum)) <= Fraction(quantised.quantum) / 2


@settings(deadline=None, max_examples=30)
@given(wild)
def test_value_is_within_half_a_quantum_for_each_arc(capacity):
    """Against a solver of integers of any length, which rounds nothing."""
    network = network_of(capacity)
    n_tokens = capacity.shape[-1]
    flow = max_flow(network, network.encoder_inputs, network.outputs[:, None])
    for sink, source in np.ndindex(n_tokens, n_tokens):
        exact = exact_value(capacity, source, sink)
        bound = capacity.size * Fraction(flow.quantum) / 2 + exact * Fraction(2) ** -52
        assert abs(Fraction(flow.value[sink, source]) - exact) <= bound


@pytest.mark.parametrize(("n_layers", "n_tokens"), [(1, 1), (1, 7), (2, 3), (6, 22), (12, 16), (6, 128)])
def test_documented_bound_for_rows_that_sum_to_one(n_layers, n_tokens):
    capacity = make_attention("softmax", 0, (n_layers, n_tokens, n_tokens))
    quantum = quantise(network_of(capacity)).quantum
    assert quantum / 2 * capacity.size < n_layers**2 * n_tokens**3 * 2.0**-60


def test_leaving_and_entering_are_exact_sums():
    capacity = make_attention("sparse", 0, (3, 5, 5))
    quantised = quantise(network_of(capacity))
    leaving, entering = [0] * 20, [0] * 20
    for sender, receiver, quanta in zip(
        quantised.senders.tolist(), quantised.receivers.tolist(), quantised.capacity.tolist(), strict=True
    ):
        leaving[sender] += quanta
        entering[receiver] += quanta
    assert quantised.leaving.tolist() == leaving
    assert quantised.entering.tolist() == entering


def test_padding_changes_neither_quantum_nor_quanta():
    alone = make_attention("softmax", 0, (3, 7, 7))
    padded = np.zeros((3, 19, 19), np.float32)
    padded[:, :7, :7] = alone
    one, other = quantise(network_of(alone)), quantise(network_of(padded))
    assert one.quantum == other.quantum
    np.testing.assert_array_equal(one.capacity, other.capacity)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(4, 8), (8, 16), (16, 4)]))
def test_quantum_does_not_hang_on_rounding(seed, sizes):
    """Totals of n_layers * n_tokens are often powers of 2, with a last bit that depends on the order of the sum."""
    n_layers, n_tokens = sizes
    capacity = make_attention("softmax", seed, (n_layers, n_tokens, n_tokens))
    order = np.random.default_rng(seed).permutation(n_tokens)
    permuted = capacity[:, order][:, :, order]
    quantum = quantise(network_of(capacity)).quantum
    assert quantise(network_of(permuted)).quantum == quantum
    assert quantise(network_of(capacity * np.float32(1 + 1e-6))).quantum == quantum
    assert quantise(network_of(capacity * np.float32(1 - 1e-6))).quantum == quantum


def test_not_under_jit():
    with pytest.raises(ValueError, match="needs values, but the network is being traced"):
        jax.jit(lambda network: quantise(network).capacity)(network_of(np.ones((1, 2, 2))))
