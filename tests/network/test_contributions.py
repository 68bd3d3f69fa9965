"""Networks of contributions: a flow is what a token gave where nothing speaks against it, and parts that cancel stay apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import networkx_value

from jaxflow.attribute import ContributionFlow
from jaxflow.capture import Contributions
from jaxflow.network import contribution_capacities


def flows_down(value, n_tokens, n_layers, *, share, seed=0):
    """Draw contributions that are conserved: what a position holds comes from others, with weights `share` draws, or stays."""
    rng = np.random.default_rng(seed)
    held = np.zeros(n_tokens)
    held[0] = value
    arcs, stays, top = [], [], held.copy()
    for _ in range(n_layers):
        weights = share(rng, (n_tokens, n_tokens))
        arcs.append(held[:, None] * weights)
        stays.append(held - arcs[-1].sum(1))
        held = stays[-1] + arcs[-1].sum(0)
    arcs, stays = np.stack(arcs[::-1]), np.stack(stays[::-1])
    return Contributions(encoder=arcs, encoder_stay=stays, outputs=top, value=np.asarray(value)), held


def positive(rng, shape):
    return rng.dirichlet(np.ones(shape[1] + 1), size=shape[0])[:, :-1]


def signed(rng, shape):
    return rng.normal(size=shape) * 0.7


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_without_negative_arcs_a_flow_is_what_the_token_gave(scale):
    for seed in range(5):
        found, given = flows_down(3.0 * scale, 6, 4, share=positive, seed=seed)
        np.testing.assert_allclose(found.inputs["encoder"], given, rtol=1e-5, atol=1e-7 * scale)
        flow = ContributionFlow()(found)
        assert flow.certificate.exact.all()
        np.testing.assert_allclose(flow.encoder[0], given, rtol=1e-4, atol=1e-6 * scale)
        against = ContributionFlow(sign="opposition")(found)
        np.testing.assert_allclose(against.encoder[0], 0, atol=1e-6 * scale)


def test_scores_are_maximum_flows():
    for seed in range(5):
        found, _ = flows_down(2.0, 4, 3, share=signed, seed=seed)
        capacity = np.asarray(contribution_capacities(found).encoder, np.float64)
        flow = ContributionFlow()(found)
        for token in range(4):
            np.testing.assert_allclose(flow.encoder[0, token], networkx_value(capacity, token, 0), rtol=1e-5, atol=1e-6)


def test_for_and_against_balance_at_every_position():
    found, _ = flows_down(2.0, 5, 4, share=signed, seed=3)
    support = np.asarray(contribution_capacities(found).encoder)
    opposition = np.asarray(contribution_capacities(found, sign="opposition").encoder)
    # What comes in less what comes in against is what a position holds, at every level.
    levels = np.asarray(found.levels["encoder"])
    np.testing.assert_allclose((support - opposition).sum(-1), levels[1:], atol=1e-5)
    np.testing.assert_allclose((support - opposition).sum(-2), levels[:-1], atol=1e-5)
    # A position passes on at least what came to it.
    assert (support[1:].sum(-2) >= support[:-1].sum(-1) - 1e-5).all()


def test_parts_that_cancel_do_not_choke_each_other():
    """Two tokens give +2.6 and -2.4 to position 0 in the first layer; four layers that nothing is read in follow."""
    n_layers, arcs = 5, np.zeros((5, 3, 3))
    arcs[0, 0] = [0.0, 2.6, -2.4]
    stays = np.zeros((n_layers, 3))
    stays[1:, 0] = 0.2
    found = Contributions(encoder=arcs, encoder_stay=stays, outputs=np.array([0.2, 0.0, 0.0]), value=np.asarray(0.2))
    np.testing.assert_allclose(found.inputs["encoder"], [0, 2.6, -2.4])
    np.testing.assert_allclose(ContributionFlow()(found).encoder, [[0, 2.6, 0]], atol=1e-6)
    np.testing.assert_allclose(ContributionFlow(sign="opposition")(found).encoder, [[0, 0, 2.4]], atol=1e-6)


def test_pure_and_batched():
    one, _ = flows_down(2.0, 5, 3, share=signed, seed=1)
    other, _ = flows_down(-1.0, 5, 3, share=signed, seed=2)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), one, other)
    whole = contribution_capacities(both).encoder
    mapped = jax.jit(jax.vmap(contribution_capacities))(both).encoder
    np.testing.assert_allclose(mapped, whole, atol=1e-6)
    for row, single in enumerate((one, other)):
        np.testing.assert_allclose(whole[row], contribution_capacities(single).encoder, atol=1e-6)
        np.testing.assert_allclose(ContributionFlow()(both).encoder[row], ContributionFlow()(single).encoder, atol=1e-5)
    gradient = jax.grad(lambda arcs: contribution_capacities(one.replace(encoder=arcs)).encoder.sum())
    assert np.isfinite(gradient(jnp.asarray(one.encoder))).all()


def test_a_flow_is_not_traced():
    found, _ = flows_down(2.0, 3, 2, share=positive)
    with pytest.raises(ValueError, match="Contribution flow is solved on the host and cannot be traced"):
        jax.jit(lambda found: ContributionFlow()(found).encoder)(found)


def test_no_such_sign():
    found, _ = flows_down(2.0, 3, 2, share=positive)
    with pytest.raises(ValueError, match="'support' or 'opposition'"):
        contribution_capacities(found, sign="both")
    with pytest.raises(ValueError, match="'support' or 'opposition'"):
        ContributionFlow(sign="both")
