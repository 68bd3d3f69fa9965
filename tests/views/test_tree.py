import base64
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import treescope
from strategies import make_attention

from jaxflow import Attention, Attribution, Capacities, attention_flow

WEIGHTS = make_attention("softmax", 0, (1, 3, 2, 4, 4))


def heatmaps(node):
    """What the heatmaps of a rendering are given: numbers, where they are drawn, and the rest."""
    html = treescope.render_to_html(node, compressed=False)
    configs = [json.loads(found) for found in re.findall(r'(\{"info".*?\})</script>', html.replace("\\", ""))]
    numbers = [np.frombuffer(base64.b64decode(config["arrayBase64"]), np.float32) for config in configs]
    drawn = [np.frombuffer(base64.b64decode(config["validMaskBase64"]), np.uint8) for config in configs]
    return numbers, drawn, configs


def test_attention_is_drawn_a_layer_and_a_head_at_a_time():
    ((numbers,), (drawn,), (config,)) = heatmaps(Attention(encoder=jnp.asarray(WEIGHTS)))
    np.testing.assert_array_equal(numbers, WEIGHTS.ravel())
    assert drawn.all()
    assert [axis["label"] for axis in config["slicedAxisSpecs"]] == ["batch 0", "layer", "head"]
    assert [axis["label"] for axis in config["yAxisSpecs"] + config["xAxisSpecs"]] == ["query", "key"]
    text = treescope.render_to_text(Attention(encoder=WEIGHTS))
    assert f"encoder=[batch 0 1, layer 3, head 2, query 4, key 4] from 0 to {WEIGHTS.max():.3g}" in text
    assert "decoder=None" in text


def test_capacities_are_drawn_a_layer_at_a_time():
    _, _, configs = heatmaps(Capacities(encoder=WEIGHTS[0, :, 0], cross=None, decoder=None))
    assert [axis["label"] for axis in configs[0]["slicedAxisSpecs"]] == ["layer"]


def test_scores_of_both_stacks_without_what_no_path_leads_to():
    encoder, decoder = make_attention("softmax", 0, (2, 3, 3)) / 2, make_attention("causal", 0, (2, 4, 4)) / 2
    capacities = Capacities(encoder=encoder, decoder=decoder, cross=decoder[..., :3], residual=0.5)
    attribution = attention_flow(capacities, positions=[0, 2])
    numbers, drawn, configs = heatmaps(attribution)
    np.testing.assert_array_equal(numbers[0], attribution.encoder.astype(np.float32).ravel())
    np.testing.assert_array_equal(numbers[1], attribution.decoder.astype(np.float32).ravel())
    assert drawn[1].reshape(2, 4).tolist() == [[1, 0, 0, 0], [1, 1, 1, 0]]
    assert [axis["label"] for axis in configs[1]["yAxisSpecs"] + configs[1]["xAxisSpecs"]] == ["output", "input"]


def test_0_is_white_beside_negative_scores_too():
    for scores in ([[0.0, 0.5]], [[-1.0, 0.5]]):
        _, _, (config,) = heatmaps(Attribution(encoder=np.array(scores), decoder=None, positions=np.arange(1)))
        colours, least, most = (config["colormapConfig"][name] for name in ("cmapData", "min", "max"))
        zero = (len(colours) - 1) * (0 - least) / (most - least)
        assert colours[round(zero)] == [247, 251, 255]
        assert zero == round(zero)


def test_what_has_no_values_is_shown_as_ever():
    shown = []

    @jax.jit
    def function(weights):
        shown.append(treescope.render_to_text(Attention(encoder=weights)))
        return weights

    function(WEIGHTS)
    assert "Attention(" in shown[0]
    assert "from 0" not in shown[0]
    assert "encoder='?'" in treescope.render_to_text(Attention(encoder="?"))
