"""intervene: edits made with loops, and what must follow from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import capacities_by_loops, networkx_values
from strategies import make_attention

from jaxflow import Attention, AttentionFlow, Capacities, attention_flow
from jaxflow.attribute import Ablation, ablate, ablated_capacities, intervene
from jaxflow.solve import flow_value

N = 4


def weights(seed=0, *, batch=()):
    return make_attention("softmax", seed, (*batch, 3, 2, N, N))


EDITS = {
    "head": (Ablation(0, layer=1, head=0), lambda w, lay, head, q, k: 0 if (lay, head) == (1, 0) else w),
    "layer": (Ablation(0.5, layer=2), lambda w, lay, head, q, k: 0.5 * w if lay == 2 else w),
    "arc": (Ablation(0, layer=0, query=2, key=3), lambda w, lay, head, q, k: 0 if (lay, q, k) == (0, 2, 3) else w),
    "token read": (Ablation(0.25, key=[1, 3]), lambda w, lay, head, q, k: 0.25 * w if k in (1, 3) else w),
    "token reads": (Ablation(3, query=0), lambda w, lay, head, q, k: 3 * w if q == 0 else w),
}


@pytest.mark.parametrize("name", EDITS)
def test_scores_are_those_of_weights_that_were_edited_one_by_one(name):
    scale, by_hand = EDITS[name]
    before = weights()
    after = before.astype(np.float64)
    for index in np.ndindex(after.shape):
        after[index] = by_hand(after[index], *index)
    result = intervene(Attention(encoder=before), scale)
    pairs = [(source, sink) for sink in range(N) for source in range(N)]
    expected = networkx_values(capacities_by_loops(after), pairs)
    np.testing.assert_allclose(result.after.encoder.ravel(), expected, atol=1e-6)
    np.testing.assert_array_equal(result.before.encoder, attention_flow(before).encoder)
    np.testing.assert_array_equal(result.encoder, result.after.encoder - result.before.encoder)
    assert result.decoder is None
    if scale.factor < 1:
        assert (result.encoder <= 0).all()
        assert (result.encoder < 0).any()


def test_edits_follow_one_another_and_no_edit_changes_nothing():
    attention = Attention(encoder=weights())
    assert not intervene(attention, []).encoder.any()
    twice = ablate(attention, [Ablation(0.5, layer=0), Ablation(0.5, layer=0, head=1)]).encoder
    np.testing.assert_allclose(twice[0, 1], 0.25 * attention.encoder[0, 1])
    np.testing.assert_allclose(twice[0, 0], 0.5 * attention.encoder[0, 0])
    np.testing.assert_array_equal(twice[1:], attention.encoder[1:])


def test_normalised_anew_rows_keep_their_sums():
    attention = Attention(encoder=weights())
    edited = ablate(attention, Ablation(0, key=2), renormalise=True).encoder
    np.testing.assert_allclose(edited.sum(-1), 1, rtol=1e-6)
    assert not edited[..., 2].any()
    kept = np.delete(attention.encoder, 2, axis=-1)
    np.testing.assert_allclose(np.delete(edited, 2, axis=-1), kept / kept.sum(-1, keepdims=True), rtol=1e-5)
    gone = ablate(attention, Ablation(0, query=1), renormalise=True).encoder
    assert not gone[:, :, 1].any()
    result = intervene(attention, Ablation(0, key=2), renormalise=True)
    np.testing.assert_allclose(result.after.encoder, attention_flow(np.asarray(edited)).encoder, atol=1e-6)


def test_capacities_are_edited_as_they_are():
    layers = weights()[:, 0]
    result = intervene(Capacities(encoder=layers), Ablation(0, layer=1, query=0))
    layers = layers.copy()
    layers[1, 0] = 0
    np.testing.assert_array_equal(result.after.encoder, attention_flow(Capacities(encoder=layers)).encoder)


def test_stacks_of_an_encoder_decoder():
    attention = Attention(
        encoder=weights(0),
        decoder=make_attention("causal", 1, (2, 2, N, N)),
        cross=make_attention("softmax", 2, (2, 2, N, N)),
    )
    result = intervene(attention, Ablation(0, stack="cross"), AttentionFlow(decoder_layer="parallel"), positions=[1, 3])
    assert result.before.encoder.any()
    assert not result.after.encoder.any()  # nothing of the source is read any more
    np.testing.assert_allclose(result.encoder, -result.before.encoder)
    assert result.decoder.shape == (2, N)
    with pytest.raises(ValueError, match=r"stack=None.*encoder, decoder, cross: say which of them is meant"):
        intervene(attention, Ablation(0, layer=0))


def test_a_batch_gives_what_its_rows_give():
    batch = weights(5, batch=(2,))
    result = intervene(Attention(encoder=batch), EDITS["head"][0], encoder_mask=np.array([[True] * 4, [True] * 4]))
    for row in range(2):
        np.testing.assert_array_equal(
            result.encoder[row], intervene(Attention(encoder=batch[row]), EDITS["head"][0]).encoder
        )


def test_the_gradient_by_a_factor_is_the_first_step_of_the_edit():
    attention = Attention(encoder=jnp.asarray(weights()))

    def score(factor):
        return flow_value(ablated_capacities(attention, Ablation(factor, layer=2, head=1)), 1, 2)

    slope = jax.jit(jax.grad(score))(1.0)
    np.testing.assert_allclose(slope, (score(1.0) - score(0.99)) / 0.01, rtol=1e-3)
    assert slope > 0


def test_bad_input():
    attention = Attention(encoder=weights())
    with pytest.raises(
        ValueError, match=r"Ablation\(layer=3\), but encoder has 3, 0 to 2; expected one of them, or several"
    ):
        intervene(attention, Ablation(0, layer=3))
    with pytest.raises(ValueError, match=r"Ablation\(head=-1\), but encoder has 2"):
        intervene(attention, Ablation(0, head=-1))
    with pytest.raises(ValueError, match=r"Ablation\(key=\[\]\)"):
        intervene(attention, Ablation(0, key=[]))
    with pytest.raises(ValueError, match=r"Ablation\(factor=-1\); expected one number, 0 or more"):
        intervene(attention, Ablation(-1))
    with pytest.raises(
        ValueError, match=r"Ablation\(head=0\), but the heads of Capacities are reduced: give the Attention"
    ):
        intervene(Capacities(encoder=weights()[:, 0]), Ablation(0, head=0))
    with pytest.raises(ValueError, match=r"Ablation\(stack='decoder'\), but there are encoder"):
        intervene(attention, Ablation(0, stack="decoder"))
    with pytest.raises(ValueError, match="expected 1 within"):
        intervene(Attention(encoder=2 * weights()), Ablation(0, layer=0))
