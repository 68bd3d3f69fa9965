import numpy as np
import pytest

from jaxflow import Attention, Capacities, attention_flow, max_flow
from jaxflow.network import build_networks, check_network
from jaxflow.solve import _certified as certified
from jaxflow.solve import _kernel as kernel
from jaxflow.solve import _many_networks as many
from jaxflow.solve._flows import ORTOOLS
from jaxflow.solve._quantise import int32_quantum

pytestmark = pytest.mark.usefixtures("compiled")


def random_capacities(rng, n_examples, n_tokens, *, n_layers=3, scale=1.0):
    layers = rng.dirichlet(np.full(n_tokens, 0.3), (n_examples, n_layers, n_tokens)).astype(np.float32)
    layers[rng.random(layers.shape) < 0.2] = 0
    return scale * layers


def networks_of(capacities):
    check_network(capacities, "sublayers", "prefix", None)
    return build_networks(capacities, decoder_layer="sublayers", n_prompt=None)


def pairs_of(networks):
    sinks, sources = np.meshgrid(networks.outputs, networks.inputs, indexing="ij")
    return sources.ravel(), sinks.ravel()


def each_alone(networks, sources, sinks, wanted, **options):
    return [
        max_flow(networks.replace(capacity=capacity), sources[own], sinks[own], **options)
        for capacity, own in zip(networks.capacity, wanted, strict=True)
    ]


@pytest.mark.parametrize("n_tokens", [1, 2, 9, 70])
@pytest.mark.parametrize("solver", ["certified", "ortools"])
def test_each_network_has_the_flows_that_it_has_alone(n_tokens, solver):
    rng = np.random.default_rng(n_tokens)
    networks = networks_of(Capacities(encoder=random_capacities(rng, 5, n_tokens, scale=3.7)))
    sources, sinks = pairs_of(networks)
    wanted = rng.random((5, len(sources))) < (0.5 if n_tokens < 50 else 0.02)
    wanted[3] = False
    found, quanta = many.max_flow_in_each(networks, sources, sinks, wanted, solver=solver)
    for number, alone in enumerate(each_alone(networks, sources, sinks, wanted, solver=solver)):
        for field in ("lower", "upper", "trivial", "stage"):
            np.testing.assert_array_equal(getattr(found, field)[number][wanted[number]], getattr(alone, field))
            assert not getattr(found, field)[number][~wanted[number]].any()
        assert quanta[number] == alone.quantum


def test_more_sources_than_a_chain_holds_and_several_threads(monkeypatch):
    monkeypatch.setattr(certified, "BRIEF_WORK", 0.0)
    monkeypatch.setattr(certified, "n_cores", lambda: 3)
    rng = np.random.default_rng(0)
    networks = networks_of(Capacities(encoder=random_capacities(rng, 7, 150, n_layers=2)))
    sources, sinks = networks.inputs, np.full(150, networks.outputs[4])
    wanted = np.ones((7, 150), bool)
    told = []
    found, _ = many.max_flow_in_each(networks, sources, sinks, wanted, on_solved=lambda: told.append(1))
    for number, alone in enumerate(each_alone(networks, sources, sinks, wanted)):
        np.testing.assert_array_equal(found.lower[number], alone.lower)
        np.testing.assert_array_equal(found.stage[number], alone.stage)
    assert len(told) == wanted.sum()


@pytest.mark.parametrize("n_tokens", [3, 40])  # 40: more arcs than are added up at a time
def test_the_quantum_is_that_of_the_reference(n_tokens):
    rng = np.random.default_rng(1)
    scales = 2.0 ** rng.integers(-40, 40, (30, 1, 1, 1)) * rng.choice([1.0, 1.9, 0.7], (30, 1, 1, 1))
    networks = networks_of(Capacities(encoder=random_capacities(rng, 30, n_tokens) * scales))
    sources, sinks = pairs_of(networks)
    wanted = np.zeros((30, len(sources)), bool)
    wanted[:, 1] = True
    _, quanta = many.max_flow_in_each(networks, sources, sinks, wanted)
    expected = [int32_quantum(networks.replace(capacity=each), sources[1:2], sinks[1:2]) for each in networks.capacity]
    np.testing.assert_array_equal(quanta, expected)


def test_what_takes_too_long_is_left_to_ortools(monkeypatch):
    rng = np.random.default_rng(2)
    networks = networks_of(Capacities(encoder=random_capacities(rng, 4, 12)))
    sources, sinks = pairs_of(networks)
    wanted = np.ones((4, len(sources)), bool)
    patient, _ = many.max_flow_in_each(networks, sources, sinks, wanted)
    monkeypatch.setattr(kernel, "PATIENCE", 0)
    impatient, _ = many.max_flow_in_each(networks, sources, sinks, wanted)
    assert (impatient.stage == ORTOOLS).any()
    np.testing.assert_array_equal(impatient.lower, patient.lower)
    np.testing.assert_array_equal(impatient.upper, impatient.lower)


def test_a_tolerance_leaves_bounds_that_hold():
    rng = np.random.default_rng(3)
    networks = networks_of(Capacities(encoder=random_capacities(rng, 4, 12)))
    sources, sinks = pairs_of(networks)
    wanted = np.ones((4, len(sources)), bool)
    exact, _ = many.max_flow_in_each(networks, sources, sinks, wanted)
    loose, _ = many.max_flow_in_each(networks, sources, sinks, wanted, tolerance=0.05)
    assert (loose.lower <= exact.lower).all()
    assert (exact.lower <= loose.upper).all()
    assert (loose.upper - loose.lower <= 0.05).all()
    assert (loose.upper > loose.lower).any()


def test_an_arc_of_one_example_is_named():
    networks = networks_of(Capacities(encoder=np.full((2, 1, 2, 2), 0.5)))
    capacity = networks.capacity.copy()
    capacity[1, 3] = np.nan
    with pytest.raises(ValueError, match=r"Arc 3 of example \[1\] has capacity nan; expected finite"):
        many.max_flow_in_each(networks.replace(capacity=capacity), np.array([0]), np.array([3]), np.ones((2, 1), bool))


@pytest.mark.parametrize("most", [0, 2**18])
def test_a_batch_is_the_same_together_and_one_by_one(monkeypatch, most):
    monkeypatch.setattr("jaxflow.attribute._networks.MOST_ARCS", most)
    rng = np.random.default_rng(4)
    weights = rng.dirichlet(np.ones(6), (2, 3, 2, 2, 6)).astype(np.float32)
    mask = np.ones((2, 3, 6), bool)
    mask[1, 2, 4:] = False
    found = attention_flow(Attention(encoder=weights), encoder_mask=mask)
    alone = attention_flow(weights[1, 2][..., :4, :4] / weights[1, 2][..., :4, :4].sum(-1, keepdims=True))
    assert found.encoder.shape == (2, 3, 6, 6)
    assert not found.encoder[1, 2, 4:].any()
    renormalised = np.where(mask[:, :, None, None, None], weights, 0)
    renormalised /= renormalised.sum(-1, keepdims=True)
    same = attention_flow(Attention(encoder=renormalised), encoder_mask=mask)
    np.testing.assert_allclose(same.encoder[1, 2, :4, :4], alone.encoder, atol=1e-6)
