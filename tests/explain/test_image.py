import numpy as np
import pytest
from transformers import FlaxViTModel, ViTConfig

from jaxflow import explain, load
from jaxflow.attribute import gradient_norm
from jaxflow.explain._image import as_read, grey, ground
from jaxflow.explain._reading import _name_patches as name_patches
from jaxflow.views.html._page import to_page

SIZES = {"image_size": 16, "patch_size": 8, "hidden_size": 8, "intermediate_size": 8}


def test_a_vision_model_s_explanation_holds_its_image(standard_promotion, tmp_path):
    model = FlaxViTModel(ViTConfig(num_hidden_layers=2, num_attention_heads=2, **SIZES))
    image = np.random.default_rng(0).random((16, 16, 3))
    pixels = np.moveaxis(2 * image - 1, -1, 0)[None].astype(np.float32)
    explanation = explain(model, {"pixel_values": pixels}, positions=0)
    assert explanation.patches == (2, 2)
    assert explanation.tokens == explanation.output_tokens == ("0", "0,0", "0,1", "1,0", "1,1")
    assert "Output 0" in to_page(explanation)
    assert "Output 2: 0,1" in to_page(explain(model, {"pixel_values": pixels}, positions=2))
    seen = grey(image)
    stretched = (seen - seen.min()) / (seen.max() - seen.min())
    np.testing.assert_allclose(explanation.image / 255, stretched, atol=0.51 / 255)
    for ending in ("json", "npz"):
        explanation.save(tmp_path / f"x.{ending}")
        loaded = load(tmp_path / f"x.{ending}").image
        np.testing.assert_array_equal(loaded, explanation.image)
        assert loaded.dtype == np.uint8


def test_pixels_have_no_embeddings_of_tokens(standard_promotion):
    model = FlaxViTModel(ViTConfig(num_hidden_layers=1, num_attention_heads=2, **SIZES))
    with pytest.raises(ValueError, match="0 embeddings of tokens were found in FlaxViTModel"):
        gradient_norm(
            model, pixel_values=np.zeros((1, 3, 16, 16)), target=lambda outputs: outputs.last_hidden_state.sum()
        )


def test_patches_are_named_by_row_and_column():
    assert tuple(name for name, _ in name_patches((2, 3), 8)) == ("0", "1", "0,0", "0,1", "0,2", "1,0", "1,1", "1,2")


@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (1, 5, 7, 3), (1, 1, 5, 7), (1, 5, 7, 1)])
def test_channels_first_and_last(shape):
    assert as_read(np.random.default_rng(0).normal(size=shape)).shape == (5, 7)


def test_brightness_is_stretched_from_black_to_white():
    pixels = np.linspace(-2, 3, 12).reshape(1, 1, 3, 4)
    np.testing.assert_array_equal(as_read(pixels)[0], np.rint(np.arange(4) * 255 / 11))
    assert as_read(pixels).max() == 255
    assert not as_read(np.full((1, 3, 4, 4), 7.0)).any()  # of one brightness
    np.testing.assert_array_equal(as_read(np.eye(3)[:, [2, 0, 1]][None, :, None]), [[0, 56, 255]])


@pytest.mark.parametrize(
    "pixels", [None, np.zeros((1, 4)), np.zeros((2, 3, 4, 4)), np.zeros((1, 4, 4, 4)), np.full((1, 3, 4, 4), np.nan)]
)
def test_what_is_no_image(pixels):
    assert as_read(pixels) is None


def test_ground_is_light_enough_to_draw_on():
    np.testing.assert_allclose(ground(np.array([[0.0, 0.5, 1.0]])), [[0.3, 0.65, 1.0]])
