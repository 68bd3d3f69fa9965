"""Gradient baselines: against finite differences and formulas, on a model whose decision depends on one known token."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from planted_models import IDS, MODEL, NNX, PLANTED, VARIABLES, Planted, PlantedNNX
from strategies import make_attention

from jaxflow import Attention, contrast, joint_capacities, load_model, logit
from jaxflow.attribute import (
    gradient_norm,
    input_x_gradient,
    integrated_gradients,
    leave_one_out,
    random_scores,
    rollout,
)
from jaxflow.attribute._attribution import Attribution
from jaxflow.models import run_embedded

METHODS = [gradient_norm, input_x_gradient, integrated_gradients, leave_one_out]


def score(method, **options):
    return method(MODEL, IDS, variables=VARIABLES, target=contrast(1, 0), **options)


@pytest.mark.parametrize("method", METHODS)
def test_the_planted_token_comes_first(method):
    got = np.abs(score(method).encoder)
    assert got.shape == (2, 1, 5)
    assert (got.argmax(-1) == PLANTED).all()
    others = np.delete(got, PLANTED, axis=-1)
    assert not others.any()
    assert got[..., PLANTED].min() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_nnx_modules(method):
    for model in (NNX, NNX.decide):
        got = method(model, IDS, target=contrast(1, 0))
        np.testing.assert_allclose(got.encoder, score(method).encoder, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(NNX.calls[...], 0)  # a copy was run
    assert type(NNX.tokens) is nnx.Embed
    structure, state = nnx.split(NNX)
    compiled = jax.jit(lambda state: method(nnx.merge(structure, state), IDS, target=contrast(1, 0)).encoder)
    np.testing.assert_allclose(compiled(state), got.encoder, rtol=1e-4, atol=1e-6)


class InJit(nn.Module):
    @nn.compact
    def __call__(self, input_ids, attention_mask=None):
        return nn.jit(Planted)(name="inner")(input_ids, attention_mask)


class JittedNNX(PlantedNNX):
    @nnx.jit
    def __call__(self, input_ids, attention_mask=None):
        return PlantedNNX.__call__(self, input_ids, attention_mask)


@pytest.mark.parametrize("embedding", [None, "/tokens/"])
@pytest.mark.parametrize("method", METHODS[:3])
def test_embeddings_inside_of_a_jit_of_the_model_s_own(method, embedding):
    options = {"target": contrast(1, 0), "embedding": embedding}
    inner = {"params": {"inner": VARIABLES["params"]}}
    jitted = jax.jit(MODEL.apply)
    expected = score(method).encoder
    for _ in range(2):  # the second time what runs is compiled
        for found in (
            method(InJit(), IDS, variables=inner, **options),
            method(JittedNNX(VARIABLES["params"]), IDS, **options),
            method(lambda input_ids: jitted(VARIABLES, input_ids), IDS, **options),
        ):
            np.testing.assert_allclose(found.encoder, expected, rtol=1e-4, atol=1e-6)


def test_functions():
    def function(input_ids, attention_mask=None):
        return MODEL.apply(VARIABLES, input_ids, attention_mask)

    for method in METHODS:
        got = method(function, IDS, target=contrast(1, 0))
        np.testing.assert_allclose(got.encoder, score(method).encoder, rtol=1e-4, atol=1e-6)

    def of_nnx(input_ids, attention_mask=None):
        return nnx.clone(NNX)(input_ids, attention_mask)

    got = leave_one_out(of_nnx, IDS, target=contrast(1, 0))
    np.testing.assert_allclose(got.encoder, score(leave_one_out).encoder, rtol=1e-4, atol=1e-6)
    with pytest.raises(
        ValueError, match=r"of_nnx is a function, and no embedding is seen in what it computes.*pass the module"
    ):
        gradient_norm(of_nnx, IDS, target=contrast(1, 0))


def test_by_finite_differences():
    table = VARIABLES["params"]["tokens"]["embedding"]
    token, step = int(IDS[0, PLANTED]), 1e-2  # which is at that position alone, of those that count

    def value(table):
        params = {**VARIABLES["params"], "tokens": {"embedding": table}}
        return float(contrast(1, 0)(MODEL.apply({"params": params}, IDS[:1]))[0])

    slopes = [
        (value(table.at[token, i].add(step)) - value(table.at[token, i].add(-step))) / (2 * step) for i in range(6)
    ]
    norm, product = score(gradient_norm), score(input_x_gradient)
    np.testing.assert_allclose(norm.encoder[0, 0, PLANTED], np.linalg.norm(slopes), rtol=1e-3)
    np.testing.assert_allclose(product.encoder[0, 0, PLANTED], np.dot(slopes, table[token]), rtol=1e-3, atol=1e-4)


def test_integrated_gradients_are_complete():
    gaps = [np.abs(score(integrated_gradients, steps=steps).completeness_gap).max() for steps in (1, 8, 64)]
    assert gaps[0] > 1e-4 > 1e-5 > gaps[2]
    assert gaps[1] < gaps[0]
    one = score(integrated_gradients, steps=64)
    baseline = VARIABLES["params"]["tokens"]["embedding"][7]
    other = score(integrated_gradients, steps=64, baseline=baseline)
    assert np.abs(one.encoder - other.encoder).max() > 1e-3
    seven = MODEL.apply(VARIABLES, jnp.full_like(IDS, 7))
    gained = contrast(1, 0)(MODEL.apply(VARIABLES, IDS)) - contrast(1, 0)(seven)
    np.testing.assert_allclose(other.encoder.sum((-1, -2)), gained, atol=1e-4)


def test_leaving_out_is_a_difference_of_outputs():
    mask = np.ones((2, 5)).astype("int32")
    mask[:, PLANTED] = 0
    target = contrast(1, 0)
    expected = target(MODEL.apply(VARIABLES, IDS)) - target(MODEL.apply(VARIABLES, IDS, mask))
    np.testing.assert_allclose(score(leave_one_out).encoder[:, 0, PLANTED], expected, rtol=1e-6)

    def replaced(inputs, token):
        return {**inputs, "input_ids": inputs["input_ids"].at[:, token].set(7)}

    expected = target(MODEL.apply(VARIABLES, IDS)) - target(MODEL.apply(VARIABLES, IDS.at[:, PLANTED].set(7)))
    got = score(leave_one_out, without=replaced).encoder
    np.testing.assert_allclose(got[:, 0, PLANTED], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["Bert", "GPT2", "T5", "Whisper"])
def test_transformers(name, standard_promotion):
    import tiny_models

    heads = {"Bert": "ForSequenceClassification", "GPT2": "LMHeadModel"}
    model, inputs = tiny_models.build(name, heads.get(name, "ForConditionalGeneration")), tiny_models.inputs(name)
    if name == "Bert":
        inputs |= {"token_type_ids": np.zeros_like(inputs["input_ids"])}
    target = logit(1, position=None if name == "Bert" else 5)
    found = run_embedded(model, (), inputs)[1]
    assert (
        set(found)
        == {"Bert": {"encoder"}, "GPT2": {"decoder"}, "T5": {"encoder", "decoder"}, "Whisper": {"decoder"}}[name]
    )
    for stack, ids in zip(found, [ids for key, ids in inputs.items() if key.endswith("input_ids")], strict=True):
        tables = [
            leaf for leaf in jax.tree.leaves(model.params) if leaf.shape == (tiny_models.VOCAB, tiny_models.WIDTH)
        ]
        assert any(np.array_equal(found[stack], table[ids]) for table in tables)
    got = gradient_norm(model, target=target, **inputs)
    if name == "Bert":
        assert not got.encoder[:, 0][inputs["attention_mask"] == 0].any()
        assert got.encoder[:, 0][inputs["attention_mask"] == 1].min() > 0
        left = leave_one_out(model, target=target, **inputs).encoder[:, 0]
        assert not left[inputs["attention_mask"] == 0].any()
        assert np.abs(left[inputs["attention_mask"] == 1]).min() > 0
    elif name in ("GPT2", "Whisper"):
        assert got.encoder is None
        assert not got.decoder[..., 6:].any()  # position 5 does not see them
    else:
        assert got.encoder.shape == got.decoder.shape == (2, 1, 7)


class Writes(nn.Module):
    """Says how it writes, as models of one's own do; reads a text by an encoder if it has a start token."""

    eos_token_id: int = 1

    def setup(self):
        self.tokens = nn.Embed(8, 6)
        self.head = nn.Dense(8)

    def __call__(self, input_ids, decoder_input_ids=None):
        if decoder_input_ids is None:
            return self.head(jnp.cumsum(jnp.tanh(self.tokens(input_ids)), 1))
        read = jnp.tanh(self.tokens(input_ids)).sum(1, keepdims=True)
        return self.head(jnp.cumsum(jnp.tanh(self.tokens(decoder_input_ids)), 1) * read)


