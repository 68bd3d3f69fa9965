"""A kind of model that the package does not know, added as one class: a function of its parameters, Equinox-style."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow import attention_gradients, capture, joint_capacities, logit
from jaxflow.attribute import gradient_norm
from jaxflow.models import (
    Facts,
    Generation,
    LayerPlace,
    Model,
    Recording,
    as_model,
    generate,
    name_arguments,
    run_embedded,
)
from jaxflow.network import capture_capacities

IDS = np.array([[3, 1, 4, 1, 5], [2, 6, 5, 3, 0]])
N_WORDS, WIDTH, LAYERS = 8, 6, 3


@dataclasses.dataclass(frozen=True, eq=False)
class Parametrised(Model):
    """A function `function(parameters, ...)`, and its parameters."""

    function: Callable[..., Any]
    parameters: Any
    name: str = "parametrised"
    facts: Facts = dataclasses.field(default_factory=Facts)

    def bind(self, parameters):
        return dataclasses.replace(self, parameters=parameters)

    def call(self, *args, **kwargs):
        return self.function(self.parameters, *args, **kwargs)

    def arguments(self, args, kwargs):
        return name_arguments(functools.partial(self.function, self.parameters), args, kwargs)


def draw(seed):
    keys = iter(jax.random.split(jax.random.key(seed), 3))
    return {
        "words": jax.random.normal(next(keys), (N_WORDS, WIDTH)),
        "layers": jax.random.normal(next(keys), (LAYERS, 3, WIDTH, WIDTH)),
        "head": jax.random.normal(next(keys), (WIDTH, N_WORDS)),
    }


def classify(parameters, input_ids, *, is_causal=False):
    return layers(parameters, parameters["words"][input_ids], is_causal=is_causal)


def layers(parameters, x, *, is_causal=False):
    for query, key, value in parameters["layers"]:
        scores = jnp.einsum("btd,bsd->bts", x @ query, x @ key)
        if is_causal:
            scores = jnp.where(jnp.tri(x.shape[1], dtype=bool)[None], scores, -1e9)
        x = x + jnp.tanh(jax.nn.softmax(scores) @ (x @ value))
    return x @ parameters["head"]


MODEL = Parametrised(classify, draw(0))
TARGET = logit(2, position=1)


def test_it_is_a_model():
    assert isinstance(MODEL, Model)
    assert as_model(MODEL) is MODEL
    named = as_model(MODEL, labels="abcdefgh")
    assert named.facts.labels == tuple("abcdefgh")
    assert MODEL.facts.labels is None
    assert MODEL.arguments((IDS,), {"other": 1}).keys() == {"input_ids"}
    with pytest.raises(
        ValueError, match=r"parametrised is a Model already: variables=, sown=, roles= and mixing= go to"
    ):
        as_model(MODEL, roles={"": "decoder"})


def test_capture_is_that_of_the_function():
    outputs, attention = capture(MODEL, IDS)
    expected, of_function = capture(functools.partial(classify, MODEL.parameters), IDS)
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_array_equal(attention.encoder, of_function.encoder)
    assert attention.encoder.shape == (2, LAYERS, 1, 5, 5)
    assert attention.backend == "traced"
    _, capacities = capture_capacities(MODEL, IDS)
    np.testing.assert_array_equal(capacities.encoder, joint_capacities(attention).encoder)


def test_gradients_are_those_of_the_function():
    _, attention, gradients = attention_gradients(MODEL, IDS, target=TARGET)
    _, _, expected = attention_gradients(functools.partial(classify, MODEL.parameters), IDS, target=TARGET)
    np.testing.assert_array_equal(gradients.encoder, expected.encoder)
    assert gradients.encoder.shape == attention.encoder.shape
    assert np.abs(gradients.encoder).max() > 1e-3


def test_other_parameters():
    other = MODEL.bind(draw(1))
    np.testing.assert_array_equal(other.call(IDS), classify(other.parameters, IDS))
    assert np.abs(other.call(IDS) - MODEL.call(IDS)).max() > 0.1
    run = jax.jit(lambda parameters: capture(MODEL.bind(parameters), IDS)[1].encoder)
    np.testing.assert_allclose(run(other.parameters), capture(other, IDS)[1].encoder, atol=1e-5)


def test_a_function_shows_no_embeddings():
    with pytest.raises(ValueError, match=r"(?s)0 embeddings of tokens were found in parametrised.*none"):
        gradient_norm(MODEL, IDS, target=TARGET)


class WithEmbeddings(Parametrised):
    """The same; it shows its embeddings."""

    def embed(self, args, kwargs, embed):
        (input_ids,) = args
        rows = embed("/words/", N_WORDS, args, self.parameters["words"][input_ids])
        return layers(self.parameters, rows)


def test_embeddings_that_it_shows():
    model = WithEmbeddings(classify, MODEL.parameters)
    outputs, embeddings = run_embedded(model, (IDS,), {})
    np.testing.assert_allclose(outputs, MODEL.call(IDS), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(embeddings["encoder"], MODEL.parameters["words"][IDS])
    got = gradient_norm(model, IDS, target=TARGET).encoder
    assert got.shape == (2, 1, 5)
    assert got.min() > 0


def test_it_generates_by_its_logits():
    causal = functools.partial(classify, is_causal=True)
    facts = Facts(stacks=("decoder",), generation=Generation(end_tokens=(7,), max_length=8))
    model = Parametrised(causal, MODEL.parameters, facts=facts)
    sequence, n_prompt = generate(model, {"input_ids": IDS[:1, :3]})
    assert n_prompt == 3
    likeliest = np.asarray(model.call(sequence[None]).argmax(-1))[0]
    np.testing.assert_array_equal(sequence[n_prompt:], likeliest[n_prompt - 1 : -1])
    with pytest.raises(ValueError, match="parametrised does not generate"):
        generate(MODEL, {"input_ids": IDS[:1]})


class Recorded(Parametrised):
    """The same; it hands over its attention by itself."""

    def record(self, args, kwargs, keep=None):
        recorded = []

        def record(weights):
            place = LayerPlace((f"layer_{len(recorded)}",), 0)
            recorded.append((place, weights if keep is None else keep(place, weights)))

        outputs = recording(self.parameters, *args, record)
        return outputs, Recording(recorded, backend="recorded")


def recording(parameters, input_ids, record):
    x = parameters["words"][input_ids]
    for query, key, value in parameters["layers"]:
        weights = jax.nn.softmax(jnp.einsum("btd,bsd->bts", x @ query, x @ key))[:, None]
        record(weights)
        x = x + jnp.tanh(jnp.einsum("bhts,bsd->btd", weights, x @ value))
    return x @ parameters["head"]


def test_attention_that_it_records():
    model = Recorded(classify, MODEL.parameters)
    _, attention = capture(model, IDS)
    assert attention.backend == "recorded"
    np.testing.assert_allclose(attention.encoder, capture(MODEL, IDS)[1].encoder, atol=1e-6)
    _, _, gradients = attention_gradients(model, IDS, target=TARGET)
    expected = attention_gradients(MODEL, IDS, target=TARGET)[2]
    np.testing.assert_allclose(gradients.encoder, expected.encoder, rtol=1e-3, atol=1e-5)
    _, capacities = capture_capacities(model, IDS)
    np.testing.assert_allclose(capacities.encoder, joint_capacities(attention).encoder, atol=1e-6)
