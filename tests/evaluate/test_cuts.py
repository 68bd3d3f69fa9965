"""A minimum cut is tested on the model: what it loses without the cut's arcs, and without others."""

import numpy as np
import pytest

import jaxflow as jf
from jaxflow.capture import capture, knock_out
from jaxflow.evaluate import cut_effect

TEXT = "the keys to the old cabinet"


def read(tokenizer, text=TEXT):
    return {name: np.asarray(values) for name, values in tokenizer([text]).items()}


@pytest.mark.parametrize("way", ["recorded", "traced", "divided late"])
def test_attention_that_is_knocked_out_is_0_and_the_rest_goes_on(way):
    if way == "divided late":  # the weights never are an array of their own
        import jax
        import jax.numpy as jnp

        def model(x):
            for _ in range(2):
                scores = jnp.exp(x @ x.T)
                x = x + (scores @ x) / scores.sum(-1, keepdims=True)
            return x

        inputs, n_tokens = (jax.random.normal(jax.random.key(0), (5, 3)),), 5
        outputs, attention = capture(model, *inputs)
        arcs = np.zeros((2, n_tokens, n_tokens), bool)
        arcs[0, 1, 2] = True
        changed, left = knock_out(model, *inputs, arcs={"encoder": arcs})
        weights = np.asarray(attention.encoder[0, 0]).copy()
        weights[1, 2] = 0
        x = np.asarray(inputs[0])
        x = x + weights @ x
        scores = np.exp(x @ x.T)
        np.testing.assert_allclose(changed, x + scores @ x / scores.sum(-1, keepdims=True), rtol=1e-4, atol=1e-4)
        return
    model, tokenizer = jf.load_model("agreement")
    inputs = read(tokenizer)
    subject = model if way == "recorded" else (lambda **inputs: model(**inputs))
    outputs, attention = capture(subject, **inputs)
    none, same = knock_out(subject, arcs={"encoder": np.zeros((4, 7, 7), bool)}, **inputs)
    np.testing.assert_allclose(none, outputs, atol=1e-5)
    np.testing.assert_allclose(same.encoder, attention.encoder, atol=1e-6)
    arcs = np.zeros((4, 7, 7), bool)
    arcs[1, 3] = arcs[2, :, 2] = True
    changed, left = knock_out(subject, arcs={"encoder": arcs}, **inputs)
    np.testing.assert_array_equal(np.asarray(left.encoder[0])[arcs[:, None] & np.ones((4, 4, 7, 7), bool)], 0)
    np.testing.assert_allclose(left.encoder[0, 0], attention.encoder[0, 0], atol=1e-6)  # the first layer is as it was
    assert np.abs(np.asarray(changed - outputs)).max() > 1e-3


def test_arcs_must_fit():
    model, tokenizer = jf.load_model("agreement")
    for arcs in ({"encoder": np.zeros((4, 6, 6), bool)}, {"decoder": np.zeros((4, 7, 7), bool)}):
        with pytest.raises(ValueError, match=r"expected one of encoder \(1, 4, 7, 7\)"):
            knock_out(model, arcs=arcs, **read(tokenizer))


def test_the_cut_of_contributions_holds_more_than_others():
    model, tokenizer = jf.load_model("agreement")
    effects = [
        cut_effect(model, target=jf.contrast(1, 0), n_random=6, seed=i, **read(tokenizer, text))
        for i, text in enumerate((TEXT, "the doors of the house", "the keys near the doors"))
    ]
    for effect in effects:
        assert effect.cut.value > 0
        np.testing.assert_allclose(effect.cut.value, effect.cut.capacity.sum())
    assert np.mean([effect.over_equal_capacity for effect in effects]) > 0
    assert np.mean([effect.over_equal_layer for effect in effects]) > 0


def test_what_has_no_cut_is_refused():
    model, tokenizer = jf.load_model("agreement")
    with pytest.raises(ValueError, match="which have cuts"):
        cut_effect(model, target=jf.logit(1), method="rollout", **read(tokenizer))
    with pytest.raises(ValueError, match="position is None"):
        cut_effect(model, target=jf.logit(1), method="flow", **read(tokenizer))