class WritesOfWhatItReads(Writes):
    decoder_start_token_id: int = 0


def test_stacks_of_a_linen_model_that_writes():
    given = (IDS,)
    alone = gradient_norm(
        Writes(), *given, variables=Writes().init(jax.random.key(0), *given), target=logit(2, position=1)
    )
    assert alone.encoder is None
    assert not alone.decoder[..., 2:].any()
    assert alone.decoder[..., :2].min() > 0
    model, given = WritesOfWhatItReads(), (IDS, IDS[:, :3])
    both = gradient_norm(model, *given, variables=model.init(jax.random.key(0), *given), target=logit(2, position=0))
    assert both.encoder.shape == (2, 1, 5)
    assert both.encoder.min() > 0
    assert both.decoder.shape == (2, 1, 3)
    assert not both.decoder[..., 1:].any()


def test_the_agreement_model_looks_at_the_subject():
    model, tokenizer = load_model("agreement")
    inputs = {name: np.asarray(value) for name, value in tokenizer(["the keys to the old cabinet"]).items()}
    scores = leave_one_out(model, target=contrast(1, 0), **inputs).encoder[0, 0]
    assert scores.argmax() == 2  # keys
    assert integrated_gradients(model, target=contrast(1, 0), steps=2, **inputs).encoder.shape == (1, 1, 7)


