"""Decoders and encoder-decoders of transformers: every stack is that of `output_attentions`, under its own name."""

import copy

import checkpoints
import jax
import numpy as np
import pytest
from capture.huggingface_models import (
    DECODERS,
    ENCODER_DECODERS,
    IDS,
    MASK,
    WITH_GENERATION,
    assert_same,
    assert_stacks,
    build,
    inputs,
    transformers,
)

from jaxflow import load_model
from jaxflow.capture import capture

pytestmark = pytest.mark.usefixtures("standard_promotion")  # models of transformers run here

CROSSED = "GPT2 with cross-attention"
ALL = ("encoder", "decoder", "cross")
STACKS = dict.fromkeys(DECODERS, ("decoder",)) | dict.fromkeys(ENCODER_DECODERS, ALL) | {CROSSED: ("decoder", "cross")}


def check(model, given, stacks):
    """Capture gives what the model gives, and these stacks, which are not alike."""
    outputs, attention = capture(model, **given)
    assert_same(outputs, model(**given))
    assert_stacks(attention, model(**given, output_attentions=True), stacks)
    found = [getattr(attention, stack) for stack in stacks]
    layers = [layer for stack in found for layer in np.moveaxis(np.asarray(stack), 1, 0)]
    for i, layer in enumerate(layers):
        for other in layers[:i]:
            assert layer.shape != other.shape or np.abs(layer - other).max() > 1e-2, "too alike to be told apart"
    return attention


# The target is as long as the source here, so that only names tell the stacks apart.


@pytest.mark.parametrize("name", STACKS)
def test_attention_is_that_of_output_attentions(name):
    check(build(name), inputs(name), STACKS[name])


@pytest.mark.parametrize("name", STACKS)
def test_a_checkpoint_directory(name, tmp_path):
    saved = checkpoints.save(tmp_path, name)
    generation = copy.deepcopy(saved.generation_config)
    generation.max_new_tokens = 9
    generation.save_pretrained(tmp_path)
    model, reads = load_model(tmp_path)
    assert type(model) is type(saved)
    jax.tree.map(np.testing.assert_array_equal, model.params, saved.params)
    assert model.generation_config.max_new_tokens == 9
    assert model.generation_config.decoder_start_token_id == saved.config.decoder_start_token_id
    assert model.config.decoder_start_token_id == saved.config.decoder_start_token_id
    if name == "Whisper":
        assert isinstance(reads, transformers.WhisperFeatureExtractor)
    else:
        assert reads.decode(reads("the keys").input_ids, skip_special_tokens=True) == "the keys"
    check(model, inputs(name), STACKS[name])
    assert_same(model(**inputs(name)), saved(**inputs(name)))


@pytest.mark.parametrize("name", ["Bart", "T5"])
def test_a_shorter_target(name):
    given = {"input_ids": IDS, "attention_mask": MASK, "decoder_input_ids": IDS[:, :4]}
    attention = check(build(name), given, ALL)
    assert [getattr(attention, stack).shape[-2:] for stack in ALL] == [(7, 7), (4, 4), (4, 7)]


def test_the_decoder_of_an_encoder_decoder():
    model = build("Bart", "ForCausalLM")
    given = {"input_ids": IDS, "attention_mask": MASK}
    check(model, given, ("decoder",))
    given |= {"encoder_hidden_states": inputs(CROSSED)["encoder_hidden_states"], "encoder_attention_mask": MASK}
    check(model, given, ("decoder", "cross"))


@pytest.mark.parametrize("name", ["Bert", "Roberta", "Electra", "BigBird"])
def test_an_encoder_built_as_a_decoder(name):
    model = build(name, "ForCausalLM", is_decoder=True, add_cross_attention=True)
    given = {"input_ids": IDS, "attention_mask": MASK}
    attention = check(model, given, ("decoder",))
    assert np.triu(attention.decoder, 1).max() == 0
    given |= {"encoder_hidden_states": inputs(CROSSED)["encoder_hidden_states"], "encoder_attention_mask": MASK}
    check(model, given, ("decoder", "cross"))


def test_cross_attention_that_is_not_used():
    given = {name: value for name, value in inputs(CROSSED).items() if not name.startswith("encoder")}
    check(build(CROSSED), given, ("decoder",))


def test_two_models_joined():
    encoder = build("Bert").config
    decoder = build("GPT2", is_decoder=True, add_cross_attention=True).config
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    model = transformers.FlaxEncoderDecoderModel(config)
    params = {"encoder": build("Bert").params, "decoder": build(CROSSED, "LMHeadModel").params}
    model.params = jax.tree.map(np.asarray, params)
    given = {name: value for name, value in inputs("Bart").items() if "decoder" in name}
    attention = check(model, given | {"input_ids": IDS, "attention_mask": MASK}, ALL)
    assert [getattr(attention, stack).shape[1] for stack in ALL] == [3, 2, 2]


def test_other_heads():
    given = {"input_ids": IDS, "attention_mask": MASK}
    check(build("Bart", "ForSequenceClassification"), given | {"input_ids": np.where(IDS == 9, 2, IDS)}, ALL)
    check(build("MBart", "ForQuestionAnswering"), given, ALL)  # the decoder reads the source, shifted
    check(build("GPTNeo", WITH_GENERATION["GPTNeo"]), given, ("decoder",))


def test_tuples_instead_of_fields():
    model = build("Bart")
    outputs, attention = capture(model, IDS, MASK, IDS, return_dict=False)
    assert_same(outputs, model(IDS, MASK, IDS, return_dict=False))
    assert_stacks(attention, model(IDS, MASK, IDS, output_attentions=True), ALL)


def test_windows_and_causality():
    for name in DECODERS:
        _, attention = capture(build(name), IDS)
        assert np.triu(attention.decoder, 1).max() == 0, name
        np.testing.assert_allclose(attention.decoder.sum(-1), 1, atol=1e-5)
    _, attention = capture(build("GPTNeo"), IDS)  # a global layer, and a local one that sees 3 tokens
    assert attention.decoder[:, 0, :, 6, 0].min() > 0
    assert np.tril(attention.decoder[:, 1], -3).max() == 0
    _, attention = capture(build("Mistral"), IDS)  # sees 3 tokens; transformers would show it one more
    assert np.tril(attention.decoder, -3).max() == 0
    assert np.abs(np.tril(attention.decoder, -2)).max() > 0


def test_jit_and_grad():
    model, given = build("Bart"), inputs("Bart")
    _, attention = capture(model, **given)
    jitted = jax.jit(lambda params: capture(model, **given, params=params)[1])(model.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), jitted, attention)

    @jax.jit
    @jax.grad
    def gradient(params):
        return capture(model, **given, params=params)[1].cross[:, -1, :, 0, 1].sum()

    assert np.abs(gradient(model.params)["encoder"]["layers"]["0"]["self_attn"]["q_proj"]["kernel"]).max() > 0
