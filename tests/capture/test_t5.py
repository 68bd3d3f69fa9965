"""T5 runs on today's JAX: when captured, when loaded, and ever after; and nobody else notices."""

import copy
import threading
import types

import checkpoints
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from capture.huggingface_models import IDS, MASK, assert_same, assert_stacks, build, inputs, transformers

from jaxflow import load_model
from jaxflow.capture import capture
from jaxflow.models._transformers._mending import mended

pytestmark = pytest.mark.usefixtures("standard_promotion")  # models of transformers run here
t5 = pytest.importorskip("transformers.models.t5.modeling_flax_t5", exc_type=ImportError)

STACKS = ("encoder", "decoder", "cross")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    directory = tmp_path_factory.mktemp("t5")
    checkpoints.save(directory, "T5")
    return load_model(directory)[0]


def build_plain():
    return transformers.FlaxT5ForConditionalGeneration(build("T5").config, _do_init=False)


def assert_nothing_stays():
    assert t5.jnp is jnp
    assert not nn.module._global_interceptor_stack
    with pytest.raises(TypeError, match="a_max"):
        build_plain()


@pytest.fixture
def old_jax(monkeypatch):
    """The `jnp` that transformers was written for, for a reference that owes nothing to jaxflow."""

    def clip(array, a_min=-np.inf, a_max=np.inf):
        return jnp.minimum(jnp.maximum(array, a_min), a_max).astype(jnp.result_type(array))

    monkeypatch.setattr(t5, "jnp", types.SimpleNamespace(**{**vars(jnp), "clip": clip}))


def test_it_is_the_same_model_as_under_the_old_jax(loaded, old_jax):
    given = inputs("T5")
    plain = build_plain()
    full = plain(**given, params=loaded.params, output_attentions=True)
    outputs, attention = capture(loaded, **given)
    np.testing.assert_allclose(outputs.logits, full.logits, atol=1e-5)
    assert_stacks(attention, full, STACKS)
    # A model that the user has got by some means of their own.
    assert_stacks(capture(plain, **given, params=loaded.params)[1], full, STACKS)


def test_a_plain_t5_is_captured_where_it_could_not_run(loaded):
    with mended():
        plain = build_plain()
    with pytest.raises(TypeError, match="a_max"):
        plain(**inputs("T5"), params=loaded.params)
    _, attention = capture(plain, **inputs("T5"), params=loaded.params)
    assert_same(attention, capture(loaded, **inputs("T5"))[1])
    ids, mask = jnp.array(IDS), jnp.array(MASK)
    _, of_module = capture(plain.module, ids, mask, ids, mask, variables={"params": loaded.params})
    assert_same(of_module, capture(loaded, IDS, MASK, IDS, decoder_attention_mask=MASK)[1])
    assert_nothing_stays()


def test_a_loaded_model_runs_everywhere(loaded):
    assert type(loaded) is transformers.FlaxT5ForConditionalGeneration
    given = inputs("T5")
    logits = loaded(**given).logits
    encoded = loaded.encode(given["input_ids"], given["attention_mask"])
    decoded = loaded.decode(
        given["decoder_input_ids"], encoded, given["attention_mask"], given["decoder_attention_mask"]
    )
    np.testing.assert_allclose(decoded.logits, logits, atol=1e-5)
    jitted = jax.jit(lambda params: loaded(**given, params=params).logits)(loaded.params)
    np.testing.assert_allclose(jitted, logits, atol=1e-4)
    assert_same(copy.copy(loaded)(**given).logits, logits)
    assert loaded.init_cache(2, 5, encoded).keys() == {"decoder"}
    fresh = jax.eval_shape(lambda: loaded.init_weights(jax.random.key(0), (1, 1)))
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, loaded.params)
    assert_nothing_stays()


def test_a_loaded_model_checkpoints_its_gradients(loaded):
    model = copy.copy(loaded)
    model.enable_gradient_checkpointing()
    assert model.module.gradient_checkpointing
    assert_same(model(**inputs("T5")), loaded(**inputs("T5")))
    assert_same(capture(model, **inputs("T5"))[1], capture(loaded, **inputs("T5"))[1])


def test_a_loaded_model_generates(loaded):
    options = {"max_new_tokens": 3, "eos_token_id": 49, "pad_token_id": 0, "do_sample": False}
    greedy = loaded.generate(IDS, attention_mask=MASK, **options).sequences
    tokens = np.zeros((2, 1), int)
    for _ in range(3):
        logits = loaded(IDS, attention_mask=MASK, decoder_input_ids=tokens).logits[:, -1]
        tokens = np.append(tokens, logits.argmax(-1)[:, None], axis=1)
    np.testing.assert_array_equal(greedy, tokens)
    # What is mended is at work while JAX traces: that these can be traced is all there is to see.
    for more in ({"num_beams": 2}, {"do_sample": True}):
        shape = jax.eval_shape(
            lambda more=more: loaded.generate(IDS, attention_mask=MASK, **(options | more)).sequences
        )
        assert shape.shape == (2, 4)
    assert_nothing_stays()


def test_nothing_stays_when_the_model_raises(loaded):
    given = inputs("T5") | {"decoder_attention_mask": np.ones((2, 3))}
    for run in (loaded, lambda **given: capture(loaded, **given)):
        with pytest.raises((TypeError, ValueError)):
            run(**given)
        assert_nothing_stays()


def test_other_threads_do_not_notice(loaded):
    failures = []

    def build_elsewhere():
        try:
            assert_nothing_stays()
        except BaseException as error:
            failures.append(error)

    class Meanwhile(nn.Module):
        @nn.compact
        def __call__(self, *args):
            thread = threading.Thread(target=build_elsewhere)
            thread.start()
            thread.join()
            return t5.FlaxT5ForConditionalGenerationModule(loaded.config, name="t5")(*args)

    ids, mask = jnp.array(IDS), jnp.array(MASK)
    _, attention = capture(Meanwhile(), ids, mask, ids, mask, variables={"params": {"t5": loaded.params}})
    assert not failures, failures[0]
    assert_same(attention, capture(loaded, IDS, MASK, IDS, decoder_attention_mask=MASK)[1])


def test_threads_at_work_together(loaded):
    given, failures = inputs("T5"), []
    outputs, attention = capture(loaded, **given)

    def work():
        try:
            for _ in range(4):
                assert_same(capture(loaded, **given), (outputs, attention))
                assert_same(loaded(**given), outputs)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert_nothing_stays()
