"""Decoders and encoder-decoders: against graphs built from the definition, and the facts that hold for every network."""

import itertools

import jax
import networkx as nx
import numpy as np
import oracle_general
import pytest
from general_networks import ARCHITECTURES, CASES, LEFT, N_SOURCE, N_TARGET, RIGHT, example

from jaxflow import (
    Attention,
    AttentionFlow,
    Capacities,
    SetShapley,
    attention_flow,
    flow_network,
    joint_capacities,
    max_flow,
    min_cut,
)
from jaxflow.attribute import raw_attention, rollout
from jaxflow.solve import cut_capacities


@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize(("architecture", "decoder_layer", "feedback", "residual"), CASES)
def test_scores_are_those_of_the_definition(architecture, decoder_layer, feedback, residual, padding):
    source_mask = {"none": [True] * 4, "left": LEFT[:4], "right": RIGHT[1:]}[padding]
    target_mask = {"none": [True] * 5, "left": LEFT, "right": RIGHT}[padding]
    stacks = example(architecture, source_mask=source_mask, target_mask=target_mask)
    n_prompt = 2 if feedback == "unrolled" else None
    masks = {}
    if "encoder" in stacks or "cross" in stacks:
        masks["encoder_mask"] = np.array(source_mask)
    if "decoder" in stacks:
        masks["decoder_mask"] = np.array(target_mask)
    result = attention_flow(
        Attention(**stacks),
        residual=residual, decoder_layer=decoder_layer, feedback=feedback, n_prompt=n_prompt, **masks,
    )  # fmt: skip
    encoder, decoder = oracle_general.scores(
        **stacks, residual=residual, decoder_layer=decoder_layer, feedback=feedback, n_prompt=n_prompt,
        source_mask=source_mask, target_mask=target_mask,
    )  # fmt: skip
    for got, expected in ((result.encoder, encoder), (result.decoder, decoder)):
        assert (got is None) == (expected is None)
        if got is not None:
            np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_array_equal(result.certificate.lower, result.certificate.upper)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("decoder_layer", ["sublayers", "parallel"])
