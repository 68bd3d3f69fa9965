"""Captured attention is that of `output_attentions`, for every encoder class of transformers."""

import functools
import threading

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from capture.huggingface_models import (
    ENCODERS,
    IDS,
    MASK,
    TEXT,
    assert_attention,
    assert_same,
    build,
    inputs,
)

from jaxflow.capture import capture

pytestmark = pytest.mark.usefixtures("standard_promotion")  # models of transformers run here

transformers = pytest.importorskip("transformers", "4", exc_type=ImportError)


@pytest.mark.parametrize("name", ENCODERS)
def test_attention_is_that_of_output_attentions(name):
    model, kwargs = build(name), inputs(name)
    module = model.module
    plain, full = model(**kwargs), model(**kwargs, output_attentions=True)
    outputs, attention = capture(model, **kwargs)
    assert_same(outputs, plain)
    assert_attention(attention, full.attentions)
    assert attention.encoder.shape[1] == (12 if name == "XLMRoberta" else 3)
    assert np.abs(np.diff(attention.encoder, axis=1)).max((0, 2, 3, 4)).min() > 1e-3, "layers too alike"
    outputs, again = capture(model, **kwargs, output_attentions=True)
    assert_same(outputs, full)
    assert_same(again, attention)
    assert model.module is module


@pytest.mark.parametrize("name", ["Bert", "Roberta"])
@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForTokenClassification", "ForMaskedLM"])
def test_heads(name, head):
    model = build(name, head)
    outputs, attention = capture(model, IDS, attention_mask=MASK)
    assert_same(outputs, model(IDS, attention_mask=MASK))
    assert_attention(attention, model(IDS, attention_mask=MASK, output_attentions=True).attentions)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("Albert", "ForMaskedLM"),
        ("DistilBert", "ForSequenceClassification"),
        ("Electra", "ForPreTraining"),
        ("ViT", "ForImageClassification"),
        ("Wav2Vec2", "ForCTC"),
    ],
)
def test_heads_of_other_families(name, head):
    model, kwargs = build(name, head), inputs(name)
    outputs, attention = capture(model, **kwargs)
    assert_same(outputs, model(**kwargs))
    assert_attention(attention, model(**kwargs, output_attentions=True).attentions)


def test_ways_to_call():
    model = build("Bert")
    reference = model(IDS, MASK, output_attentions=True).attentions
    for args, kwargs in [
        ((), {"input_ids": IDS, "attention_mask": MASK}),
        ((IDS, MASK), {}),
        ((IDS, MASK), {"return_dict": False}),
        ((IDS, MASK), {"return_dict": False, "output_attentions": True, "output_hidden_states": True}),
    ]:
        outputs, attention = capture(model, *args, **kwargs)
        assert_same(outputs, model(*args, **kwargs))
        assert_attention(attention, reference)


def test_config_that_asks_for_attentions():
    config = transformers.BertConfig(**TEXT, output_attentions=True)
    model = transformers.FlaxBertModel(config, _do_init=False)
    outputs, attention = capture(model, IDS, params=build("Bert").params)
    assert_attention(attention, outputs.attentions)


def test_other_parameters():
    model = build("Bert")
    params = jax.tree.map(lambda p: 0.7 * p, model.params)
    outputs, attention = capture(model, IDS, params=params)
    full = model(IDS, params=params, output_attentions=True)
    assert_same(outputs, model(IDS, params=params))
    assert_attention(attention, full.attentions)
    assert np.abs(attention.encoder - capture(model, IDS)[1].encoder).max() > 1e-3


def test_padding_gets_no_attention():
    _, attention = capture(build("Bert"), IDS, attention_mask=MASK)
    assert attention.encoder[1, ..., 4:].max() == 0


def test_jit_vmap_and_grad():
    model = build("Bert")
    plain, (_, attention) = model(IDS, MASK), capture(model, IDS, MASK)
    outputs, jitted = jax.jit(lambda params, ids: capture(model, ids, MASK, params=params))(model.params, IDS)
    assert type(outputs) is type(plain)
    np.testing.assert_allclose(outputs.last_hidden_state, plain.last_hidden_state, atol=1e-5)
    np.testing.assert_allclose(jitted.encoder, attention.encoder, atol=1e-5)
    mapped = jax.vmap(lambda ids, mask: capture(model, ids[None], mask[None])[1].encoder[0])(IDS, MASK)
    np.testing.assert_allclose(mapped, attention.encoder, atol=1e-5)

    @jax.jit
    @jax.grad
    def gradient(params):
        return capture(model, IDS, MASK, params=params)[1].encoder[:, -1, :, 0, 1].sum()

    gradients = gradient(model.params)
    query = gradients["encoder"]["layer"]["2"]["attention"]["self"]["query"]["kernel"]
    assert jnp.isfinite(query).all()
    assert jnp.abs(query).max() > 0


