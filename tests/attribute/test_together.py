"""Examples that are attributed as one batch, against each of them alone."""

import jax
import numpy as np
import pytest
import tiny_models

import jaxflow as jf
from jaxflow.attribute import RawAttention, Rollout, _flow, _together

pytestmark = pytest.mark.usefixtures("standard_promotion")  # models of transformers run here

LENGTHS = (3, 5, 11, 4, 9)
METHODS = [
    jf.AttentionFlow(),
    jf.AttentionFlow(heads="max", residual=0.2, decoder_layer="parallel", normalise=True),
    jf.AttentionFlow(correction="uniform", heads=1),
    jf.AttentionFlow(solver="ortools"),
    Rollout(heads="max", residual=0.1, normalise=True),
    RawAttention(layer=0, heads=1),
]
MODELS = {"encoder": "Bert", "decoder": "GPT2", "encoder-decoder": "Bart"}


def inputs_of(kind, n_tokens):
    rng = np.random.default_rng(n_tokens)
    inputs = {"input_ids": rng.integers(3, 40, (1, n_tokens)), "attention_mask": np.ones((1, n_tokens), int)}
    if kind == "encoder":
        inputs["attention_mask"][0, n_tokens - n_tokens // 4 :] = 0
    if kind == "encoder-decoder":
        inputs["decoder_input_ids"] = rng.integers(3, 40, (1, max(n_tokens // 2, 2)))
    return inputs


def assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)  # a model's batches round otherwise
    assert got.certificate is None or got.certificate.exact.all()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("method", METHODS, ids=range(len(METHODS)))
def test_a_batch_is_its_examples(kind, method, monkeypatch):
    monkeypatch.setattr(_together, "MOST_VALUES", 2**12)  # several batches of each length
    model = tiny_models.build(MODELS[kind])
    examples = [inputs_of(kind, n_tokens) for n_tokens in LENGTHS]
    many = jf.explain(model, examples, method)
    for example, found in zip(examples, many, strict=True):
        assert_same(found.attribution, jf.explain(model, example, method).attribution)


def test_each_example_has_its_positions():
    model = tiny_models.build("GPT2")
    examples = [inputs_of("decoder", n_tokens) for n_tokens in LENGTHS]
    method, calls = jf.AttentionFlow(correction="decay"), []
    for positions in ([1], [2, 0]):
        for example, found in zip(examples, jf.explain(model, examples, method, positions=positions), strict=True):
            assert found.attribution.positions.tolist() == positions
            assert_same(found.attribution, jf.explain(model, example, method, positions=positions).attribution)
            calls.append(found)
    assert len(calls) == 2 * len(LENGTHS)


def test_networks_of_many_texts_are_solved_in_one_go(monkeypatch):
    solved = []
    solve = _flow.max_flow_in_each
    monkeypatch.setattr(
        _flow, "max_flow_in_each", lambda networks, *rest, **how: solved.append(1) or solve(networks, *rest, **how)
    )
    model, tokenizer = jf.load_model("agreement")
    texts = ["the key near the door", "the keys to the cabinet", "the old keys to the old cabinet"] * 20
    found = jf.explain(model, texts, tokenizer=tokenizer, positions=0)
    assert len(solved) == 1
    assert [each.tokens[0] for each in found] == ["[CLS]"] * 60


@pytest.mark.parametrize("spans", ["words", [(0, 2)]])
def test_spans_of_their_own_are_solved_one_by_one(spans):
    model, tokenizer = jf.load_model("agreement")
    texts = ["the key near the door", "the keys to the cabinet"]
    found = jf.explain(model, texts, "flow", tokenizer=tokenizer, spans=spans)
    for text, each in zip(texts, found, strict=True):
        assert_same(each.attribution, jf.explain(model, text, "flow", tokenizer=tokenizer, spans=spans).attribution)


def test_the_example_that_fails_is_named():
    model, tokenizer = jf.load_model("agreement")
    texts = ["the keys to the old cabinet", "the key near the door", "the keys to the old cabinet"]
    with pytest.raises(ValueError, match=r"inputs\[1\]: Output 6 does not exist: outputs are positions 0 to 5"):
        jf.explain(model, texts, "flow", tokenizer=tokenizer, positions=6)


class Halved(jf.AttentionFlow):
    """A method of a user's own, made of ours."""

    def attribute(self, evidence):
        return super().attribute(evidence).scores / 2


def test_a_method_of_ones_own_is_asked_for_each_example():
    model, tokenizer = jf.load_model("agreement")
    texts = ["the key near the door", "the keys to the cabinet"]
    whole, halved = (jf.explain(model, texts, how(), tokenizer=tokenizer) for how in (jf.AttentionFlow, Halved))
    for one, other in zip(whole, halved, strict=True):
        np.testing.assert_array_equal(one.attribution.scores, 2 * other.attribution.scores)
