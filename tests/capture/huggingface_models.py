"""A tiny random model of every encoder class of transformers."""

import functools

import jax
import numpy as np
import pytest

transformers = pytest.importorskip("transformers", "4", exc_type=ImportError)

TEXT = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 24,
}
IMAGE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "image_size": 32,
    "patch_size": 8,
}
AUDIO = {
    "vocab_size": 20,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "conv_dim": (16, 16),
    "conv_kernel": (4, 4),
    "conv_stride": (4, 4),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,  # the other order is not in the Flax class
    "mask_time_prob": 0.0,
}
CONFIGS = {
    "Bert": ("Bert", TEXT),
    "Roberta": ("Roberta", TEXT),
    "XLMRoberta": ("XLMRoberta", TEXT | {"num_hidden_layers": 12}),
    "RobertaPreLayerNorm": ("RobertaPreLayerNorm", TEXT),
    "Electra": ("Electra", TEXT | {"embedding_size": 16}),
    "Albert": ("Albert", TEXT | {"embedding_size": 16}),
    "DistilBert": (
        "DistilBert",
        {"vocab_size": 50, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 40, "max_position_embeddings": 24},
    ),
    "RoFormer": ("RoFormer", TEXT | {"embedding_size": 32}),
    "BigBird": ("BigBird", TEXT | {"attention_type": "original_full"}),
    "ViT": ("ViT", IMAGE),
    "Beit": ("Beit", IMAGE | {"use_relative_position_bias": True}),
    "Dinov2": ("Dinov2", {k: v for k, v in IMAGE.items() if k != "intermediate_size"} | {"mlp_ratio": 2}),
    "CLIPText": ("CLIPText", TEXT),
    "CLIPVision": ("CLIPVision", IMAGE),
    "Wav2Vec2": ("Wav2Vec2", AUDIO),
}
IDS = np.array([[2, 3, 4, 5, 6, 7, 8], [9, 8, 7, 6, 1, 1, 1]])
MASK = np.array([[1] * 7, [1] * 4 + [0] * 3])
PIXELS = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype("float32")
WAVES = np.random.default_rng(0).normal(size=(2, 240)).astype("float32")


def inputs(name):
    if name in ("ViT", "Beit", "Dinov2", "CLIPVision"):
        return (PIXELS,), {}
    return ((WAVES,), {}) if name == "Wav2Vec2" else ((IDS,), {"attention_mask": MASK})


@functools.cache
def build(name, head="Model"):
    """A tiny model whose weights are large enough for the layers' attention to differ."""
    config, options = CONFIGS[name]
    options = dict(options)
    more = {"input_shape": (1, 240)} if name == "Wav2Vec2" else {}
    model = getattr(transformers, f"Flax{name}{head}")(getattr(transformers, f"{config}Config")(**options), **more)
    rng = np.random.default_rng(0)
    model.params = jax.tree.map(
        lambda p: p + (0.15 * rng.normal(size=p.shape)).astype(p.dtype) if p.ndim > 1 else p, model.params
    )
    return model


def unbuilt(cls, config, **options):
    """A model without parameters: enough to be refused."""
    return getattr(transformers, cls)(getattr(transformers, config)(**options), _do_init=False)


def assert_same(got, expected):
    assert type(got) is type(expected)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def assert_attention(attention, reference):
    np.testing.assert_allclose(attention.encoder, np.stack(reference, 1), atol=1e-5, rtol=0)
    assert attention.decoder is None
    assert attention.cross is None