def test_all_inputs_together_fill_every_output(architecture, decoder_layer):
    """Fact 1: the joint value is 1, or 2 - r in a parallel decoder layer."""
    residual = 0.4
    network = flow_network(
        joint_capacities(Attention(**example(architecture)), residual=residual), decoder_layer=decoder_layer
    )
    graph = nx.DiGraph()
    graph.add_weighted_edges_from(
        zip(network.senders.tolist(), network.receivers.tolist(), network.capacity.tolist(), strict=True),
        weight="capacity",
    )
    players = [
        node
        for nodes in (network.encoder_inputs, network.decoder_inputs)
        if nodes is not None
        for node in nodes.tolist()
    ]
    graph.add_edges_from(("all", player) for player in players)
    parallel = "cross" in example(architecture) and decoder_layer == "parallel"
    for output in network.outputs.tolist():
        assert nx.maximum_flow_value(graph, "all", output) == pytest.approx(2 - residual if parallel else 1, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rollout_is_below_the_flow_and_the_flow_below_its_bounds(architecture, seed):
    """Facts 2, 3 and 5."""
    attention = Attention(**example(architecture, seed))
    flow, rolled = attention_flow(attention), rollout(attention)
    total = 0
    for scores, below in ((flow.encoder, rolled.encoder), (flow.decoder, rolled.decoder)):
        if scores is not None:
            assert (np.asarray(below) <= scores + 1e-6).all()
            assert (scores <= 1 + 1e-6).all()
            total = total + np.asarray(below).sum(-1)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    if flow.decoder is not None:
        assert not np.triu(flow.decoder, 1).any()
    assert (flow.certificate.lower <= flow.certificate.trivial).all()


@pytest.mark.parametrize("residual", [0.0, 0.3, 1.0])
def test_one_decoder_layer_is_its_capacities(residual):
    attention = Attention(**example("decoder", n_layers=1))
    capacity = joint_capacities(attention, residual=residual).decoder[0]
    for scores in (attention_flow(attention, residual=residual), rollout(attention, residual=residual)):
        np.testing.assert_allclose(scores.decoder, capacity, atol=1e-6)


def test_rollout_of_an_encoder_decoder_by_its_equation():
    stacks, r = example("encoder-decoder"), 0.3
    mean = {name: weights.astype(np.float64).mean(1) for name, weights in stacks.items()}
    source = np.eye(N_SOURCE)
    for layer in mean["encoder"]:
        source = (1 - r) * layer @ source + r * source
    held = np.concatenate([np.zeros((N_TARGET, N_SOURCE)), np.eye(N_TARGET)], -1)
    for decoder, cross in zip(mean["decoder"], mean["cross"], strict=True):
        held = r * ((1 - r) * decoder @ held + r * held)
        held[:, :N_SOURCE] += (1 - r) * cross @ source
    rolled = jax.jit(lambda attention: rollout(attention, residual=r))(Attention(**stacks))
    np.testing.assert_allclose(rolled.encoder, held[:, :N_SOURCE], atol=1e-6)
    np.testing.assert_allclose(rolled.decoder, held[:, N_SOURCE:], atol=1e-6)


def test_raw_attention_is_that_of_the_last_decoder_layer():
    stacks = example("encoder-decoder")
    raw = raw_attention(Attention(**stacks))
    np.testing.assert_allclose(raw.encoder, stacks["cross"][-1].mean(0), rtol=1e-6)
    np.testing.assert_allclose(raw.decoder, stacks["decoder"][-1].mean(0), rtol=1e-6)


@pytest.mark.parametrize("feedback", ["prefix", "unrolled"])
@pytest.mark.parametrize("decoder_layer", ["sublayers", "parallel"])
def test_a_batch_equals_its_rows_alone_bit_for_bit(decoder_layer, feedback):
    masks = [([True] * 4, [True] * 5), (LEFT[:4], LEFT), (RIGHT[1:], RIGHT)]
    rows = [example("encoder-decoder", i, source_mask=s, target_mask=t) for i, (s, t) in enumerate(masks)]
    attention = jax.tree.map(lambda *leaves: np.stack(leaves), *(Attention(**row) for row in rows))
    source, target = (np.array(mask) for mask in zip(*masks, strict=True))
    n_prompt = [2, 3, 1] if feedback == "unrolled" else None
    method = AttentionFlow(decoder_layer=decoder_layer, feedback=feedback, correction="uniform")
    batch = method(attention, encoder_mask=source, decoder_mask=target, n_prompt=n_prompt)
    order = np.array([2, 0, 1])
    permuted = method(
        jax.tree.map(lambda leaf: leaf[order], attention),
        encoder_mask=source[order],
        decoder_mask=target[order],
        n_prompt=None if n_prompt is None else np.array(n_prompt)[order],
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a[order], b),
        batch.replace(positions=None),
        permuted.replace(positions=None),
    )
    for i, (s, t) in enumerate(masks):
        s, t = np.flatnonzero(s), np.flatnonzero(t)
        cut = {
            "encoder": rows[i]["encoder"][..., s[:, None], s],
            "decoder": rows[i]["decoder"][..., t[:, None], t],
            "cross": rows[i]["cross"][..., t[:, None], s],
        }
        n_alone = None if n_prompt is None else int((t < n_prompt[i]).sum())
        if n_alone == 0:
            continue  # a row whose whole prompt is padding has nothing alone to compare with
        alone = method(Attention(**cut), n_prompt=n_alone)
        np.testing.assert_array_equal(batch.encoder[i][t[:, None], s], alone.encoder)
        np.testing.assert_array_equal(batch.decoder[i][t[:, None], t], alone.decoder)
        padded = ~target[i]
        assert not batch.decoder[i][padded].any()
        assert not batch.decoder[i][:, padded].any()
        assert not batch.encoder[i][:, ~source[i]].any()


