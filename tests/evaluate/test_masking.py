"""A model's number with tokens hidden: against the model itself, and the model that decides by one token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from planted_models import IDS, MODEL, NNX, PLANTED, VARIABLES

from jaxflow import contrast, load_model
from jaxflow.attribute import gradient_norm, leave_one_out, random_scores
from jaxflow.evaluate import erase, erasure_curves, masked_value, rank_correlation

TARGET = contrast(1, 0)
MASKS = np.random.default_rng(0).random((2, 5, 5)) < 0.6


def value_of(ids=IDS[:1], **options):
    return masked_value(MODEL, ids, variables=VARIABLES, target=TARGET, **options)


def test_many_masks_are_as_one_by_one():
    one_by_one = [
        [float(TARGET(MODEL.apply(VARIABLES, IDS[:1], jnp.asarray(m)[None]))[0]) for m in row] for row in MASKS
    ]
    for batch_size in (3, 64):
        got = value_of(batch_size=batch_size)(MASKS)
        assert got.shape == (2, 5)
        np.testing.assert_allclose(got, one_by_one, rtol=1e-5)


def test_nnx_modules_and_functions():
    expected = value_of()(MASKS)
    for model in (NNX, NNX.decide, lambda input_ids, attention_mask: MODEL.apply(VARIABLES, input_ids, attention_mask)):
        np.testing.assert_allclose(masked_value(model, IDS[:1], target=TARGET)(MASKS), expected, rtol=1e-5)
    np.testing.assert_array_equal(NNX.calls[...], 0)


def test_padding_stays_hidden_and_a_token_may_stand_in():
    mask = np.array([[1, 1, 1, 1, 0]])
    padded = masked_value(MODEL, IDS[:1], mask, variables=VARIABLES, target=lambda outputs: outputs.sum(-1))
    kept = np.ones((1, 5), bool)
    np.testing.assert_allclose(padded(kept), MODEL.apply(VARIABLES, IDS[:1], mask).sum(), rtol=1e-5)
    replaced = value_of(replacement=7)(~np.eye(5, dtype=bool))
    expected = [float(TARGET(MODEL.apply(VARIABLES, IDS[:1].at[0, i].set(7)))[0]) for i in range(5)]
    np.testing.assert_allclose(replaced, expected, rtol=1e-5)


def test_a_bound_model_of_the_package():
    model, tokenizer = load_model("agreement")
    inputs = {name: np.asarray(value) for name, value in tokenizer(["the keys to the old cabinet"]).items()}
    value = masked_value(model, target=lambda logits: jax.nn.softmax(logits)[:, 1], **inputs)
    hidden = np.ones(7, bool)
    hidden[2] = False
    expected = jax.nn.softmax(model(inputs["input_ids"], attention_mask=hidden[None]))[0, 1]
    np.testing.assert_allclose(value(hidden), expected, rtol=1e-4)
    assert value(np.ones(7, bool)) > 0.99


def test_transformers(standard_promotion):
    import tiny_models

    model, inputs = tiny_models.build("Bart", "ForConditionalGeneration"), tiny_models.inputs("Bart")
    one = {name: value[1:] for name, value in inputs.items()}
    value = masked_value(model, target=contrast(3, 7, position=2), **one)
    kept = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1, 1]], bool)
    expected = [
        contrast(3, 7, position=2)(model(**{**one, "attention_mask": one["attention_mask"] * row}))[0] for row in kept
    ]
    np.testing.assert_allclose(value(kept), expected, rtol=1e-4)
    others = jax.tree.map(lambda leaf: 2 * leaf, model.params)
    value = masked_value(model, target=contrast(3, 7, position=2), params=others, **one)
    np.testing.assert_allclose(
        value(kept[0]), contrast(3, 7, position=2)(model(params=others, **one))[0], rtol=1e-4, atol=1e-6
    )


def test_methods_that_find_the_planted_token_rank_above_chance():
    value = value_of()
    whole, without = value(np.stack([np.ones(5, bool), np.arange(5) != PLANTED]))
    sign = np.sign(whole - without)

    def signed(kept):
        return sign * value(kept)

    gradient = gradient_norm(MODEL, IDS[:1], variables=VARIABLES, target=TARGET).encoder[0, 0]
    hidden = leave_one_out(MODEL, IDS[:1], variables=VARIABLES, target=TARGET)
    chance = [random_scores(hidden, seed=s).encoder[0, 0] for s in range(200)]
    assert gradient.argmax() == np.abs(hidden.encoder[0, 0]).argmax() == PLANTED
    assert rank_correlation(gradient, np.abs(hidden.encoder[0, 0])) == 1
    assert abs(np.mean([rank_correlation(scores, gradient) for scores in chance])) < 0.1
    found, lost = erase(signed, gradient, bins=[0.2]), [erase(signed, scores, bins=[0.2]) for scores in chance]
    gain = sign * (whole - without)
    np.testing.assert_allclose(found.comprehensiveness, gain, rtol=1e-5)
    np.testing.assert_allclose(found.sufficiency, 0, atol=1e-6)
    # One token in five is hidden: by chance it is the planted one as often.
    assert np.mean([each.comprehensiveness[0] for each in lost]) == pytest.approx(gain / 5, abs=0.1 * gain)
    assert np.mean([each.sufficiency[0] for each in lost]) == pytest.approx(gain * 4 / 5, abs=0.1 * gain)
    curves, random = erasure_curves(signed, gradient), [erasure_curves(signed, scores) for scores in chance]
    # At the first step of five, by the trapezoid; by chance at any, so half of the area is above.
    np.testing.assert_allclose(curves.activation - sign * without, gain * 0.9, rtol=1e-4)
    np.testing.assert_allclose(sign * whole - curves.deletion, gain * 0.9, rtol=1e-4)
    np.testing.assert_allclose(curves.pruning, gain**2 * 0.1, rtol=1e-4)
    assert np.mean([each.activation for each in random]) - sign * without == pytest.approx(gain / 2, abs=0.05 * gain)
    assert np.mean([each.pruning for each in random]) == pytest.approx(gain**2 / 2, abs=0.05 * gain**2)


def test_refusals():
    with pytest.raises(ValueError, match=r"input_ids has shape \(2, 5\); expected one example"):
        value_of(IDS)
    with pytest.raises(ValueError, match=r"kept has shape \(4,\); expected masks over 5 tokens"):
        value_of()(np.ones(4, bool))
    with pytest.raises(ValueError, match="is unbound: pass variables="):
        masked_value(MODEL, IDS[:1], target=TARGET)(np.ones(5, bool))
    with pytest.raises(
        ValueError, match=r"the model returned int32 of shape \(64, 5\); expected logits, of a floating dtype"
    ):
        masked_value(lambda input_ids, attention_mask: input_ids, input_ids=IDS[:1], target=TARGET)(np.ones(5, bool))
