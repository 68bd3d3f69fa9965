"""Gradients by attention weights: against finite differences, across ways to write a model, and what is refused."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from capture.linen_models import HOSTILE, Block, Deep, Own, Scanned, X, build
from flax.linen import attention as flax_attention

from jaxflow import (
    AttentionFlow,
    attention_flow,
    attention_gradients,
    capture,
    contrast,
    explain,
    joint_capacities,
    load_model,
    log_probability,
    logit,
)
from jaxflow.explain._prediction import label_target
from jaxflow.models import Facts, FunctionModel

WEIGHTS = (jnp.arange(8.0) - 2) / 10


def target(outputs):
    return jnp.tanh(outputs[:, 1] @ WEIGHTS)


def gradients_of(model, variables, x=X, target=target):
    return attention_gradients(model, x, variables=variables, target=target)


def shifting(monkeypatch, module, index, by):
    """Let the model add `by` to one weight `[layer, batch, head, query, key]`, which is what a derivative is by definition."""
    calls, (layer, *rest) = [], index
    plain = module.dot_product_attention_weights

    def shifted(*args, **kwargs):
        weights = plain(*args, **kwargs)
        calls.append(None)
        return weights.at[tuple(rest)].add(by) if len(calls) - 1 == layer else weights

    monkeypatch.setattr(module, "dot_product_attention_weights", shifted)


def difference(monkeypatch, module, index, run, step=1e-2):
    values = []
    for by in (step, -step):
        with monkeypatch.context() as patch:
            shifting(patch, module, index, by)
            values.append(float(run().sum()))
    return (values[0] - values[1]) / (2 * step)


TWO = HOSTILE[:2]
INDICES = [(0, 0, 0, 1, 2), (0, 1, 1, 4, 0), (1, 0, 1, 1, 1), (1, 1, 0, 3, 4)]


def test_finite_differences_of_a_linen_module(monkeypatch):
    model = Deep(names=TWO)
    variables = build(model)
    outputs, attention, gradients = gradients_of(model, variables)
    plain, captured = capture(model, X, variables=variables)
    np.testing.assert_array_equal(outputs, plain)
    np.testing.assert_array_equal(attention.encoder, captured.encoder)
    for index in INDICES:
        expected = difference(monkeypatch, flax_attention, index, lambda: target(model.apply(variables, X)))
        layer, batch, *rest = index
        np.testing.assert_allclose(gradients.encoder[(batch, layer, *rest)], expected, atol=2e-3, rtol=2e-3)
    assert np.abs(gradients.encoder[:, 1, :, 1]).min() > 0
    assert not np.abs(gradients.encoder[:, 1, :, 0]).any()  # position 0 of the last layer is not looked at


@pytest.mark.parametrize("name", ["Bert", "GPT2", "Bart"])
def test_finite_differences_of_transformers(monkeypatch, name, standard_promotion):
    import importlib

    import tiny_models

    head = {"Bert": "ForSequenceClassification", "GPT2": "LMHeadModel", "Bart": "ForConditionalGeneration"}[name]
    model, inputs = tiny_models.build(name, head), tiny_models.inputs(name)
    to_explain = logit(1) if name == "Bert" else contrast(3, 7, position=5)
    _, attention, gradients = attention_gradients(model, target=to_explain, **inputs)
    module = importlib.import_module(type(model).__module__)
    # Of two layers of each stack: encoder first; then self- and cross-attention by turns.
    calls = {"Bert": {"encoder": [0, 1]}, "GPT2": {"decoder": [0, 1]}}.get(
        name, {"encoder": [0, 1], "decoder": [2, 4], "cross": [3, 5]}
    )
    for stack, places in calls.items():
        found = getattr(gradients, stack)
        assert found.shape == getattr(attention, stack).shape
        for layer, call in enumerate(places):
            rest = np.unravel_index(np.abs(found[:, layer]).argmax(), found[:, layer].shape)
            run = functools.partial(lambda: to_explain(model(**inputs)))
            expected = difference(monkeypatch, module, (call, *map(int, rest)), run)
            np.testing.assert_allclose(found[(rest[0], layer, *rest[1:])], expected, rtol=1e-2)


@pytest.mark.parametrize("two", [False, True])
def test_scan_is_as_layers_one_by_one(two):
    scanned, deep = Scanned(n_layers=2, two=two), Deep(names=TWO, two=two)
    variables = build(scanned)
    each = {name: jax.tree.map(lambda leaf, i=i: leaf[i], variables["params"]["stack"]) for i, name in enumerate(TWO)}
    got = gradients_of(scanned, variables)[2].encoder
    np.testing.assert_allclose(got, gradients_of(deep, {"params": each})[2].encoder, rtol=1e-4, atol=1e-5)


class Backwards(nn.Module):
    """Runs the last of its layers first."""

    @nn.compact
    def __call__(self, x):
        axes = {"params": 0, "intermediates": 0}
        return nn.scan(Block, axes, split_rngs={"params": True}, length=2, reverse=True)(name="stack")(x, None)[0]


def test_scan_backwards():
    model, deep = Backwards(), Deep(names=TWO)
    variables = build(model)
    each = {
        name: jax.tree.map(lambda leaf, i=i: leaf[1 - i], variables["params"]["stack"]) for i, name in enumerate(TWO)
    }
    _, attention, gradients = gradients_of(model, variables)
    _, expected_attention, expected = gradients_of(deep, {"params": each})
    np.testing.assert_allclose(attention.encoder, expected_attention.encoder[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(gradients.encoder, expected.encoder[:, ::-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lifted", [nn.jit, nn.remat])
def test_lifted_layers(lifted):
    plain, model = Deep(names=TWO), Deep(names=TWO, block=lifted(Block))
    variables = build(plain)
    expected = gradients_of(plain, variables)[2].encoder
    got = gradients_of(model, variables)[2].encoder
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_examples_are_apart_and_jit_is_as_without():
    model = Own()
    variables = build(model)
    whole = gradients_of(model, variables)[2].encoder
    other = gradients_of(model, variables, X.at[1].multiply(2.0))[2].encoder
    np.testing.assert_allclose(other[0], whole[0], rtol=1e-4, atol=1e-5)
    assert np.abs(other[1] - whole[1]).max() > 1e-3
    jitted = jax.jit(lambda variables, x: gradients_of(model, variables, x)[2])(variables, X).encoder
    np.testing.assert_allclose(jitted, whole, rtol=1e-4, atol=1e-5)
    mapped = jax.vmap(lambda x: gradients_of(model, variables, x[None])[2].encoder[0])(X)
    np.testing.assert_allclose(mapped, whole, rtol=1e-4, atol=1e-5)


def test_targets():
    logits = jnp.array([[[1.0, 2.0, 4.0], [0.0, 3.0, 5.0]]])
    np.testing.assert_array_equal(logit(2, position=1)(logits), [5.0])
    np.testing.assert_array_equal(contrast(2, jnp.array([0]), position=jnp.array([0]))(logits), [3.0])
    np.testing.assert_allclose(
        log_probability(0, position=-1)(logits), -np.log(1 + np.exp(3.0) + np.exp(5.0)), rtol=1e-6
    )
    assert logit(1)(logits).shape == (1, 2)


def test_the_number_of_a_verb_depends_on_what_is_explained():
    model, tokenizer = load_model("agreement")
    inputs = {name: np.asarray(value) for name, value in tokenizer(["the keys to the old cabinet"]).items()}
    _, attention, plural = attention_gradients(model, target=logit(1), **inputs)
    _, _, singular = attention_gradients(model, target=logit(0), **inputs)
    assert plural.encoder.shape == attention.encoder.shape
    scores = [
        attention_flow(joint_capacities(attention, weighting="attention_gradient", gradients=g), positions=0).encoder
        for g in (plural, singular)
    ]
    assert np.abs(scores[0] - scores[1]).max() > 0.01


class Copies(Own):
    @nn.compact
    def __call__(self, x):
        weights = jax.nn.softmax(jnp.einsum("...qd,...kd->...qk", x, x))[:, None]
        self.sow("intermediates", "attention_weights", weights * 1.0)
        return jnp.einsum("...hqk,...kd->...qd", weights, x)


class Loops(nn.Module):
    @nn.compact
    def __call__(self, x):
        scores = jnp.einsum("...qd,...kd->...qk", x, x)[:, None]

        def branch(module, scores):
            weights = jax.nn.softmax(scores)
            module.sow("intermediates", "attention_weights", weights)
            return weights @ x[:, None]

        return nn.cond(x.sum() > 0, branch, branch, self, scores)[:, 0]


def test_refusals():
    model = Own()
    variables = build(model)
    with pytest.raises(
        ValueError, match=r"target returned shape \(2, 5\).*expected one number per example, shape \(2,\)"
    ):
        gradients_of(model, variables, target=lambda outputs: outputs.sum(-1))
    with pytest.raises(ValueError, match="target returned tuple"):
        gradients_of(model, variables, target=lambda outputs: (outputs,))
    with pytest.raises(ValueError, match="12 does not exist: there are 8, 0 to 7"):
        gradients_of(model, variables, target=logit(12, position=0))
    with pytest.raises(ValueError, match="nothing is computed of it"):
        attention_gradients(Copies(), X, variables={}, target=target)
    with pytest.raises(ValueError, match="inside of `cond`"):
        attention_gradients(Loops(), X, variables={}, target=target)
    with pytest.raises(TypeError, match="got int"):
        attention_gradients(3, X, target=target)
    with pytest.raises(ValueError, match="neither is an array of logits"):
        logit(0)({"scores": 1})
    with pytest.raises(ValueError, match=r"position is given, but logits have shape \(3,\)"):
        logit(0, position=0)(jnp.ones(3))


def test_explain_takes_a_label_by_its_name():
    model, tokenizer = load_model("agreement")
    text, options = "the keys to the old cabinet", {"tokenizer": tokenizer, "positions": 0}
    method = AttentionFlow(weighting="attention_gradient")
    named = explain(model, text, method, target="plural", **options)
    inputs = {name: np.asarray(value) for name, value in tokenizer([text]).items()}
    _, attention, gradients = attention_gradients(model, target=logit(1), **inputs)
    capacities = joint_capacities(attention, weighting="attention_gradient", gradients=gradients)
    np.testing.assert_allclose(named.scores, attention_flow(capacities, positions=0).encoder[0], rtol=2e-5)
    assert named.conventions["target"] == "plural"
    assert "attention x gradients of plural" in str(named)
    with pytest.raises(ValueError, match="target is 'dual'; expected one of 'singular', 'plural'"):
        explain(model, text, method, target="dual", **options)
    with pytest.raises(ValueError, match="target is given, but the method 'flow' is the same for every target"):
        explain(model, text, "flow", target="plural", **options)
    predicted = explain(model, text, method, **options)
    np.testing.assert_array_equal(predicted.scores, named.scores)
    assert predicted.conventions["target"] == "plural"


@pytest.mark.parametrize(("target", "expected"), [("w7", 7), (9, 9)])
def test_a_token_by_its_name(target, expected):
    class Tokenizer:
        def convert_tokens_to_ids(self, name):
            return int(name[1:]) if name[0] == "w" else 0

        def convert_ids_to_tokens(self, ids):
            return [f"w{number}" for number in ids]

        def tokenize(self, text):
            return ["w1", "w2"]

    model = FunctionModel(None, "writer", Facts(n_words=12))
    outputs = jnp.arange(36.0).reshape(1, 3, 12)
    make = functools.partial(label_target, model=model, outputs=outputs, tokenizer=Tokenizer())
    np.testing.assert_array_equal(make(target, position=1)(outputs), outputs[:, 1, expected])
    with pytest.raises(ValueError, match="has logits for each position"):
        make(target)
    with pytest.raises(ValueError, match="'x', which is no token of the tokenizer"):
        make("x", position=1)