def test_decay_by_its_formula():
    attention = Attention(**example("encoder-decoder"))
    plain, decayed = attention_flow(attention), AttentionFlow(correction="decay")(attention, positions=[3, 1])
    for row, p in enumerate((3, 1)):
        for x in range(N_TARGET):
            factor = p - x + 2 if x < p else 1
            assert decayed.decoder[row, x] == pytest.approx(plain.decoder[p, x] / factor)
    np.testing.assert_array_equal(decayed.encoder, plain.encoder[[3, 1]])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_uniform_attention_corrected_by_itself_is_1(architecture):
    stacks = example(architecture)
    uniform = {name: (a > 0) / (a > 0).sum(-1, keepdims=True) for name, a in stacks.items()}
    corrected = AttentionFlow(correction="uniform")(Attention(**{k: v.astype(np.float32) for k, v in uniform.items()}))
    plain = attention_flow(Attention(**stacks))
    other = AttentionFlow(correction="uniform")(Attention(**stacks))
    reference = attention_flow(Attention(**{k: v.astype(np.float32) for k, v in uniform.items()}))
    for name in ("encoder", "decoder"):
        if getattr(plain, name) is not None:
            reachable = getattr(reference, name) > 0
            np.testing.assert_allclose(getattr(corrected, name)[reachable], 1, atol=1e-6)
            expected = np.where(reachable, getattr(plain, name) / np.where(reachable, getattr(reference, name), 1), 0)
            np.testing.assert_allclose(getattr(other, name), expected, atol=1e-6)


def test_normalised_scores_sum_to_1_over_both_stacks():
    scores = AttentionFlow(normalise=True)(Attention(**example("encoder-decoder")))
    np.testing.assert_allclose(scores.encoder.sum(-1) + scores.decoder.sum(-1), 1)


