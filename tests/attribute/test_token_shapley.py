"""Shapley values of tokens: against all orders of four tokens, on planted games and on a model of the package."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow import as_model, compare, explain, load_model, logit
from jaxflow.attribute import Evidence, LeaveOneOut, TokenShapley
from jaxflow.evaluate import masked_value
from jaxflow.explain._runs import ModelRuns

N = 4
WEIGHTS = jnp.array([0.5, -1.0, 2.0, 0.25, 8.0])  # by token; 4 is worth a lot, if it is shown


def game(input_ids, attention_mask):
    """Tokens that work together, that stand in for each other, and that count twice."""
    shown = jnp.asarray(attention_mask).astype(float)
    a, b, c, d = jnp.moveaxis(jnp.where(shown > 0, WEIGHTS[input_ids], 0.0), -1, 0)[:N]
    return jnp.stack([a * c + jnp.maximum(b, d) + 3.0 * jnp.tanh(a + b + c + d), a], axis=-1)


def evidence(mask=None, **options):
    ids = np.array([[2, 3, 4, 1, 0][: N if mask is None else len(mask)]])
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids) if mask is None else np.array([mask])}
    runs = ModelRuns(as_model(game), (), inputs, [logit(0)])
    tokens = {"encoder": ("a",) * ids.shape[1], "decoder": ()}
    return Evidence(runs, tokens=tokens, positions=[0], **options)


def exact(value, n_tokens=N):
    """All orders, one by one; the value of a set of tokens."""
    found = np.zeros(n_tokens)
    for order in itertools.permutations(range(n_tokens)):
        shown = np.zeros(n_tokens, bool)
        for i in order:
            before = value(shown)
            shown[i] = True
            found[i] += (value(shown) - before) / math.factorial(n_tokens)
    return found


def value_of(its):
    return lambda shown: float(its.shown(shown[None])[0])


def test_many_orders_are_all_orders():
    expected = exact(value_of(evidence()))
    found = TokenShapley(n_permutations=4000).attribute(evidence())
    error = found.standard_error[0]
    assert found.encoder.shape == found.standard_error.shape == (1, N)
    assert (np.abs(found.encoder[0] - expected) <= 4 * error + 1e-6).all()
    assert 1e-4 < error.max() < 0.1


def test_values_share_what_all_tokens_are_worth():
    value = value_of(evidence())
    whole, nothing = value(np.ones(N, bool)), value(np.zeros(N, bool))
    for seed in range(5):
        found = TokenShapley(n_permutations=4, seed=seed).attribute(evidence())
        assert found.encoder.sum() == pytest.approx(whole - nothing, rel=1e-5)


def test_standard_errors_cover_the_truth():
    expected = exact(value_of(evidence()))
    its = evidence()
    inside, errors = [], []
    for seed in range(200):
        found = TokenShapley(n_permutations=32, seed=seed).attribute(its)
        inside.append(np.abs(found.encoder[0] - expected) <= 2 * found.standard_error[0])
        errors.append(found.encoder[0] - expected)
    assert 0.85 < np.mean(inside) <= 1
    assert (np.abs(np.mean(errors, axis=0)) < 4 * np.std(errors, axis=0) / np.sqrt(200) + 1e-6).all()


def test_reverses_save_orders():
    """A game of pairs is solved by one order and its reverse."""

    def pairs(input_ids, attention_mask):
        shown = jnp.asarray(attention_mask).astype(float)
        return jnp.stack([shown[:, 0] * shown[:, 1] + 2.0 * shown[:, 1] * shown[:, 3] - shown[:, 2]] * 2, axis=-1)

    ids = np.ones((1, N), int)
    runs = ModelRuns(as_model(pairs), (), {"input_ids": ids, "attention_mask": ids}, [logit(0)])
    its = Evidence(runs, tokens={"encoder": ("a",) * N, "decoder": ()}, positions=[0])
    found = TokenShapley(n_permutations=4).attribute(its)
    np.testing.assert_allclose(found.encoder, [[0.5, 1.5, -1.0, 1.0]], atol=1e-6)
    np.testing.assert_allclose(found.standard_error, 0, atol=1e-6)


def test_padding_and_what_may_not_be_hidden_score_0():
    mask = [1, 1, 1, 1, 0]
    padded = TokenShapley(n_permutations=8).attribute(
        evidence(mask, masks={"encoder": np.array(mask, bool), "decoder": None})
    )
    assert padded.encoder[0, 4] == padded.standard_error[0, 4] == 0
    np.testing.assert_allclose(
        padded.encoder[0, :N], TokenShapley(n_permutations=8).attribute(evidence()).encoder[0], rtol=1e-5
    )
    known = np.array([False, True, True, False])
    its = evidence(candidates=known)
    found = TokenShapley(n_permutations=4).attribute(its).encoder[0]
    assert not found[~known].any()
    only = exact(lambda shown: value_of(its)(np.insert(shown, [0, 2], True)), 2)
    np.testing.assert_allclose(found[known], only, rtol=1e-5)  # of two tokens, each order and its reverse are all


def test_a_model_of_the_package():
    model, tokenizer = load_model("agreement")
    text = "the guards near doors"
    value = masked_value(model, target=logit(1), **{name: np.asarray(v) for name, v in tokenizer([text]).items()})
    expected = exact(lambda shown: float(value(np.insert(shown, 0, True))))
    methods = {"shapley": TokenShapley(n_permutations=600), "without": LeaveOneOut()}
    found = compare(model, [text], tokenizer=tokenizer, methods=methods, metrics=["deletion"])
    assert found.scores[0][0][0] == 0  # [CLS]
    np.testing.assert_allclose(found.scores[0][0][1:], expected, atol=0.1 * np.abs(expected).max())
    assert found.passes[0].tolist() == [[16, 0], [5, 0]]  # sets of 4 tokens
    words = explain(model, text, TokenShapley(), tokenizer=tokenizer, positions=[0, 1], spans=[(1, 3), (3, 5)])
    tokens = explain(model, text, TokenShapley(), tokenizer=tokenizer, positions=[0, 1])
    assert tokens.attribution.standard_error.shape == (2, 5)
    assert words.attribution.standard_error is None
    np.testing.assert_allclose(words.scores[:, -1], tokens.scores[:, 3:].sum(1), rtol=1e-5)


@pytest.mark.parametrize("n_permutations", [2, 5, 0])
def test_numbers_of_orders_that_are_refused(n_permutations):
    with pytest.raises(ValueError, match=f"n_permutations is {n_permutations}; expected an even number, 4 or more"):
        TokenShapley(n_permutations=n_permutations)


def test_a_target_that_is_not_finite_is_refused():
    def broken(input_ids, attention_mask):
        shown = jnp.asarray(attention_mask).astype(float).sum(-1, keepdims=True)
        return jnp.concatenate([jnp.log(shown)] * 2, axis=-1)

    ids = np.ones((1, 3), int)
    runs = ModelRuns(as_model(broken), (), {"input_ids": ids, "attention_mask": ids}, [logit(0)])
    its = Evidence(runs, tokens={"encoder": ("a",) * 3, "decoder": ()}, positions=[0])
    with pytest.raises(ValueError, match="The target is not finite for 1 of"):
        TokenShapley().attribute(its)
