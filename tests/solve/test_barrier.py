"""barrier_flow: against SciPy's trust-region solver, and the axioms that it claims."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from strategies import capacities, make_attention

from jaxflow import Attention, Capacities, FlowNetwork, flow_network, joint_capacities, max_flow
from jaxflow.solve import barrier_flow


def encoder(seed=0, n_layers=3, n_tokens=4, residual=0.5, kind="softmax"):
    weights = make_attention(kind, seed, (n_layers, n_tokens, n_tokens)).astype(np.float64)
    return (1 - residual) * weights + residual * np.eye(n_tokens)


def network_of(layers):
    return flow_network(Capacities(encoder=layers))


def balance(network, flow):
    """Net flow out of each node."""
    leaving = np.zeros(network.n_nodes)
    np.add.at(leaving, network.senders, flow)
    np.subtract.at(leaving, network.receivers, flow)
    return leaving


def paths(network, sources, sink):
    """Tell for each arc whether it lies on a path, by walking all of them."""
    arcs = {}
    for arc in np.flatnonzero(network.capacity):
        arcs.setdefault(int(network.senders[arc]), []).append((int(arc), int(network.receivers[arc])))
    on_path = np.zeros(len(network.senders), bool)

    def walk(node, trail):
        if node == sink:
            on_path[trail] = True
            return
        for arc, receiver in arcs.get(node, ()):
            if receiver not in sources:
                walk(receiver, [*trail, arc])

    for source in sources:
        walk(source, [])
    return on_path


def by_trust_region(network, sources, sink, mu):
    """The programme as it is written, by a general solver for constrained optimisation."""
    arcs = np.flatnonzero(paths(network, sources, sink))
    u = np.asarray(network.capacity)[arcs]
    inner = [node for node in range(network.n_nodes) if node not in (*sources, sink)]
    matrix = np.zeros((network.n_nodes, len(arcs)))
    matrix[network.senders[arcs], np.arange(len(arcs))] = 1
    matrix[network.receivers[arcs], np.arange(len(arcs))] -= 1
    matrix = matrix[[node for node in inner if matrix[node].any()]]
    into = (network.receivers[arcs] == sink).astype(float)
    null = np.linalg.svd(matrix)[2][np.linalg.matrix_rank(matrix) :].T if len(matrix) else np.eye(len(arcs))
    # A feasible start: a flow along every path, small enough.
    start = np.zeros(len(arcs))
    place = {int(arc): i for i, arc in enumerate(arcs)}

    def walk(node, trail):
        if node == sink:
            start[trail] += 1
            return
        for arc in arcs[network.senders[arcs] == node]:
            walk(int(network.receivers[arc]), [*trail, place[int(arc)]])

    for source in sources:
        walk(int(source), [])
    start *= 0.5 / (start / u).max()

    def loss(x):
        f = start + null @ x
        if (f <= 0).any() or (f >= u).any():
            return np.inf
        return -into @ f - mu * np.log(f * (u - f)).sum()

    def gradient(x):
        f = start + null @ x
        return null.T @ (-into - mu / f + mu / (u - f))

    def hessian(x):
        f = start + null @ x
        return null.T @ ((mu / f**2 + mu / (u - f) ** 2)[:, None] * null)

    result = minimize(
        loss, np.zeros(null.shape[1]), jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-12}
    )
    x = result.x
    for _ in range(5):  # it stops where the loss no longer tells flows apart
        x = x - np.linalg.solve(hessian(x), gradient(x))
    assert loss(x) <= result.fun + 1e-12
    flow = np.zeros(len(network.senders))
    flow[arcs] = start + null @ x
    return flow


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("mu", [1e-1, 1e-3])
@pytest.mark.parametrize("seed", range(2))
def test_against_a_general_convex_solver(seed, mu, joint):
    network = network_of(encoder(seed, n_layers=2, n_tokens=3))
    sources = network.inputs if joint else network.inputs[:1]
    result = barrier_flow(network, sources, network.outputs[1], mu=mu)
    assert result.converged
    expected = by_trust_region(network, sources.tolist(), int(network.outputs[1]), mu)
    np.testing.assert_allclose(result.flow, expected, rtol=1e-7)


def test_one_arc_by_hand():
    """`1 + mu / f - mu / (u - f) = 0` is a quadratic equation."""
    network = network_of(np.full((1, 1, 1), 0.5))
    result = barrier_flow(network, 0, 1, mu=0.125)
    # f^2 - f (u - 2 mu) - mu u = 0
    expected = (0.25 + np.sqrt(0.25**2 + 4 * 0.125 * 0.5)) / 2
    np.testing.assert_allclose(result.flow, [expected], rtol=1e-8)
    assert result.value == result.flow[0] == result.inputs[0]


@settings(deadline=None, max_examples=40)
@given(
    capacities((3, 3), (4, 4), kinds=("softmax", "flat", "peaked", "ties", "one_hot", "causal", "sparse")), st.data()
)
def test_is_a_flow_strictly_inside(layers, data):
    network = network_of(layers)
    chosen = data.draw(st.sets(st.sampled_from(network.inputs.tolist()), min_size=1))
    sources = np.array(sorted(chosen))
    sink = int(network.outputs[data.draw(st.integers(0, layers.shape[1] - 1))])
    result = barrier_flow(network, sources, sink, mu=1e-4)
    assert result.converged
    on_path = paths(network, sources.tolist(), sink)
    assert (result.flow[~on_path] == 0).all()
    assert (result.flow[on_path] > 0).all()
    assert (result.flow[on_path] < np.asarray(network.capacity)[on_path]).all()
    leaving = balance(network, result.flow)
    inner = np.setdiff1d(np.arange(network.n_nodes), [*sources, sink])
    np.testing.assert_allclose(leaving[inner], 0, atol=1e-9)
    # Efficiency, and null players: what is no source sends nothing.
    np.testing.assert_allclose(result.inputs.sum(), result.value, atol=1e-9)
    np.testing.assert_allclose(result.inputs[sources], leaving[sources], atol=1e-9)
    assert (np.delete(result.inputs, sources) == 0).all()


@pytest.mark.parametrize("kind", ["softmax", "peaked", "tiny"])
def test_value_rises_to_the_maximum_flow(kind):
    network = network_of(encoder(3, 4, 6, kind=kind))
    maximum = float(max_flow(network, 1, int(network.outputs[2])).value)
    gaps = []
    for mu in (1e-2, 1e-4, 1e-6, 1e-8):
        result = barrier_flow(network, 1, network.outputs[2], mu=mu)
        assert result.converged
        n_arcs = (result.flow > 0).sum()
        assert result.value <= maximum + 1e-9 <= result.upper + 2e-9
        assert result.upper - result.value <= 2 * mu * n_arcs + 2e-9
        gaps.append(maximum - result.value)
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-5


def test_permuting_tokens_permutes_the_flow_and_equal_tokens_send_alike():
    layers, order = encoder(5, 3, 5), np.array([3, 0, 4, 1, 2])
    network = network_of(layers)
    flow = barrier_flow(network, network.inputs, network.outputs)
    moved_network = network_of(layers[:, order][:, :, order])
    moved = barrier_flow(moved_network, moved_network.inputs, moved_network.outputs)
    np.testing.assert_allclose(moved.inputs, flow.inputs[order][:, order], atol=1e-7)
    by_layer = flow.flow.reshape(5, 3, 5, 5)[order][:, :, order][..., order]
    np.testing.assert_allclose(moved.flow.reshape(5, 3, 5, 5), by_layer, atol=1e-6)
    layers[:, :, 1], layers[:, 1, :] = layers[:, :, 0], layers[:, 0, :]  # two tokens, all the same
    twins = network_of(layers)
    inputs = barrier_flow(twins, twins.inputs, twins.outputs[3]).inputs
    np.testing.assert_allclose(inputs[0], inputs[1], atol=1e-8)


def test_order_of_arcs_changes_nothing_where_one_solver_s_flow_would_change():
    layers = encoder(7, 3, 5)
    network = network_of(layers)
    order = np.random.default_rng(0).permutation(len(network.senders))
    shuffled = network.replace(
        senders=network.senders[order], receivers=network.receivers[order], capacity=network.capacity[order]
    )
    flow, again = (barrier_flow(n, n.inputs, n.outputs[0]).flow for n in (network, shuffled))
    np.testing.assert_allclose(again, flow[order], atol=1e-8)


def test_several_sinks_give_what_each_gives_alone():
    network = network_of(encoder(2))
    together = barrier_flow(network, network.inputs, network.outputs.reshape(2, 2))
    assert together.flow.shape == (2, 2, len(network.senders))
    assert together.value.shape == together.iterations.shape == (2, 2)
    for index in np.ndindex(2, 2):
        alone = barrier_flow(network, network.inputs, network.outputs.reshape(2, 2)[index])
        np.testing.assert_allclose(together.flow[index], alone.flow, atol=1e-9)
        np.testing.assert_allclose(together.inputs[index], alone.inputs, atol=1e-9)


@pytest.mark.parametrize(
    ("stacks", "feedback"),
    [("decoder", "unrolled"), ("sublayers", "prefix"), ("sublayers", "unrolled"), ("parallel", "prefix")],
)
def test_every_network_the_library_builds(stacks, feedback):
    weights = {"decoder": make_attention("causal", 1, (2, 2, 4, 4))}
    if stacks != "decoder":
        weights |= {
            "encoder": make_attention("softmax", 0, (2, 2, 3, 3)),
            "cross": make_attention("softmax", 2, (2, 2, 4, 4))[..., :3],
        }
        weights["cross"] /= weights["cross"].sum(-1, keepdims=True)
    network = flow_network(
        joint_capacities(Attention(**weights)), feedback=feedback, n_prompt=2 if feedback == "unrolled" else None,
        decoder_layer="parallel" if stacks == "parallel" else "sublayers",
    )  # fmt: skip
    network = network.replace(capacity=np.asarray(network.capacity))
    players = network.inputs
    if feedback == "unrolled":  # generated tokens are no inputs
        fed = network.receivers[np.asarray(network.level)[network.receivers] == 0]
        players = np.setdiff1d(players, fed)
    for output in network.outputs[-2:]:
        result = barrier_flow(network, players, output, mu=1e-7)
        assert result.converged
        leaving = balance(network, result.flow)
        inner = np.setdiff1d(np.arange(network.n_nodes), [*players, output])
        np.testing.assert_allclose(leaving[inner], 0, atol=1e-8)
        np.testing.assert_allclose(-leaving[output], result.value, atol=1e-8)
        np.testing.assert_allclose(result.inputs.sum(), result.value, atol=1e-8)
        super_source = with_super_source(network, players)
        maximum = float(max_flow(super_source, network.n_nodes, int(output)).value)
        assert 0 <= maximum - result.value + 1e-8 < 1e-4


def with_super_source(network, players):
    n = network.n_nodes
    return FlowNetwork(
        senders=np.append(network.senders, np.full(len(players), n)),
        receivers=np.append(network.receivers, players),
        capacity=np.append(np.asarray(network.capacity, np.float64), np.full(len(players), 100.0)),
        stack=np.append(network.stack, 0),
        level=np.append(network.level, 0),
        position=np.append(network.position, 0),
        encoder_inputs=None,
        decoder_inputs=None,
        outputs=network.outputs,
    )


def test_nothing_flows_where_nothing_leads():
    network = network_of(np.broadcast_to(np.eye(3), (2, 3, 3)))
    result = barrier_flow(network, 0, network.outputs[1])
    assert result.value == result.upper == result.gap == 0
    assert result.converged
    assert not result.flow.any()


def test_a_gap_that_was_not_reached_is_said():
    network = network_of(encoder(0, 4, 6))
    result = barrier_flow(network, network.inputs, network.outputs, max_iterations=3)
    assert not result.converged
    assert (result.gap > result.tolerance).all()
    assert (result.iterations == 3).all()
    assert barrier_flow(network, network.inputs, network.outputs).converged


def test_is_a_pytree():
    network = network_of(encoder())
    result = barrier_flow(network, network.inputs, network.outputs)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, result)
    np.testing.assert_array_equal(doubled.flow, 2 * result.flow)


def test_bad_input():
    network = network_of(encoder())
    with pytest.raises(ValueError, match="sink is node 99, which does not exist: the network has nodes 0 to 15"):
        barrier_flow(network, 0, 99)
    with pytest.raises(ValueError, match="source and sink are both node 13; expected two different nodes"):
        barrier_flow(network, [0, 13], [12, 13])
    with pytest.raises(ValueError, match="mu is 0; expected a number above 0"):
        barrier_flow(network, 0, 13, mu=0)
    with pytest.raises(ValueError, match="tolerance is nan"):
        barrier_flow(network, 0, 13, tolerance=float("nan"))
    with pytest.raises(ValueError, match="max_iterations is 0"):
        barrier_flow(network, 0, 13, max_iterations=0)
    with pytest.raises(ValueError, match=r"source has shape \(0,\)"):
        barrier_flow(network, np.zeros(0, int), 13)
    with pytest.raises(ValueError, match="is being traced"):
        jax.jit(lambda n: barrier_flow(n, 0, 13).value)(network)
