"""Leave-one-out of some tokens: against leaving out all, and where the method that chooses is right or wrong."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow import as_model, compare, explain, load_model, logit
from jaxflow.attribute import METHODS, Evidence, LeaveOneOut, method_label
from jaxflow.explain._runs import ModelRuns

TEXT = "the keys to the old cabinet"
FIRST = (logit(0),)
WORTH = jnp.array([0.0, 4.0, -3.0, 0.5, 2.0, -0.25])


def adds_up(input_ids, attention_mask):
    """Adds up what the tokens that are shown are worth."""
    worth = (jnp.asarray(attention_mask).astype(float) * WORTH[input_ids]).sum(-1, keepdims=True)
    return jnp.concatenate([worth, -worth], axis=-1)


class Fixed:
    """Scores that are given, for one example or for each output."""

    def __init__(self, *scores):
        self.scores = scores

    def attribute(self, evidence):
        return np.array(self.scores, float)


def evidence(targets=FIRST, **options):
    ids = np.arange(6)[None]
    runs = ModelRuns(as_model(adds_up), (), {"input_ids": ids, "attention_mask": np.ones_like(ids)}, list(targets))
    return Evidence(runs, tokens={"encoder": tuple("abcdef"), "decoder": ()}, positions=range(len(targets)), **options)


def test_the_best_are_left_out_and_the_others_keep_their_order():
    by = Fixed(1, 9, 8, -4, 2, 0)
    got = LeaveOneOut(best=2, by=by).attribute(evidence()).encoder[0]
    np.testing.assert_allclose(got[[1, 2]], [4, -3], rtol=1e-6)  # what they are worth
    rest = [0, 3, 4, 5]
    np.testing.assert_allclose(got[rest], np.array(by.scores)[rest] * got[4] / 2, rtol=1e-6)
    assert np.abs(got[rest]).max() == pytest.approx(0.5)  # half of 3, and at most half of 1
    small = LeaveOneOut(best=3, by=Fixed(0, 0, 0, 7, 9, 8)).attribute(evidence()).encoder[0]
    np.testing.assert_allclose(small[3:], [0.5, 2, -0.25], rtol=1e-6)
    assert not small[:3].any()
    tied = LeaveOneOut(best=3, by=Fixed(1, 2, 3, 7, 9, 8)).attribute(evidence()).encoder[0]
    np.testing.assert_allclose(tied[:3], np.array([1, 2, 3]) / 3 * 0.125, rtol=1e-6)  # below the smallest
    without_effect = LeaveOneOut(best=1, by=Fixed(9, 2, 3, 4, 5, 6)).attribute(evidence()).encoder[0]
    assert without_effect[0] == 0
    assert (np.diff(without_effect[1:]) > 0).all()


def test_as_many_as_there_are_is_leaving_out_all():
    plain = LeaveOneOut().attribute(evidence()).encoder
    np.testing.assert_allclose(plain, [np.asarray(WORTH)], rtol=1e-6)
    for best in (6, 9):
        np.testing.assert_array_equal(LeaveOneOut(best=best, by=Fixed(1)).attribute(evidence()).encoder, plain)
    some = np.array([False, True, True, False, False, True])
    got = LeaveOneOut(best=1, by=Fixed(9, 1, 2, 9, 9, 3)).attribute(evidence(candidates=some)).encoder[0]
    assert got[5] == pytest.approx(-0.25)
    assert not got[~some].any()
    assert 0 < got[1] < got[2] <= 0.125


def test_each_target_has_its_own_choice():
    two = evidence([logit(0), logit(1)])
    got = LeaveOneOut(best=1, by=Fixed([0, 9, 0, 0, 0, 1], [0, 0, 9, 0, 0, 1])).attribute(two).encoder
    assert got[0, 1] == pytest.approx(4)
    assert got[1, 2] == pytest.approx(3)
    assert np.abs(got[:, 5]).tolist() == [0.5, 0.5]


def test_tokens_are_replaced_by_a_function_of_the_users_own():
    def other_token(inputs, token):
        return {**inputs, "input_ids": jnp.asarray(inputs["input_ids"]).at[..., token].set(4)}

    got = LeaveOneOut(without=other_token, best=1, by=Fixed(0, 9, 8, 1, 2, 3)).attribute(evidence()).encoder[0]
    assert got[1] == pytest.approx(4 - 2)
    assert np.abs(got[2:]).max() == pytest.approx(0.5)


@pytest.mark.parametrize("by", ["contributions", "rollout", "flow_gradient", "input_x_gradient", "random"])
def test_by_methods_with_a_name(by):
    model, tokenizer = load_model("agreement")
    method = LeaveOneOut(best=2, by=by)
    assert method.needs == METHODS[by].needs | {"passes"}
    got = explain(model, TEXT, method, tokenizer=tokenizer, positions=0).scores[0]
    chosen = explain(model, TEXT, by, tokenizer=tokenizer, positions=0).scores[0]
    plain = explain(model, TEXT, "leave_one_out", tokenizer=tokenizer, positions=0).scores[0]
    best = np.argsort(-chosen, kind="stable")[:2]
    np.testing.assert_allclose(got[best], plain[best], rtol=1e-5)
    others = np.setdiff1d(np.arange(7), best)
    np.testing.assert_array_equal(np.argsort(got[others], kind="stable"), np.argsort(chosen[others], kind="stable"))
    assert np.abs(got[others]).max() <= np.abs(got[best]).min() / 2 + 1e-9


def unknown(inputs, token):
    """Put padding in a token's place, and let it be read."""
    return {**inputs, "input_ids": jnp.asarray(inputs["input_ids"]).at[:, token].set(0)}


@pytest.mark.parametrize("without", [None, unknown])
def test_in_a_comparison(without):
    model, tokenizer = load_model("agreement")
    methods = {
        "all": LeaveOneOut(without),
        "some": LeaveOneOut(without, best=3, by="contributions"),
        "by": "contributions",
    }
    found = compare(model, [TEXT], tokenizer=tokenizer, methods=methods, metrics=["deletion"])
    all_left_out, some, by = found.scores[0]
    best = 1 + np.argsort(-by[1:], kind="stable")[:3]
    np.testing.assert_allclose(some[best], all_left_out[best], rtol=1e-4)
    assert all_left_out[0] == some[0] == 0  # [CLS] is never hidden
    assert found.passes[0].tolist() == [[7, 0], [1 + 4, 1], [1, 1]]


def test_names_and_refusals():
    assert method_label(LeaveOneOut(best=4, by="rollout")) == "leave_one_out(best=4, by=rollout)"
    for options in ({"best": 3}, {"by": "flow"}):
        with pytest.raises(
            ValueError, match="expected both, how many tokens are left out and the method that chooses them"
        ):
            LeaveOneOut(**options)
    with pytest.raises(ValueError, match="best is 0; expected 1 or more tokens, or None for all"):
        LeaveOneOut(best=0, by="flow")
    with pytest.raises(ValueError, match="'shap' is no method; expected one of flow"):
        LeaveOneOut(best=1, by="shap")
    with pytest.raises(TypeError, match="method is int; expected a name"):
        LeaveOneOut(best=1, by=3)
    spans = evidence().with_spans(evidence().spans._replace(encoder=np.eye(6, dtype=bool)))
    with pytest.raises(ValueError, match="spans are given, but the method scores tokens one by one"):
        LeaveOneOut(best=1, by=Fixed(1)).attribute(spans)
