"""Spans as players and as outputs: against networkx with a node joined to all members, and the facts of joint flows."""

import itertools

import networkx as nx
import numpy as np
import oracle_general
import pytest
from general_networks import CASES, N_SOURCE, N_TARGET, example

from jaxflow import Attention, AttentionFlow, Capacities, attention_flow, flow_network, max_flow
from jaxflow.network import Spans, join_inputs, join_outputs, span_masks
from jaxflow.solve import SOLVERS

pytestmark = pytest.mark.usefixtures("compiled")

SOURCE_SPANS = span_masks([(0, 2), (3, 4)], N_SOURCE)
TARGET_SPANS = span_masks([(0, 1), (1, 4)], N_TARGET)
OUTPUT_SPANS = np.array([[0, 1, 1, 0, 0], [0, 0, 1, 0, 1], [0, 0, 0, 1, 0]], bool)


def joint_value(graph, sources, sinks):
    """The value of one maximum flow from all `sources` to all `sinks`, by networkx."""
    graph = graph.copy()
    graph.add_edges_from([("source", node) for node in sources] + [(node, "sink") for node in sinks])  # unlimited
    return nx.maximum_flow_value(graph, "source", "sink") if sources and sinks else 0.0


def node(graph, stack, level, position):
    return [(stack, level, position)] if (stack, level, position) in graph else []


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("architecture", "decoder_layer", "feedback", "residual"), CASES)
def test_a_span_is_scored_by_the_joint_flow_of_its_tokens(architecture, decoder_layer, feedback, residual, solver):
    stacks = example(architecture, 5)
    n_prompt = 3 if feedback == "unrolled" else None
    options = {"residual": residual, "decoder_layer": decoder_layer, "feedback": feedback, "n_prompt": n_prompt}
    has_source, has_target = architecture != "decoder", architecture != "encoder"
    n_outputs = N_TARGET if has_target else N_SOURCE
    sets = OUTPUT_SPANS[:, :n_outputs]
    spans = Spans(
        encoder=SOURCE_SPANS if has_source else None, decoder=TARGET_SPANS if has_target else None, outputs=sets
    )
    method = AttentionFlow(solver=solver, **{name: value for name, value in options.items() if name != "n_prompt"})
    attribution = method(Attention(**stacks), spans=spans, n_prompt=options.get("n_prompt"))
    graph = oracle_general.graph(
        stacks.get("encoder"), stacks.get("decoder"), stacks.get("cross"),
        source_mask=np.ones(N_SOURCE, bool), target_mask=np.ones(N_TARGET, bool), **options,
    )  # fmt: skip
    last = ("d", len(stacks["decoder"])) if has_target else ("e", len(stacks["encoder"]))
    for row, outputs in enumerate(sets):
        sinks = [n for p in np.flatnonzero(outputs) for n in node(graph, *last, p)]
        if feedback == "unrolled":  # what is fed back from an output of the set arrived there before
            reached = graph.copy()
            reached.remove_edges_from([(a, b) for a, b in graph.edges if a in sinks])
        else:
            reached = graph
        for scores, spans, stack, played in (
            (attribution.encoder, SOURCE_SPANS, "e", N_SOURCE),
            (attribution.decoder, TARGET_SPANS, "d", n_prompt or N_TARGET),
        ):
            for column, span in enumerate(spans) if scores is not None else ():
                sources = [n for k in np.flatnonzero(span) if k < played for n in node(graph, stack, 0, k)]
                assert scores[row, column] == pytest.approx(joint_value(reached, sources, sinks), abs=1e-6)
    np.testing.assert_array_equal(attribution.positions, [0, 1, 2])
    np.testing.assert_array_equal(attribution.certificate.lower, attribution.certificate.upper)


@pytest.mark.parametrize("architecture", ["encoder", "decoder", "encoder-decoder"])
def test_a_joint_flow_lies_between_the_largest_and_the_sum_of_its_pairs(architecture):
    attention = Attention(**example(architecture, 2))
    alone = attention_flow(attention)
    side, spans = ("encoder", SOURCE_SPANS) if attention.encoder is not None else ("decoder", TARGET_SPANS)
    joint = getattr(AttentionFlow()(attention, spans=Spans(**{side: spans})), side)
    pairs = getattr(alone, side)
    largest = np.stack([pairs[:, span].max(-1) for span in spans], axis=-1)
    total = np.stack([pairs[:, span].sum(-1) for span in spans], axis=-1)
    assert (largest <= joint + 1e-9).all()
    assert (joint <= total + 1e-9).all()
    assert (joint < total - 1e-3).any(), "a joint flow is not the sum of its pairs"


def test_spans_of_one_token_are_tokens():
    attention = Attention(**example("encoder-decoder", 3))
    tokens = attention_flow(attention)
    spans = AttentionFlow()(
        attention,
        spans=Spans(
            encoder=np.eye(N_SOURCE, dtype=bool),
            decoder=np.eye(N_TARGET, dtype=bool),
            outputs=np.eye(N_TARGET, dtype=bool),
        ),
    )
    np.testing.assert_allclose(spans.encoder, tokens.encoder, atol=1e-12)
    np.testing.assert_allclose(spans.decoder, tokens.decoder, atol=1e-12)


def test_all_tokens_to_one_output_are_one_unit_of_flow():
    attention = Attention(encoder=example("encoder")["encoder"])
    everything = np.ones((1, N_SOURCE), bool)
    np.testing.assert_allclose(AttentionFlow()(attention, spans=Spans(encoder=everything)).encoder, 1, atol=1e-6)
    both = AttentionFlow()(attention, spans=Spans(encoder=everything, outputs=everything))
    assert 1 < both.encoder.item() <= N_SOURCE


