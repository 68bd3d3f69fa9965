"""What cannot be captured from a class of transformers, by its message."""

import importlib.metadata

import jax
import numpy as np
import pytest
from capture.huggingface_models import IDS, IMAGE, PIXELS, TEXT, build, unbuilt

from jaxflow.capture import capture
from jaxflow.capture.huggingface import require_transformers

transformers = pytest.importorskip("transformers", "4", exc_type=ImportError)
pytestmark = pytest.mark.usefixtures("standard_promotion")  # models of transformers run here


def test_active_attention_dropout():
    with pytest.raises(ValueError, match=r"FlaxBertSelfAttention|FlaxBertAttention") as error:
        capture(build("Bert"), IDS, train=True, dropout_rng=jax.random.key(0))
    assert "runs with attention dropout 0.1" in str(error.value)
    assert "Capture with train=False" in str(error.value)


def test_head_mask():
    with pytest.raises(ValueError, match=r"head_mask scales attention after the softmax.*heads=weights"):
        capture(build("Bert"), IDS, head_mask=np.ones((3, 4)))


def test_two_encoders():
    options = {"text_config": TEXT | {"eos_token_id": 8}, "vision_config": IMAGE, "projection_dim": 16}
    model = unbuilt("FlaxCLIPModel", "CLIPConfig", **options)
    with pytest.raises(ValueError, match=r"FlaxCLIPModel runs two encoders.*Capture one of them") as error:
        capture(model, IDS, PIXELS)
    assert 'params={"text_model": model.params["text_model"]}' in str(error.value)
    # The way out that the message names.
    params = model.init_weights(jax.random.key(0), model.input_shape)
    text = transformers.FlaxCLIPTextModel(model.config.text_config)
    _, attention = capture(text, IDS, params={"text_model": params["text_model"]})
    assert attention.encoder.shape == (2, 3, 4, 7, 7)


def test_block_sparse_attention():
    model = unbuilt("FlaxBigBirdModel", "BigBirdConfig", **TEXT, block_size=2, num_random_blocks=1)
    with pytest.raises(ValueError, match=r"'block_sparse' computes attention in blocks.*\"original_full\""):
        capture(model, IDS)


def test_mistral_without_a_window():
    options = TEXT | {"num_key_value_heads": 2}
    model = unbuilt("FlaxMistralForCausalLM", "MistralConfig", **options, sliding_window=None)
    with pytest.raises(ValueError, match=r"sliding_window=None lets every token attend to itself.*Set a window"):
        capture(model, IDS)
    model = unbuilt("FlaxMistralModel", "MistralConfig", **options, sliding_window=8)
    with pytest.raises(ValueError, match=r"FlaxMistralModel is a decoder: not supported yet"):
        capture(model, IDS)


SMALL = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50, "n_positions": 24}
BART = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 50, "max_position_embeddings": 24}


@pytest.mark.parametrize(
    ("cls", "config", "options", "what"),
    [
        ("FlaxGPT2Model", "GPT2Config", SMALL, "a decoder"),
        ("FlaxGPT2LMHeadModel", "GPT2Config", SMALL, "a decoder"),
        ("FlaxLlamaModel", "LlamaConfig", TEXT, "a decoder"),
        ("FlaxBertForCausalLM", "BertConfig", TEXT | {"is_decoder": True}, "a decoder"),
        ("FlaxBartModel", "BartConfig", BART, "an encoder-decoder"),
    ],
)
def test_decoders_are_not_supported_yet(cls, config, options, what):
    model = unbuilt(cls, config, **options)
    with pytest.raises(ValueError, match=rf"{cls} is {what}: not supported yet. So far capture takes encoder-only"):
        capture(model, IDS)


def test_a_model_without_attention():
    options = {"embedding_size": 4, "hidden_sizes": [4], "depths": [1], "layer_type": "basic"}
    model = transformers.FlaxResNetModel(transformers.ResNetConfig(**options), input_shape=(1, 32, 32, 3))
    with pytest.raises(ValueError, match=r"No attention was found in FlaxResNetModule"):
        capture(model, PIXELS)


def test_arguments_of_linen_modules():
    with pytest.raises(ValueError, match=r"FlaxBertModel holds its own parameters and sows nothing.*params="):
        capture(build("Bert"), IDS, variables={"params": {}})
    with pytest.raises(ValueError, match=r"FlaxBertModel holds its own parameters and sows nothing"):
        capture(build("Bert"), IDS, sown="weights")


def test_require_transformers(monkeypatch):
    require_transformers()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "5.0.1")
    with pytest.raises(ImportError, match=r'transformers 5.0.1 has no Flax classes.*pip install "jaxflow\[hf\]"'):
        require_transformers()

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ImportError, match=r'transformers is not installed.*pip install "jaxflow\[hf\]"'):
        require_transformers()
