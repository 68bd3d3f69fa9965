"""The flow that is found block by block on the host against the one of the dense, traceable method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from strategies import make_attention

from jaxflow import Attention, flow_network, joint_capacities
from jaxflow.solve import _barrier_dense as dense
from jaxflow.solve import barrier_flow
from jaxflow.solve._barrier import uncapacitated


def network_of(kind):
    decoder = make_attention("causal", 1, (3, 2, 5, 5))
    if kind == "unrolled":
        return flow_network(joint_capacities(Attention(decoder=decoder)), feedback="unrolled", n_prompt=2)
    encoder, cross = make_attention("peaked", 0, (5, 2, 6, 6)), make_attention("softmax", 2, (3, 2, 6, 6))[:, :, :5]
    weights = {"encoder": encoder} | ({"decoder": decoder, "cross": cross} if kind == "sublayers" else {})
    return flow_network(joint_capacities(Attention(**weights)))


@pytest.mark.parametrize("kind", ["encoder", "unrolled", "sublayers"])
def test_blocks_against_a_dense_system(kind):
    network = network_of(kind)
    is_fed = np.isin(network.inputs, network.receivers)
    sources, sink = network.inputs[~is_fed], network.outputs[-1]
    found = barrier_flow(network, sources, sink)
    senders, receivers, merged = uncapacitated(network)
    is_source = np.zeros(network.n_nodes, bool)
    is_source[merged[sources]] = True
    with jax.enable_x64(True):
        problem = dense.pose(
            jnp.asarray(np.asarray(network.capacity, np.float64)),
            jnp.asarray(senders),
            jnp.asarray(receivers),
            sources=jnp.asarray(is_source),
            sink=jnp.asarray(merged[sink]),
        )
        expected = jax.jit(dense.solve)(problem, mu=1e-6, tolerance=1e-9, max_iterations=200)
    assert found.converged
    assert int(found.iterations) == int(expected.iterations)
    flow = np.where(senders == receivers, 0, found.flow)
    np.testing.assert_allclose(flow, expected.flow, atol=1e-9)