def test_a_batch_with_spans_of_its_own_equals_its_rows():
    weights = np.stack([example("encoder", seed)["encoder"] for seed in range(3)])
    mask = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [0, 1, 1, 1]], bool)
    weights = np.where(mask[:, None, None, None], weights, 0)
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-9)
    spans = np.array([[[1, 1, 0, 0], [0, 0, 1, 1]], [[1, 0, 0, 0], [0, 1, 1, 1]], [[1, 0, 0, 0], [0, 0, 1, 1]]], bool)
    batch = AttentionFlow()(weights, encoder_mask=mask, spans=Spans(encoder=spans))
    for row in range(3):
        alone = AttentionFlow()(weights[row], encoder_mask=mask[row], spans=Spans(encoder=spans[row]))
        np.testing.assert_array_equal(batch.encoder[row], alone.encoder)
    assert not batch.encoder[2, :, 0].any(), "a span of padding alone scores 0"


def test_normalised_scores_of_spans_sum_to_one():
    attribution = AttentionFlow(normalise=True)(example("encoder")["encoder"], spans=Spans(encoder=SOURCE_SPANS))
    np.testing.assert_allclose(attribution.encoder.sum(-1), 1)


def test_uniform_correction_divides_by_the_joint_flow_of_uniform_attention():
    decoder = example("decoder")["decoder"]
    flat = np.tril(np.ones((N_TARGET, N_TARGET))) / np.arange(1, N_TARGET + 1)[:, None]
    flat = np.broadcast_to(flat, decoder.shape).astype(np.float32)
    spans = Spans(decoder=TARGET_SPANS, outputs=OUTPUT_SPANS)
    plain, uniform = (AttentionFlow()(Attention(decoder=weights), spans=spans).decoder for weights in (decoder, flat))
    corrected = AttentionFlow(correction="uniform")(Attention(decoder=decoder), spans=spans).decoder
    np.testing.assert_allclose(
        corrected, np.divide(plain, uniform, out=np.zeros_like(plain), where=uniform > 0), rtol=1e-6
    )


def test_joined_networks_stay_topologically_numbered():
    stacks = example("encoder-decoder")
    capacities = Capacities(**{name: weights.mean(1) for name, weights in stacks.items()}, residual=0.5)
    network = flow_network(capacities, feedback="unrolled", n_prompt=2)
    spans = np.array([[1, 0, 1, 0], [0, 0, 0, 0]], bool)
    joined = join_outputs(join_inputs(network, encoder_spans=spans), [2, 4])
    assert (joined.senders < joined.receivers).all()
    assert joined.encoder_inputs.tolist() == [0, network.n_nodes], "a span of nothing has a node without arcs"
    assert max_flow(joined, joined.encoder_inputs[1], joined.outputs[0]).value == 0
    assert max_flow(joined, joined.encoder_inputs[0], joined.outputs[0]).value > 0


def test_span_masks_of_words():
    for ends in itertools.combinations(range(6), 2):
        (mask,) = span_masks([ends], 5)
        assert np.flatnonzero(mask).tolist() == list(range(*ends))


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([], "There are no spans"),
        ([(0, 2), (1, 3)], "Spans 0 and 1 overlap: both hold token 1"),
        ([(3, 6)], r"Span \(3, 6\) leaves the text, which has 5 tokens"),
        ([(-1, 2)], r"Span \(-1, 2\) holds no token"),
        ([(2, 2)], r"Span \(2, 2\) holds no token"),
        ([(0.0, 2)], "is no span: expected"),
        (["ab"], "'ab' is no span"),
        ([(0, 1, 2)], "is no span"),
    ],
)
def test_spans_that_are_none(spans, message):
    with pytest.raises(ValueError, match=message):
        span_masks(spans, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spans": Spans(encoder=np.ones((1, N_SOURCE), bool))}, "spans.encoder are given, but there is no encoder"),
        ({"spans": Spans(decoder=np.ones((1, 3), bool))}, r"spans.decoder has shape \(1, 3\); expected"),
        ({"spans": Spans(decoder=np.ones(N_TARGET, bool))}, r"spans.decoder has shape \(5,\); expected"),
        ({"spans": Spans(decoder=np.zeros((0, N_TARGET), bool))}, r"spans.decoder has shape \(0, 5\); expected"),
        ({"spans": Spans(decoder=2 * np.ones((1, N_TARGET)))}, r"spans.decoder holds 2\.0; expected True or False"),
        ({"spans": Spans(decoder=np.ones((2, N_TARGET), bool))}, "Spans 0 and 1 overlap: both hold token 0"),
        ({"spans": Spans(outputs=OUTPUT_SPANS), "positions": 1}, "positions and spans of outputs are both given"),
    ],
)
def test_spans_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        AttentionFlow()(Attention(**example("decoder")), **options)


@pytest.mark.parametrize("spans", [Spans(outputs=OUTPUT_SPANS), Spans(decoder=TARGET_SPANS)])
def test_spans_have_no_distance_to_correct_by(spans):
    with pytest.raises(ValueError, match="correction='decay' divides by the distance"):
        AttentionFlow(correction="decay")(Attention(**example("decoder")), spans=spans)


def test_inputs_of_a_stack_that_is_not_there():
    network = flow_network(Capacities(encoder=np.eye(3)[None]))
    with pytest.raises(ValueError, match="decoder_spans are given, but the network has no decoder"):
        join_inputs(network, decoder_spans=np.ones((1, 3), bool))