@pytest.mark.parametrize("feedback", ["prefix", "unrolled"])
@pytest.mark.parametrize("decoder_layer", ["sublayers", "parallel"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nodes_are_in_topological_order_and_cuts_have_the_value(architecture, decoder_layer, feedback):
    if architecture == "encoder" and feedback == "unrolled":
        return
    capacities = joint_capacities(Attention(**example(architecture)))
    network = flow_network(
        capacities, decoder_layer=decoder_layer, feedback=feedback, n_prompt=2 if feedback == "unrolled" else None
    )
    assert (network.senders < network.receivers).all()
    output = network.outputs[-1]
    for players in (network.encoder_inputs, network.decoder_inputs):
        if players is None:
            continue
        value = max_flow(network, players, output).value
        np.testing.assert_allclose(cut_capacities(network, players, output).sum(-1), value, rtol=1e-12)
        for player in players.tolist():
            cut = min_cut(network, player, output)
            assert cut.value == max_flow(network, player, output).value
            assert (cut.layer >= 1).all()
            assert (cut.layer <= network.n_layers).all()


def test_shapes_decide_the_structure_under_jit():
    attention = Attention(**example("encoder-decoder"))

    def network(attention):
        return flow_network(joint_capacities(attention))

    for one, other in zip(
        jax.tree.leaves(network(attention)), jax.tree.leaves(jax.jit(network)(attention)), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-7)


STACKS = example("encoder-decoder")
BAD = [
    (STACKS, {"residual": 0.0}, "'sublayers' needs a residual above 0.*'parallel'"),
    (STACKS | {"cross": STACKS["cross"].swapaxes(-1, -2)}, {}, r"has 4 queries and 5 keys, which do not fit the 5 tokens of the"),
    (STACKS | {"cross": STACKS["cross"][:1]}, {}, "cross has 1 layers and the decoder has 2"),
    ({"decoder": example("decoder")["decoder"][..., ::-1, ::-1]}, {}, "The decoder looks ahead: in layer"),
    ({"encoder": STACKS["encoder"], "decoder": STACKS["decoder"]}, {}, "nothing that joins them"),
    ({"cross": STACKS["cross"]}, {}, "cross-attention without a decoder"),
    (STACKS | {"encoder": STACKS["encoder"][None]}, {}, "different batch axes"),
    (STACKS, {"decoder_layer": "serial"}, "decoder_layer is 'serial'; expected 'sublayers' or 'parallel'"),
    (STACKS, {"feedback": "none"}, "feedback is 'none'; expected 'prefix' or 'unrolled'"),
    (STACKS, {"feedback": "unrolled"}, "needs generated positions: n_prompt is None"),
    (STACKS, {"feedback": "unrolled", "n_prompt": 5}, "n_prompt is 5; expected 1 to 4"),
    (STACKS, {"feedback": "unrolled", "n_prompt": 0}, "n_prompt is 0"),
    (STACKS, {"n_prompt": 2}, "n_prompt is given, but has an effect with feedback='unrolled' alone"),
    ({"encoder": STACKS["encoder"]}, {"feedback": "unrolled", "n_prompt": 2}, "there is no decoder"),
    (STACKS, {"positions": [5]}, "Output 5 does not exist: outputs are positions 0 to 4"),
    (STACKS, {"positions": [4], "decoder_mask": np.array(RIGHT)}, "Output 4 is padding"),
    (STACKS, {"decoder_mask": np.ones(4, bool)}, r"decoder_mask has shape \(4,\); expected \(5,\)"),
]  # fmt: skip


@pytest.mark.parametrize(("stacks", "options", "message"), BAD, ids=[message[:40] for _, _, message in BAD])
def test_bad_input(stacks, options, message):
    with pytest.raises(ValueError, match=message):
        attention_flow(Attention(**stacks), **options)


def test_corrections_that_do_not_apply():
    with pytest.raises(ValueError, match="there is no decoder"):
        AttentionFlow(correction="decay")(Attention(encoder=STACKS["encoder"]))
    with pytest.raises(ValueError, match="correction is 'linear'; expected None, 'decay' or 'uniform'"):
        AttentionFlow(correction="linear")


def test_capacities_made_by_hand_must_say_their_residual():
    capacities = joint_capacities(Attention(**STACKS)).replace(residual=None)
    with pytest.raises(ValueError, match="need their residual"):
        attention_flow(capacities)
    with pytest.raises(ValueError, match="needs the residual"):
        rollout(capacities)
    with pytest.raises(ValueError, match="needs the residual"):
        AttentionFlow(correction="uniform")(Capacities(decoder=capacities.decoder))


def test_a_residual_may_be_a_plain_number():
    capacities = joint_capacities(Attention(**STACKS), residual=0.5)
    plain = capacities.replace(residual=0.5)
    np.testing.assert_array_equal(attention_flow(plain).encoder, attention_flow(capacities).encoder)
    np.testing.assert_array_equal(SetShapley()(plain).encoder, SetShapley()(capacities).encoder)


@pytest.mark.parametrize(("decoder_layer", "seed"), list(itertools.product(["sublayers", "parallel"], range(3))))
def test_more_capacity_never_lowers_a_score_and_scaling_scales(decoder_layer, seed):
    capacities = joint_capacities(Attention(**example("encoder-decoder", seed)))
    plain = attention_flow(capacities, decoder_layer=decoder_layer)
    rng = np.random.default_rng(seed)
    stacks = {name: np.asarray(getattr(capacities, name)) for name in ("encoder", "decoder", "cross")}
    more = {name: stack + rng.random(stack.shape) * (stack > 0) for name, stack in stacks.items()}
    larger = attention_flow(capacities.replace(**more), decoder_layer=decoder_layer)
    assert (larger.certificate.lower >= plain.certificate.lower - 1e-9).all()
    doubled = capacities.replace(
        **{name: 2 * stack for name, stack in stacks.items()}, residual=2 * capacities.residual
    )
    np.testing.assert_allclose(
        attention_flow(doubled, decoder_layer=decoder_layer).encoder, 2 * plain.encoder, rtol=1e-9
    )
