import jax
import numpy as np
import pytest
from strategies import make_attention

from jaxflow import Attention, AttentionFlow, attention_flow, flow_network, joint_capacities, min_cut
from jaxflow.training import flow_summary

ENCODER_DECODER = Attention(
    encoder=make_attention("softmax", 0, (2, 3, 2, 5, 5)),
    decoder=make_attention("causal", 1, (2, 2, 2, 4, 4)),
    cross=make_attention("softmax", 2, (2, 2, 2, 4, 5)),
)


def test_numbers_of_one_layer_are_those_of_its_capacities():
    weights = np.array([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5], [0.0, 0.0, 1.0]], np.float32)
    summary = flow_summary(joint_capacities(Attention(encoder=weights[None, None]), residual=0.0))
    np.testing.assert_allclose(summary.attribution.encoder, weights)
    assert summary.saturation == 1 / 9  # the last output takes all it has from one input
    np.testing.assert_array_equal(summary.bottleneck, [1.0])
    np.testing.assert_allclose(summary.entropy, (np.log(2) + 1.5 * np.log(2) + 0) / 3, rtol=1e-6)
    np.testing.assert_allclose(summary.first_source_share, 0.75 / 3, rtol=1e-6)
    assert summary.first_prefix_share is summary.source_share is summary.prefix_share is None


@pytest.mark.parametrize("decoder_layer", ["sublayers", "parallel"])
def test_shares_and_bottleneck_are_what_their_definitions_say(decoder_layer):
    summary = flow_summary(ENCODER_DECODER, AttentionFlow(decoder_layer=decoder_layer), positions=[1, 3])
    result = attention_flow(ENCODER_DECODER, decoder_layer=decoder_layer, positions=[1, 3])
    sources, firsts, cuts = [], [], np.zeros(5)
    for example in range(2):
        capacities = joint_capacities(jax.tree.map(lambda leaf, i=example: leaf[i], ENCODER_DECODER))
        network = flow_network(capacities, decoder_layer=decoder_layer)
        for row, output in enumerate((1, 3)):
            encoder, decoder = result.encoder[example, row], result.decoder[example, row]
            sources.append(encoder.sum() / (encoder.sum() + decoder.sum()))
            firsts.append(decoder[0] / (encoder.sum() + decoder.sum()))
            for player in network.inputs[np.append(encoder, decoder) > 0]:
                cut = min_cut(network, player, network.outputs[output], solver="ortools")  # the summary's are not
                cuts += cut.share * cut.value
    np.testing.assert_allclose(summary.source_share, np.mean(sources))
    np.testing.assert_allclose(summary.prefix_share, 1 - np.mean(sources))
    np.testing.assert_allclose(summary.first_prefix_share, np.mean(firsts))
    np.testing.assert_allclose(summary.bottleneck, cuts / cuts.sum(), atol=1e-6)


def test_padding_changes_nothing():
    whole = make_attention("softmax", 3, (1, 3, 2, 6, 6))
    for mask in (np.arange(6) < 4, np.arange(6) >= 2):  # on the right, and on the left
        alone = whole[..., mask, :][..., mask]
        alone /= alone.sum(-1, keepdims=True)
        padded = np.full_like(whole, np.nan)
        padded[..., np.ix_(mask, mask)[0], np.ix_(mask, mask)[1]] = alone
        padded = np.where(mask, np.nan_to_num(padded), 0).astype(np.float32)
        expected = flow_summary(alone).scalars()
        got = flow_summary(joint_capacities(Attention(encoder=padded), encoder_mask=mask[None])).scalars()
        assert got == pytest.approx(expected, abs=1e-6)


def test_scalars_are_named_in_the_order_of_layers():
    summary = flow_summary(make_attention("softmax", 4, (11, 1, 3, 3)))
    scalars = summary.scalars()
    assert [name for name in scalars if name.startswith("cut_share/")] == [
        f"cut_share/layer_{i:02}" for i in range(1, 12)
    ]
    assert scalars["bottleneck_layer"] == summary.bottleneck.argmax() + 1
    assert all(isinstance(value, float) for value in scalars.values())
    assert "source_share" not in scalars
    assert set(flow_summary(ENCODER_DECODER, positions=0).scalars()) > {
        "source_share",
        "prefix_share",
        "first_prefix_share",
    }


def test_attention_that_says_nothing_has_the_greatest_entropy():
    weights = np.full((1, 1, 4, 4), 0.25, np.float32), np.eye(4, dtype=np.float32)[None, None]
    even, one = (flow_summary(joint_capacities(Attention(encoder=each), residual=0.0)) for each in weights)
    np.testing.assert_allclose([even.entropy, one.entropy], [np.log(4), 0], atol=1e-6)
