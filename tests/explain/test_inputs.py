"""What explain is given: mappings whose names collide with no option, tuples, arrays, lists, and methods of the user's own."""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow import (
    AttentionFlow,
    Example,
    Generate,
    IntegratedGradients,
    LeaveOneOut,
    Rollout,
    as_model,
    capture,
    explain,
    load_model,
    logit,
)
from jaxflow.attribute import METHODS, leave_one_out
from jaxflow.attribute import integrated_gradients as by_path

TEXT = "the keys to the old cabinet"


@pytest.fixture(scope="module")
def agreement():
    return load_model("agreement")


def attend(x):
    weights = jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", x, x))
    return weights @ x


def test_arguments_of_the_model_may_have_the_names_of_options():
    def model(params, tokens, positions, method):
        return attend(params[tokens] + method * params[positions])

    params = jax.random.normal(jax.random.key(0), (9, 8))
    ids, places = jnp.array([[3, 1, 4]]), jnp.array([[0, 1, 2]])
    inputs = {"params": params, "tokens": ids, "positions": places, "method": 0.5}
    explanation = explain(model, Example(inputs, tokens=["a", "b", "c"]), positions=[1])
    assert explanation.tokens == ("a", "b", "c")
    by_position = explain(model, (params, ids, places, 0.5), positions=[1])
    np.testing.assert_array_equal(by_position.scores, explanation.scores)


def test_a_method_of_a_linen_module():
    class Model(nn.Module):
        def setup(self):
            self.attention = nn.MultiHeadDotProductAttention(num_heads=2)

        def __call__(self, x):
            return self.encode(x).mean(1)

        def encode(self, x):
            return self.attention(x)

    x = jax.random.normal(jax.random.key(0), (1, 3, 8))
    variables = Model().init(jax.random.key(1), x)
    explanation = explain(Model(), {"x": x, "method": "encode"}, variables=variables)
    _, attention = capture(Model(), x, method="encode", variables=variables)
    np.testing.assert_array_equal(explanation.scores, AttentionFlow()(attention).encoder[0])


def test_a_list_gives_a_list(agreement):
    model, tokenizer = agreement
    texts = [TEXT, "the guards"]
    found = explain(model, texts, "rollout", tokenizer=tokenizer, positions=0)
    assert [len(each.tokens) for each in found] == [7, 3]
    for text, each in zip(texts, found, strict=True):
        np.testing.assert_array_equal(
            each.scores, explain(model, text, Rollout(), tokenizer=tokenizer, positions=0).scores
        )


@pytest.mark.parametrize("inputs", [3, None, [[1, 2]], object()])
def test_what_is_no_input(agreement, inputs):
    with pytest.raises(
        TypeError, match=r"inputs is .*; expected a text, a chat, a mapping of the model's inputs by name, an array"
    ):
        explain(agreement[0], inputs)


class LastLayerMaximum:
    """A method of the user's own: the largest attention of any head of the last layer."""

    def attribute(self, evidence):
        heads = np.asarray(evidence.attention.encoder)[-1]
        return heads.max(0)[list(evidence.positions)]


