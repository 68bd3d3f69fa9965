"""SetShapley: each output's set game, for batches, masks and every architecture; and what is shown of it."""

import json

import jax
import numpy as np
import pytest
from general_networks import ARCHITECTURES, example
from strategies import make_attention

from jaxflow import (
    Attention,
    AttentionFlow,
    SetShapley,
    attention_flow,
    explain,
    flow_network,
    joint_capacities,
    load,
    load_model,
)
from jaxflow.attribute.shapley import sample_set_shapley, set_shapley
from jaxflow.cli._main import main
from jaxflow.network import Spans, join_outputs

LONG = "the old keys to the cabinets near the doors of the house beside the garden near the bridges"


def stacked(attribution):
    return np.concatenate([s for s in (attribution.encoder, attribution.decoder) if s is not None], axis=-1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_output_is_a_game(architecture):
    attention = Attention(**example(architecture))
    network = flow_network(joint_capacities(attention, residual=0.3))
    found = SetShapley(residual=0.3)(attention)
    for row, sink in zip(stacked(found), network.outputs, strict=True):
        np.testing.assert_allclose(row, set_shapley(network, sink).values, atol=1e-8)
    np.testing.assert_allclose(stacked(found).sum(-1), 1, atol=1e-6)
    assert not found.standard_error.any()
    assert found.certificate is None
    scores = stacked(attention_flow(attention, residual=0.3))
    assert (stacked(found) <= scores + 1e-7).all()


def test_what_is_fed_back_is_no_player():
    attention = Attention(**example("encoder-decoder"))
    method = SetShapley(feedback="unrolled", decoder_layer="parallel", residual=0.3)
    found = method(attention, positions=[4, 1], n_prompt=2)
    assert found.positions.tolist() == [4, 1]
    assert found.decoder[0, :2].all()
    assert not found.decoder[:, 2:].any()
    np.testing.assert_allclose(stacked(found).sum(-1), 1.7, atol=1e-6)


def test_a_batch_with_padding_equals_its_rows_alone():
    weights = np.stack([make_attention("softmax", seed, (3, 2, 6, 6)) for seed in range(2)])
    mask = np.array([[True] * 6, [True] * 4 + [False] * 2])
    weights[1, ..., 4:] = 0
    weights[1] /= weights[1].sum(-1, keepdims=True)
    both = SetShapley()(weights, encoder_mask=mask)
    np.testing.assert_array_equal(both.encoder[0], SetShapley()(weights[0]).encoder)
    np.testing.assert_allclose(both.encoder[1, :4, :4], SetShapley()(weights[1][..., :4, :4]).encoder, atol=1e-7)
    assert not both.encoder[1, 4:].any()
    assert not both.encoder[1, :, 4:].any()


def test_many_tokens_are_sampled():
    weights = make_attention("softmax", 0, (3, 1, 20, 20))
    found = SetShapley(precision=0.01, n_permutations=100, seed=3)(weights, positions=[3, 5])
    network = flow_network(joint_capacities(Attention(encoder=weights)))
    alone = sample_set_shapley(network, network.outputs[5], precision=1e-2, n_permutations=100, seed=3)
    np.testing.assert_array_equal(found.encoder[1], alone.values)
    np.testing.assert_array_equal(found.standard_error[1], alone.standard_error)
    halves = SetShapley(normalise=True, precision=0.01, n_permutations=100, seed=3)(weights, positions=[3, 5])
    np.testing.assert_allclose(halves.encoder.sum(-1), 1)
    np.testing.assert_allclose(halves.standard_error, found.standard_error / found.encoder.sum(-1, keepdims=True))


def test_is_refused_under_jit():
    with pytest.raises(ValueError, match="solved on the host and cannot be traced"):
        jax.jit(SetShapley())(make_attention("softmax", 0, (2, 1, 3, 3)))


@pytest.mark.parametrize("ending", [".json", ".npz"])
def test_explanations_keep_and_show_errors(tmp_path, ending):
    model, tokenizer = load_model("agreement")
    explanation = explain(model, LONG, "shapley", tokenizer=tokenizer, positions=0)
    error = explanation.attribution.standard_error
    text, page = str(explanation), explanation._repr_html_()
    assert f"±{2 * error[0, 1]:.3f}" in text
    assert f"±{2 * error[0, 1]:.3f}" in page
    assert f"Sampled: ± is twice the standard error, at most {2 * error.max():.4f}" in text
    assert "Saturated" not in text
    explanation.save(tmp_path / f"x{ending}")
    again = load(tmp_path / f"x{ending}")
    np.testing.assert_array_equal(again.attribution.standard_error, error)
    assert str(again) == text


def test_from_the_command_line(capsys):
    assert main(["explain", "--method", "shapley", "the keys to the old cabinet"]) == 0
    text = capsys.readouterr().out
    assert "Shapley values of joint attention flow" in text
    assert "Exact: every coalition of tokens was tried." in text
    assert "±" not in text
    assert main(["explain", "--method", "shapley", "--json", "the keys to the old cabinet"]) == 0
    scores = json.loads(capsys.readouterr().out)["content"]["attribution"]["encoder"]["data"]
    np.testing.assert_allclose(sum(scores), 1, atol=1e-6)


def test_spans_play_the_game_that_groups_play():
    attention = Attention(**example("encoder-decoder", 4))
    spans, outputs = np.array([[1, 1, 0, 0], [0, 0, 0, 1]], bool), np.array([[0, 1, 1, 0, 1]], bool)
    got = SetShapley()(attention, spans=Spans(encoder=spans, outputs=outputs))
    network = join_outputs(flow_network(joint_capacities(attention)), [1, 2, 4])
    groups = [network.encoder_inputs[:2], network.encoder_inputs[3:], *network.decoder_inputs[:, None]]
    reached = [group for group in groups if group[0] < network.outputs[0]]
    expected = set_shapley(network, network.outputs[0], players=reached)
    assert got.encoder.shape == (1, 2)
    np.testing.assert_allclose([*got.encoder[0], *got.decoder[0]][: len(reached)], expected.values, atol=1e-7)
    total = AttentionFlow()(attention, spans=Spans(encoder=np.ones((1, 4), bool), outputs=outputs)).encoder
    assert got.encoder.sum() + got.decoder.sum() >= total - 1e-7
