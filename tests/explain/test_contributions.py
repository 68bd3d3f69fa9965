"""An explanation answers both questions: what each token could send, and what it did give to what the model chose."""

import jax
import numpy as np
import pytest

from jaxflow import Example, Generate, as_model, explain, load, load_model
from jaxflow.cli import main

TEXT = "the keys to the old cabinet"


@pytest.fixture(scope="module")
def agreement():
    return load_model("agreement")


@pytest.fixture(scope="module")
def decoder():
    return load_model("agreement-lm")


def attend(x):
    return jax.nn.softmax(x @ x.T, axis=-1) @ x


def test_the_default_shows_both(agreement):
    model, tokenizer = agreement
    both = explain(model, TEXT, tokenizer=tokenizer, positions=[0, 2])
    sent = explain(model, TEXT, "flow", tokenizer=tokenizer, positions=[0, 2])
    gave = explain(model, TEXT, "contributions", tokenizer=tokenizer, positions=[0, 2])
    np.testing.assert_array_equal(both.scores, sent.scores)
    np.testing.assert_allclose(both.contributions.scores, gave.scores, atol=1e-6)
    assert both.contributions.conventions["target"] == "plural"
    assert sent.contributions is None
    assert gave.contributions is None


def test_a_contrast_is_the_difference_of_two_logits(agreement):
    model, tokenizer = agreement
    options = {"tokenizer": tokenizer, "positions": 0}
    plural, singular = (
        explain(model, TEXT, "contributions", target=t, **options).scores for t in ("plural", "singular")
    )
    for target in (("plural", "singular"), (None, "singular"), (1, 0)):
        found = explain(model, TEXT, target=target, **options).contributions
        np.testing.assert_allclose(found.scores, plural - singular, atol=1e-5)
    named = explain(model, TEXT, target=(None, "singular"), **options).contributions
    assert named.conventions["target"] == "plural rather than singular"
    with pytest.raises(ValueError, match=r"target is \('plural', 'plural'\); expected two labels that differ"):
        explain(model, TEXT, target=("plural", "plural"), **options)
    with pytest.raises(ValueError, match="target is 'dual'; expected one of 'singular', 'plural'"):
        explain(model, TEXT, target=("plural", "dual"), **options)


def test_a_contrast_of_written_tokens(decoder):
    model, tokenizer = decoder
    options = {"tokenizer": tokenizer, "generate": Generate(continuation="are")}
    found = explain(model, TEXT, target=(None, "is"), **options).contributions
    are, other = (explain(model, TEXT, "contributions", target=t, **options).scores for t in ("are", "is"))
    np.testing.assert_allclose(found.scores, are - other, atol=1e-5)
    assert found.conventions["target"] == "each token rather than is"


def test_each_position_has_its_own_where_each_predicts(decoder):
    model, tokenizer = decoder
    found = explain(model, TEXT, tokenizer=tokenizer).contributions
    assert found.scores.shape == (7, 7)
    assert (np.triu(found.scores, 1) == 0).all()


def test_both_are_saved(agreement, tmp_path):
    model, tokenizer = agreement
    both = explain(model, TEXT, tokenizer=tokenizer, positions=0)
    for suffix in ("json", "npz"):
        both.save(tmp_path / f"x.{suffix}")
        read = load(tmp_path / f"x.{suffix}")
        np.testing.assert_array_equal(read.contributions.scores, both.contributions.scores)
        assert str(read) == str(both)


def test_a_model_that_predicts_nothing_has_none():
    explained = explain(attend, np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32))
    assert explained.contributions is None
    assert explained.contributions_refused is None


def test_what_cannot_be_told_is_said(tmp_path):
    def model(x):
        x = jax.lax.while_loop(lambda state: state.sum() < -1e9, lambda state: state + 1, attend(x))
        return x[0, :2]

    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    labelled = as_model(model, labels=("no", "yes"))
    explained = explain(labelled, Example({"x": x}, tokens=list("abcd")))
    assert explained.contributions is None
    assert "while" in explained.contributions_refused
    assert "What tokens did give is not known. The contributions of this model cannot be told" in str(explained)
    explained.save(tmp_path / "x.json")
    assert load(tmp_path / "x.json").contributions_refused == explained.contributions_refused


def test_attention_flow_is_shown_where_contributions_do_not_fit():
    """Attention without a batch axis, and logits with one."""
    labelled = as_model(lambda x: attend(x)[0, :2][None], labels=("no", "yes"))
    explained = explain(labelled, np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32))
    assert explained.scores.shape == (4, 4)
    assert "target returned shape (1,)" in explained.contributions_refused


def test_a_contrast_from_a_shell(capsys):
    assert main(["explain", "--contrast", "singular", TEXT]) == 0
    out = capsys.readouterr().out
    assert "could send" in out
    assert "contributions to plural rather than singular, " in out
    assert main(["explain", "--method", "flow", "--contrast", "singular", TEXT]) == 1
    assert "target is given, but the method 'flow' is the same for every target" in capsys.readouterr().err
