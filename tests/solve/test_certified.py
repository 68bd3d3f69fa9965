import itertools
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solve import stress

from jaxflow import Capacities, FlowNetwork, flow_network, max_flow
from jaxflow.solve import _certified as certified
from jaxflow.solve import _kernel as kernel
from jaxflow.solve import _ortools as ortools
from jaxflow.solve._flows import ORTOOLS, RESIDUAL, SEARCHED, STAGES, UNFINISHED
from jaxflow.solve._quantise import INT32_MAX, quantise_to_int32

pytestmark = pytest.mark.usefixtures("compiled")


def network_of(arcs, n_nodes):
    """A network of arcs (sender, receiver, capacity); what the solver does not need is filled in."""
    senders, receivers, capacity = zip(*arcs, strict=True)
    return FlowNetwork(
        senders=np.array(senders),
        receivers=np.array(receivers),
        capacity=np.array(capacity, np.float64),
        stack=np.zeros(n_nodes, np.int64),
        level=np.arange(n_nodes),
        position=np.zeros(n_nodes, np.int64),
        encoder_inputs=np.array([0]),
        decoder_inputs=None,
        outputs=np.array([n_nodes - 1]),
    )


def attention_like(n_layers, n_tokens, *, residual=0.5, causal=False, seed=0):
    random = np.random.default_rng(seed)
    layers = np.exp(2 * random.normal(size=(n_layers, n_tokens, n_tokens)))
    layers = np.tril(layers) if causal else layers
    layers = (1 - residual) * layers / layers.sum(-1, keepdims=True) + residual * np.eye(n_tokens)
    return flow_network(Capacities(**{"decoder" if causal else "encoder": layers.astype(np.float32)}))