def test_gradient_checkpointing():
    model = transformers.FlaxBertModel(transformers.BertConfig(**TEXT), _do_init=False, gradient_checkpointing=True)
    params = build("Bert").params
    outputs, attention = capture(model, IDS, params=params)
    assert_same(outputs, model(IDS, params=params))
    assert_attention(attention, model(IDS, params=params, output_attentions=True).attentions)


def test_half_precision_stays():
    model = transformers.FlaxBertModel(transformers.BertConfig(**TEXT), dtype=jnp.bfloat16, _do_init=False)
    params = build("Bert").params
    _, attention = capture(model, IDS, params=params)
    assert attention.encoder.dtype == jnp.bfloat16
    reference = model(IDS, params=params, output_attentions=True).attentions
    assert_same(attention.encoder, jnp.stack(reference, 1))


def test_hidden_dropout_alone_may_be_active():
    config = transformers.BertConfig(**TEXT, attention_probs_dropout_prob=0.0)
    model = transformers.FlaxBertModel(config, _do_init=False)
    options = {"params": build("Bert").params, "train": True, "dropout_rng": jax.random.key(0)}
    outputs, attention = capture(model, IDS, **options)
    assert_same(outputs, model(IDS, **options))
    assert_attention(attention, model(IDS, **options, output_attentions=True).attentions)


def test_module_of_transformers_inside_a_linen_module():
    from transformers.models.bert.modeling_flax_bert import FlaxBertModule

    model = build("Bert")

    class Classifier(nn.Module):
        @nn.compact
        def __call__(self, ids, mask):
            hidden = FlaxBertModule(model.config, name="bert")(ids, mask).last_hidden_state
            return nn.Dense(2, name="head")(hidden[:, 0])

    head = nn.Dense(2).init(jax.random.key(0), jnp.ones((1, 32)))["params"]
    variables = {"params": {"bert": model.params, "head": head}}
    ids, mask = jnp.array(IDS), jnp.array(MASK)
    outputs, attention = capture(Classifier(), ids, mask, variables=variables)
    assert_same(outputs, Classifier().apply(variables, ids, mask))
    assert_attention(attention, model(IDS, MASK, output_attentions=True).attentions)


@pytest.mark.weights
def test_real_weights(minilm_directory):
    model = transformers.FlaxBertModel.from_pretrained(minilm_directory, add_pooling_layer=False)
    ids = np.array([[101, 1996, 6309, 2000, 1996, 2214, 5239, 2379, 1996, 4303, 102]])
    outputs, attention = capture(model, ids)
    assert attention.encoder.shape == (1, 6, 12, 11, 11)
    assert_same(outputs, model(ids))
    assert_attention(attention, model(ids, output_attentions=True).attentions)
    np.testing.assert_allclose(attention.encoder.sum(-1), 1, atol=1e-5)


# Nothing stays.


def test_nothing_stays_when_the_model_raises():
    model = build("Bert")
    before, module, held = model(IDS), model.module, dict(vars(model))
    with pytest.raises((TypeError, ValueError)):
        capture(model, IDS, token_type_ids=np.zeros((2, 3), int))
    assert model.module is module
    assert vars(model).keys() == held.keys()
    assert not nn.module._global_interceptor_stack
    assert_same(model(IDS), before)
    assert model(IDS).attentions is None


def test_threads_do_not_disturb_each_other():
    names, failures, start = ("Bert", "Albert"), [], threading.Barrier(3)
    models = {name: build(name) for name in names}
    expected = {name: capture(models[name], IDS) for name in names}

    def run(work):
        start.wait()
        try:
            for _ in range(6):
                work()
        except BaseException as error:
            failures.append(error)

    def capturing(name):
        assert_same(capture(models[name], IDS), expected[name])

    def calling():
        for name in names:
            assert_same(models[name](IDS), expected[name][0])

    works = [functools.partial(capturing, name) for name in names] + [calling]
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