def test_rollout_of_gradients_is_a_product():
    weights = make_attention("softmax", 0, (3, 2, 4, 4))
    gradients = np.random.default_rng(0).normal(size=weights.shape).astype(np.float32)
    capacities = joint_capacities(
        Attention(encoder=weights), weighting="attention_gradient", gradients=Attention(encoder=gradients)
    )
    got = rollout(capacities).encoder
    expected = np.eye(4)
    for layer in np.maximum(weights * gradients, 0).mean(1):
        expected = expected + layer @ expected  # Chefer et al., equation 6
    np.testing.assert_allclose(got * 2**3, expected, rtol=1e-5)


def test_random_scores():
    like = Attribution(encoder=np.zeros((2, 3, 400)), decoder=None, positions=np.arange(3))
    mask = np.ones((2, 400), bool)
    mask[1, 7:] = False
    got = random_scores(like, seed=1, encoder_mask=mask)
    assert got.decoder is None
    assert not got.encoder[1, :, 7:].any()
    assert abs(got.encoder[0].mean() - 0.5) < 0.05
    assert got.encoder.max() < 1
    np.testing.assert_array_equal(got.encoder, random_scores(like, seed=1, encoder_mask=mask).encoder)
    assert (random_scores(like, seed=2).encoder != random_scores(like, seed=1).encoder).any()


def test_refusals():
    with pytest.raises(ValueError, match="steps is 0"):
        score(integrated_gradients, steps=0)
    with pytest.raises(ValueError, match=r"baseline has shape \(3,\); expected \[width\]"):
        score(integrated_gradients, baseline=np.zeros(3))
    with pytest.raises(ValueError, match=r"(?s)0 embeddings of tokens were found.*/tokens/ \(8 rows\).*/positions/"):
        score(gradient_norm, embedding="/words/")
    inside = nn.remat(nn.Embed)(8, 6, name="tokens")
    variables = inside.init(jax.random.key(0), IDS)
    with pytest.raises(ValueError, match=r"(?s)within vmap, remat or scan it cannot be taken.*8 rows, within a transf"):
        gradient_norm(inside, IDS, variables=variables, target=lambda outputs: outputs.sum())
    with pytest.raises(ValueError, match="2 embeddings of tokens"):
        score(gradient_norm, embedding="/")
    with pytest.raises(ValueError, match="is unbound: pass variables="):
        gradient_norm(MODEL, IDS, target=logit(0))
    with pytest.raises(TypeError, match="got the class Planted"):
        gradient_norm(Planted, IDS, target=logit(0))
    with pytest.raises(ValueError, match=r"(?s)0 embeddings of tokens were found in PlantedNNX.*/tokens/ \(8 rows\)"):
        gradient_norm(NNX, IDS, target=logit(0), embedding="/words/")
    with pytest.raises(ValueError, match="variables= is for linen modules; got PlantedNNX"):
        gradient_norm(NNX, IDS, target=logit(0), variables=VARIABLES)
    with pytest.raises(ValueError, match="target returned one number for all"):
        leave_one_out(MODEL, IDS, variables=VARIABLES, target=lambda outputs: outputs.sum())
    dense = nn.Dense(2)
    with pytest.raises(ValueError, match="no input_ids"):
        leave_one_out(dense, jnp.ones((1, 2)), variables={}, target=logit(0))