def all_pairs(network):
    players = network.decoder_inputs if network.encoder_inputs is None else network.encoder_inputs
    return [nodes.ravel() for nodes in np.meshgrid(players, network.outputs)]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_small_networks_agree_with_ortools_and_scipy(seed):
    stress.compare([seed])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("residual", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(("n_layers", "n_tokens"), [(1, 5), (2, 20), (12, 10), (4, 70)])
def test_values_equal_the_reference(n_layers, n_tokens, residual, causal):
    network = attention_like(n_layers, n_tokens, residual=residual, causal=causal)
    sources, sinks = all_pairs(network)
    sample = np.random.default_rng(0).permutation(len(sources))[:300]
    flows = certified.solve_pairs(network, sources[sample], sinks[sample])
    reference = max_flow(network, sources[sample], sinks[sample], solver="ortools")
    np.testing.assert_array_equal(flows.lower, flows.upper)
    np.testing.assert_allclose(flows.lower * flows.quantum, reference.value, rtol=0, atol=1e-7)
    np.testing.assert_allclose(flows.trivial * flows.quantum, reference.trivial, rtol=0, atol=1e-7)


def test_a_first_choice_that_must_be_taken_back():
    # Forward arcs alone fail after 1 -> 3: then 2 is cut off from the sink.
    arcs = [(0, 1, 1), (0, 2, 1), (1, 3, 1), (1, 4, 0.9), (2, 3, 1), (3, 5, 1), (4, 5, 1)]
    flows = certified.solve_pairs(network_of(arcs, 6), np.array([0]), np.array([5]))
    assert flows.lower * flows.quantum == pytest.approx(1.9, abs=1e-8)
    assert flows.lower == flows.upper
    assert STAGES[flows.stage[0]] == "residual"


def test_a_chain_of_choices_that_must_be_taken_back():
    # Gadget after gadget, each with the trap above: residual paths go back through all of them.
    n, arcs = 30, []
    for gadget in range(n):
        base = 3 * gadget
        arcs += [(base, base + 1, 2), (base, base + 2, 2), (base + 1, base + 2, 3), (base + 1, base + 3, 1)]
        arcs += [(base + 2, base + 3, 2)]
    network = network_of(arcs, 3 * n + 1)
    flows = certified.solve_pairs(network, np.array([0]), np.array([3 * n]))
    assert flows.lower * flows.quantum == flows.upper * flows.quantum == 3


def test_every_stage_gives_the_same_values(monkeypatch):
    network = attention_like(3, 12, residual=0.0)
    pairs = all_pairs(network)
    expected = certified.solve_pairs(network, *pairs)
    assert set(expected.stage) == {SEARCHED, RESIDUAL}
    monkeypatch.setattr(kernel, "PATIENCE", 0)
    impatient = certified.solve_pairs(network, *pairs)
    assert ORTOOLS in impatient.stage
    np.testing.assert_array_equal(impatient.lower, expected.lower)
    np.testing.assert_array_equal(impatient.upper, expected.upper)


@pytest.mark.parametrize("n_threads", [2, 5])
def test_threads_and_order_change_nothing(n_threads):
    network = attention_like(4, 16, residual=0.2)
    sources, sinks = all_pairs(network)
    expected = certified.solve_pairs(network, sources, sinks, n_threads=1)
    shuffled = np.random.default_rng(0).permutation(len(sources))
    flows = certified.solve_pairs(network, sources[shuffled], sinks[shuffled], n_threads=n_threads)
    for field in ("lower", "upper", "trivial", "stage"):
        np.testing.assert_array_equal(getattr(flows, field), getattr(expected, field)[shuffled])


def test_more_sources_than_a_chain_holds():
    network = attention_like(3, 150, residual=0.1, causal=True)
    pairs = network.inputs, np.full(150, network.outputs[-1])
    assert len(kernel.chain_starts(pairs[1], np.arange(150, dtype=np.int32))) == 4
    flows = [certified.solve_pairs(network, *pairs, n_threads=n_threads) for n_threads in (1, 3)]
    reference = ortools.find_flows(quantise_to_int32(network, *pairs), *pairs)
    for found in flows:
        np.testing.assert_array_equal(found.lower, reference.lower)
        np.testing.assert_array_equal(found.upper, reference.upper)
    np.testing.assert_array_equal(flows[0].stage, flows[1].stage)


@settings(deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20), st.integers(1, 64))
def test_blocks_hold_whole_chains_and_chains_one_sink(lengths, n_threads):
    sinks = np.repeat(np.arange(len(lengths)) * 3, lengths)
    order = np.arange(len(sinks), dtype=np.int32)[::-1].copy()  # as order_pairs has them
    chains, in_order = kernel.chain_starts(sinks, order), sinks[order]
    assert chains[0] == 0
    assert chains[-1] == len(sinks)
    for begin, end in itertools.pairwise(chains):
        assert in_order[begin] == in_order[end - 1]
        n_sources = lengths[in_order[begin] // 3]
        assert 0 < end - begin <= max(kernel.CHAIN, -(-n_sources // kernel.CHAINS))
    blocks = certified._blocks(chains, n_threads)
    assert blocks[0] == 0
    assert blocks[-1] == len(chains) - 1
    assert (np.diff(blocks) > 0).all()


@pytest.mark.parametrize("tolerance", [1e-3, 0.1, 10.0])
def test_tolerance_gives_bounds_that_hold(tolerance):
    network = attention_like(3, 12, residual=0.0)
    pairs = all_pairs(network)
    exact = certified.solve_pairs(network, *pairs)
    flows = certified.solve_pairs(network, *pairs, tolerance=tolerance)
    assert ((flows.lower <= exact.lower) & (exact.lower <= flows.upper)).all()
    assert ((flows.upper - flows.lower) * flows.quantum <= tolerance).all()
    assert (flows.lower < flows.upper).any()


def test_a_deadline_gives_bounds_that_hold():
    network = attention_like(6, 60)
    pairs = all_pairs(network)
    exact = certified.solve_pairs(network, *pairs)
    flows = certified.solve_pairs(network, *pairs, deadline=time.monotonic())
    assert ((flows.lower <= exact.lower) & (exact.lower <= flows.upper)).all()
    unfinished = flows.stage == UNFINISHED
    assert unfinished.any()
    np.testing.assert_array_equal((flows.lower == flows.upper)[~unfinished], True)


def test_every_pair_is_counted():
    network, solved = attention_like(3, 12), []
    certified.solve_pairs(network, *all_pairs(network), on_solved=lambda: solved.append(1))
    assert len(solved) == 144


def test_an_interruption_ends_the_work_and_its_threads():
    network = attention_like(8, 120)

    def interrupt():
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        certified.solve_pairs(network, *all_pairs(network), on_solved=interrupt)
    assert time.monotonic() - start < 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("jaxflow")]


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_no_scale_overflows(scale):
    arcs = [(0, 1, 3), (0, 2, 5), (1, 3, 4), (2, 3, 4), (1, 2, 1)]
    network = network_of([(sender, receiver, scale * capacity) for sender, receiver, capacity in arcs], 4)
    flows = certified.solve_pairs(network, np.array([0]), np.array([3]))
    assert flows.lower.dtype == np.int64
    assert flows.lower * flows.quantum == pytest.approx(7 * scale)


def test_a_million_arcs_into_a_node_do_not_overflow():
    # 2^31 quanta would enter node 2 together; what leaves it bounds the flow, and sums are int64.
    n = 3000
    arcs = [(0, 1 + middle, 1) for middle in range(n)] + [(1 + middle, n + 1, 1) for middle in range(n)]
    network = network_of([*arcs, (n + 1, n + 2, 0.5)], n + 3)
    flows = certified.solve_pairs(network, np.array([0, 0]), np.array([n + 2, n + 1]))
    assert (flows.lower * flows.quantum).tolist() == [0.5, n]
    graph, _, _ = kernel.build_graph(network, np.array([0]), np.array([n + 2]))
    assert graph.capacity.max() == kernel.INT32_MAX
    assert graph.entering[n + 1] > 2**31


def test_uncapacitated_arcs_do_not_cost_precision():
    network = network_of([(0, 1, 0.3), (1, 2, 1e30), (2, 3, 0.2), (1, 3, 1e-6)], 4)
    flows = certified.solve_pairs(network, np.array([0]), np.array([3]))
    assert flows.lower * flows.quantum == pytest.approx(0.200001, abs=1e-9)


def test_nodes_without_a_path_have_no_flow():
    network = network_of([(0, 2, 1.0), (1, 3, 1.0), (2, 4, 0.0)], 5)
    flows = certified.solve_pairs(network, np.array([0, 0, 1, 4, 3]), np.array([2, 3, 3, 0, 1]))
    assert (flows.upper * flows.quantum).tolist() == (flows.lower * flows.quantum).tolist() == [1, 0, 1, 0, 0]
    empty = certified.solve_pairs(network, np.array([], int), np.array([], int))
    assert empty.lower.shape == (0,)


def test_arrays_that_may_be_written_to_are_not_compiled_for_again():
    # JAX's arrays may not be written to; for Numba those are another type.
    network = attention_like(1, 3)
    frozen = np.array(network.capacity)
    frozen.flags.writeable = False
    for capacity in (np.array(network.capacity), frozen):
        certified.solve_pairs(network.replace(capacity=capacity), *all_pairs(network))
    kinds = {signature[2].mutable for signature in kernel.lay_out.signatures}
    assert kinds == {False}


def test_a_scratch_starts_without_flow():
    network = attention_like(2, 5)
    graph, _, _ = kernel.build_graph(network, *all_pairs(network))
    scratch = kernel.new_scratch(graph)
    assert not scratch.flow.any()
    assert not scratch.page.any()
    np.testing.assert_array_equal(scratch.open, graph.open)
    assert not np.shares_memory(scratch.open, graph.open)


def test_flow_takes_memory_only_where_it_runs():
    network = attention_like(3, 64)
    graph, number, _ = kernel.build_graph(network, *all_pairs(network))
    scratch = kernel.new_scratch(graph)
    ends = number[network.inputs[:1]], number[network.outputs[-1:]]
    lower, upper = np.zeros(1, np.int32), np.full(1, INT32_MAX, np.int32)
    where, stage, done = np.zeros(1, np.int32), np.zeros(1, np.int8), np.zeros(8, np.int64)
    starts, halt = np.zeros((2, 1), np.int64)
    kernel.solve_block(graph, scratch, *ends, starts, 0, 10**9, halt, done, where, lower, upper, stage)
    assert 0 < lower[0] == upper[0]
    assert scratch.flow.sum() > lower[0]
    assert 0 < scratch.n_pages[0] < len(scratch.page) / 2
    kernel.clear(graph, scratch)
    assert not scratch.flow.any()
    assert scratch.n_pages[0] == 0