def test_a_method_of_the_users_own(agreement, tmp_path):
    model, tokenizer = agreement
    explanation = explain(model, TEXT, LastLayerMaximum(), tokenizer=tokenizer, positions=[0, 2])
    _, attention = capture(model, **tokenizer([TEXT]))
    np.testing.assert_allclose(explanation.scores, np.asarray(attention.encoder)[0, -1].max(0)[[0, 2]], rtol=1e-5)
    assert explanation.method == "LastLayerMaximum"
    assert "LastLayerMaximum" in str(explanation)
    explanation.save(tmp_path / "x.html")
    assert "LastLayerMaximum" in (tmp_path / "x.html").read_text()
    words = explain(model, "the keys' cabinet", LastLayerMaximum(), tokenizer=tokenizer, positions=0, spans="words")
    tokens = explain(model, "the keys' cabinet", LastLayerMaximum(), tokenizer=tokenizer, positions=0)
    np.testing.assert_allclose(words.scores[0, 2], tokens.scores[0, 2:4].sum(), rtol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_explains_by_name(agreement, name, tmp_path):
    model, tokenizer = agreement
    explanation = explain(model, TEXT, name, tokenizer=tokenizer, positions=0)
    assert explanation.scores.shape == (1, 7)
    assert np.isfinite(explanation.scores).all()
    assert METHODS[name].name == explanation.method
    assert str(explanation)
    explanation.save(tmp_path / "x.html")


def test_methods_that_depend_on_a_target_take_the_predicted_one(agreement):
    model, tokenizer = agreement
    inputs = {name: np.asarray(values) for name, values in tokenizer([TEXT]).items()}
    for method, function in ((IntegratedGradients(steps=8), by_path), (LeaveOneOut(), leave_one_out)):
        options = {"steps": 8} if function is by_path else {}
        predicted = explain(model, TEXT, method, tokenizer=tokenizer, positions=0)
        assert predicted.conventions["target"] == "plural"
        expected = function(model, target=logit(1), **options, **inputs).encoder[0]
        np.testing.assert_allclose(predicted.scores, expected, rtol=1e-4, atol=1e-6)
        other = explain(model, TEXT, method, tokenizer=tokenizer, positions=0, target="singular")
        expected = function(model, target=logit(0), **options, **inputs).encoder[0]
        np.testing.assert_allclose(other.scores, expected, rtol=1e-4, atol=1e-6)


def test_scores_that_do_not_add_up_have_no_spans(agreement):
    model, tokenizer = agreement
    with pytest.raises(ValueError, match="spans are given, but the method scores tokens one by one"):
        explain(model, TEXT, "leave_one_out", tokenizer=tokenizer, positions=0, spans=[(1, 3)])


def test_nothing_is_computed_before_it_is_looked_at(agreement, monkeypatch):
    model, tokenizer = agreement
    picture = sys.modules["jaxflow.explain._picture"]
    monkeypatch.setattr(picture, "flow_graph", None)
    monkeypatch.setattr(picture, "bottleneck", None)
    explanation = explain(model, TEXT, tokenizer=tokenizer)
    assert repr(explanation) == "Explanation(AgreementEncoder, method='flow', 7 outputs x 7 inputs)"
    with pytest.raises(TypeError):
        explanation.flow_graphs  # noqa: B018
    monkeypatch.undo()
    assert explanation.flow_graphs[0] is explanation.flow_graph(0)
    assert len(explanation.flow_graphs) == 7


class MoreThanTaken:
    """A tokenizer of the package that returns what its model does not take."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __call__(self, text, **options):
        inputs = self._tokenizer(text, **options)
        return {**inputs, "token_type_ids": np.zeros_like(inputs["input_ids"])}

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)


def test_what_a_tokenizer_returns_and_a_model_does_not_take_is_left_out():
    model, tokenizer = load_model("agreement")
    expected = explain(model, "the keys", tokenizer=tokenizer)
    np.testing.assert_array_equal(
        explain(model, "the keys", tokenizer=MoreThanTaken(tokenizer)).scores, expected.scores
    )

    seen = []

    def takes_the_rest(input_ids, **rest):
        seen.append(sorted(rest))
        return model(input_ids, rest["attention_mask"])

    explain(takes_the_rest, "the keys", tokenizer=MoreThanTaken(tokenizer))
    assert seen[0] == ["attention_mask", "token_type_ids"]
    explain(lambda **inputs: model(inputs["input_ids"]), "the keys", tokenizer=MoreThanTaken(tokenizer))
    with pytest.raises(TypeError, match="token_type_ids"):
        explain(model, dict(MoreThanTaken(tokenizer)(["the keys"])))


ADDITIVE = r"attention_mask holds -1e\+09; expected 1 for tokens and 0 for padding. It may be an additive mask"


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[0.0, 0.0, -1e9]], ADDITIVE),
        ([[0.0, 0.0, -np.inf]], r"attention_mask holds -inf; .*additive"),
        ([[0.0, 0.0, 0.0]], r"attention_mask is float64 and holds 0 alone; .*additive"),
        ([[1.0, 1.0, 0.5]], r"attention_mask holds 0.5; expected 1 for tokens and 0 for padding. If the model"),
        ([[1, 1, 2]], r"attention_mask holds 2; expected 1"),
        ([[1, 1, -1]], r"attention_mask holds -1; expected 1"),
    ],
)
@pytest.mark.parametrize("kind", ["function", "linen"])
def test_masks_of_another_convention_are_refused_by_name(mask, message, kind):
    class Taking(nn.Module):
        @nn.compact
        def __call__(self, input_ids, attention_mask):
            return nn.MultiHeadDotProductAttention(num_heads=2)(nn.Embed(9, 8)(input_ids))

    inputs = {"input_ids": np.array([[1, 2, 3]]), "attention_mask": np.array(mask)}
    bound = Taking().bind(Taking().init(jax.random.key(0), **inputs))
    model = bound if kind == "linen" else lambda input_ids, attention_mask: bound(input_ids, attention_mask)
    with pytest.raises(ValueError, match=message):
        explain(model, inputs)
    said = explain(model, Example(inputs, encoder_mask=np.array([[1, 1, 0]])))
    assert (said.scores[:, 2] == 0).all()
    for accepted in ([[1.0, 1.0, 0.0]], [[True, True, False]]):
        found = explain(model, inputs | {"attention_mask": np.array(accepted)})
        np.testing.assert_array_equal(found.scores, said.scores)


def test_axes_of_one_before_the_tokens_are_no_doubt():
    embed = jnp.asarray(np.random.default_rng(0).normal(size=(9, 4)))

    def model(ids, attention_mask):
        x = embed[ids]
        return jax.nn.softmax(jnp.where(attention_mask.reshape(-1) > 0, x @ x.T, -1e9)) @ x

    inputs = {"ids": np.array([1, 2, 3])}
    shapes = [(3,), (1, 3), (1, 1, 1, 3)]
    scores = [explain(model, inputs | {"attention_mask": np.array([1, 1, 0]).reshape(s)}).scores for s in shapes]
    np.testing.assert_array_equal(scores[1], scores[0])
    np.testing.assert_array_equal(scores[2], scores[0])


@pytest.mark.parametrize("form", [(1, 4, 4), (4, 4), (1, 1, 4, 4)])
@pytest.mark.parametrize("window", [4, 2])
def test_a_mask_of_keys_for_each_query_hides_what_no_query_sees(form, window):
    """As tunix takes it, `[batch, token, token]`; a window hides the first token from the last query, and is no padding."""

    class Model(nn.Module):
        @nn.compact
        def __call__(self, input_ids, attention_mask):
            x = nn.Embed(9, 8)(input_ids)
            return nn.MultiHeadDotProductAttention(num_heads=2)(x, mask=attention_mask.reshape(1, 1, 4, 4))

    real = np.array([1, 1, 1, 0], bool)
    seen = np.tril(np.ones((4, 4), bool)) & ~np.tril(np.ones((4, 4), bool), -window) & real
    seen[3, 2] = True  # a padded query sees something too
    inputs = {"input_ids": np.array([[1, 2, 3, 4]]), "attention_mask": seen.reshape(form)}
    model = Model().bind(Model().init(jax.random.key(0), **inputs))
    found = explain(model, inputs)
    said = explain(model, Example(inputs, encoder_mask=real[None]))
    np.testing.assert_array_equal(found.scores, said.scores)
    assert (found.scores[:3, 3] == 0).all()
    assert found.scores[0, 0] > 0


def test_logits_without_labels_are_no_missing_head():
    embed = jnp.asarray(np.random.default_rng(0).normal(size=(9, 4)))

    def model(ids):
        x = embed[ids]
        return (jax.nn.softmax(x @ x.T) @ x)[0]

    assert "as_model(model, labels=[...])" in str(explain(model, {"ids": np.array([1, 2, 3])}))
    named = explain(as_model(model, labels=["a", "b", "c", "d"]), {"ids": np.array([1, 2, 3])})
    logits = np.asarray(model(np.array([1, 2, 3])))
    assert named.predictions[0].label == "abcd"[logits.argmax()]


def test_generation_needs_inputs_of_the_name_that_is_called():
    class Model(nn.Module):
        eos_token_id: int = 50
        max_length: int = 12

        @nn.compact
        def __call__(self, tokens):
            x = nn.Embed(9, 8)(tokens)
            return nn.Dense(9)(nn.MultiHeadDotProductAttention(num_heads=2)(x, mask=nn.make_causal_mask(tokens)))

    ids = np.array([[3, 1, 4]])
    variables = Model().init(jax.random.key(0), ids)
    with pytest.raises(ValueError, match=r"Model takes no input_ids: .*Wrap it in a function or a module"):
        explain(Model(), {"input_ids": ids}, generate=Generate(max_new_tokens=2), variables=variables)
