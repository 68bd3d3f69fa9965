"""What cannot be captured from a class of transformers, by its message."""

import importlib.metadata

import jax
import numpy as np
import pytest
from capture.huggingface_models import (
    CONFIGS,
    DECODERS,
    ENCODER_DECODERS,
    IDS,
    IMAGE,
    PIXELS,
    TEXT,
    build,
    inputs,
    unbuilt,
)

from jaxflow import load_model
from jaxflow.capture import capture
from jaxflow.models._transformers._mending import mended
from jaxflow.models._transformers._refusals import require_transformers

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
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), model.params_shape_tree)
    text = transformers.FlaxCLIPTextModel(model.config.text_config, _do_init=False)
    _, attention = capture(text, IDS, params={"text_model": params["text_model"]})
    assert attention.encoder.shape == (2, 3, 4, 7, 7)


def test_block_sparse_attention():
    model = unbuilt("FlaxBigBirdModel", "BigBirdConfig", **TEXT, block_size=2, num_random_blocks=1)
    with pytest.raises(ValueError, match=r"'block_sparse' computes attention in blocks.*\"original_full\""):
        capture(model, IDS)


def test_long_t5():
    config = transformers.LongT5Config(**CONFIGS["T5"][1])
    with mended(), pytest.raises(TypeError, match="a_max"):  # what is mended is T5, not what resembles it
        transformers.FlaxLongT5Model(config, _do_init=False)
    model = object.__new__(transformers.FlaxLongT5Model)
    model._config = config
    with pytest.raises(ValueError, match=r"FlaxLongT5Model computes its encoder's attention in blocks.*Use T5 or MT5"):
        capture(model, IDS, IDS)


@pytest.mark.parametrize(
    ("name", "error"), [("LongT5", "in blocks of"), ("Llama", "mlp_bias=False"), ("BigBird", "original_full")]
)
def test_a_checkpoint_is_refused_before_its_weights_are_read(name, error, tmp_path):
    options = CONFIGS.get(name, CONFIGS["T5"])[1] | {"mlp_bias": True, "attention_type": "block_sparse"}
    config = getattr(transformers, f"{name}Config")(**options, architectures=[f"{name}Model"])
    config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=error):
        load_model(tmp_path)


@pytest.mark.parametrize("name", DECODERS)  # encoder-decoders take a cache in `decode` alone
def test_decoding_with_a_cache(name):
    model, given = build(name), inputs(name)
    with pytest.raises(ValueError, match=r"past_key_values holds the keys of earlier steps.*pass all tokens so far"):
        capture(model, **given, past_key_values={"any": 1})


@pytest.mark.parametrize(
    ("name", "rate"), [("GPT2", "attn_pdrop"), ("T5", "dropout_rate"), ("Llama", "attention_dropout")]
)
def test_active_attention_dropout_of_decoders(name, rate):
    model = build(name, **{rate: 0.25})
    with pytest.raises(ValueError, match=r"runs with attention dropout 0.25.*Capture with train=False"):
        capture(model, **inputs(name), train=True, dropout_rng=jax.random.key(0))


POSITIONS = dict.fromkeys([*DECODERS, *ENCODER_DECODERS, "Bert", "DistilBert"], "max_position_embeddings")
POSITIONS |= {"Whisper": "max_target_positions", "Roberta": "max_position_embeddings"}


def longer(given, n_more, prefix):
    """The inputs whose name begins so, with the last token repeated."""
    return {
        name: np.pad(value, [(0, 0), (0, n_more)], mode="edge")
        for name, value in given.items()
        if name.startswith(prefix) and value.ndim == 2
    }


@pytest.mark.parametrize("name", [name for name in POSITIONS if name not in ("Bloom", "T5", "MT5")])
def test_more_tokens_than_positions(name):
    n = 7
    model = build(name, **{POSITIONS[name]: n + 2 * (name == "Roberta")})  # which counts from pad_token_id + 1
    given = inputs(name)
    outputs, _ = capture(model, **given)
    assert np.isfinite(outputs[0]).all()
    for tokens, prefix in (("input_ids", ("input", "attention")), ("decoder_input_ids", "decoder")):
        if tokens in given:
            with pytest.raises(
                ValueError, match=rf"is given {n + 1} tokens in {tokens} and has {n} positions.*is not cut"
            ):
                capture(model, **given | longer(given, 1, prefix))


@pytest.mark.parametrize("name", ["Bloom", "T5"])
def test_models_without_positions_read_any_length(name):
    given = {n: np.tile(v, 6) for n, v in inputs(name).items()}
    attention = jax.eval_shape(lambda: capture(build(name), **given)[1])
    assert attention.decoder.shape == (2, 2, 4, 42, 42)


def test_positions_of_two_models_joined():
    encoder, decoder = build("Bert").config, build("GPT2", is_decoder=True, n_positions=6).config
    model = object.__new__(transformers.FlaxEncoderDecoderModel)
    model._config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    with pytest.raises(ValueError, match=r"is given 7 tokens in decoder_input_ids and has 6 positions"):
        capture(model, input_ids=IDS, decoder_input_ids=IDS)


@pytest.mark.parametrize(("name", "error"), [("T5", ValueError), ("Whisper", TypeError)])
def test_no_target_where_transformers_makes_none(name, error):
    given = {n: v for n, v in inputs(name).items() if not n.startswith("decoder")}
    with pytest.raises(error, match="decoder_input_ids"):
        capture(build(name), **given)


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
    with pytest.raises(ValueError, match=r"its stacks are known: variables=, sown=, roles= and mixing= are for others"):
        capture(build("GPT2"), IDS, roles={"": "encoder"})


def test_require_transformers(monkeypatch):
    require_transformers()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "5.0.1")
    with pytest.raises(
        ImportError, match=r'transformers 5.0.1 has no Flax classes.*pip install "jaxflow-attention\[hf\]"'
    ):
        require_transformers()

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ImportError, match=r'transformers is not installed.*pip install "jaxflow-attention\[hf\]"'):
        require_transformers()
