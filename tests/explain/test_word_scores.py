import numpy as np
import pytest
from example_explanations import SOURCE, TARGET, attention

from jaxflow import Attention, AttentionFlow, attention_flow, explain, joint_capacities, load, load_model
from jaxflow.attribute import rollout
from jaxflow.explain import plain_names
from jaxflow.explain._word_scores import all_words, join_words, sum_words
from jaxflow.models._facts import patch_grid
from jaxflow.network import Spans, span_masks

NAMES = {"encoder": plain_names(SOURCE), "decoder": plain_names(TARGET)}


@pytest.fixture(scope="module")
def capacities():
    rng = np.random.default_rng(0)
    stacks = {"encoder": (4, 4), "decoder": (5, 5), "cross": (5, 4)}
    return joint_capacities(
        Attention(**{name: attention(rng, 2, *shape, causal=name == "decoder") for name, shape in stacks.items()})
    )


@pytest.mark.parametrize(
    "spans", [{"encoder": [(1, 3)]}, {"decoder": [(1, 3), (3, 5)]}, {"encoder": [(0, 2)], "decoder": [(2, 4)]}]
)
def test_a_word_scores_what_its_tokens_send_together(capacities, spans):
    attribution = attention_flow(capacities)
    words = all_words(spans, NAMES)
    scores = join_words(
        words,
        attribution.scores,
        n_encoder=4,
        joint_flow=lambda masks: AttentionFlow()(capacities, spans=masks).scores,
    )
    tokens = np.concatenate([attribution.encoder, attribution.decoder], axis=1)
    assert [stop - start for start, stop, _ in words].count(2) == sum(map(len, spans.values()))
    for place, (start, stop, _) in enumerate(words):
        if stop - start == 1:
            np.testing.assert_array_equal(scores[:, place], tokens[:, start])
            continue
        side, first = ("encoder", 0) if start < 4 else ("decoder", 4)
        other = "decoder" if side == "encoder" else "encoder"
        masks = {side: span_masks([(start - first, stop - first)], len(NAMES[side]))}
        masks[other] = span_masks([(0, 1)], len(NAMES[other]))
        joint = getattr(AttentionFlow()(capacities, spans=Spans(**masks)), side)[:, 0]
        np.testing.assert_allclose(scores[:, place], joint, atol=1e-9)


def test_shares_are_added_up(capacities):
    attribution = rollout(capacities)
    words = all_words({"encoder": [(1, 3)]}, NAMES)
    scores = sum_words(words, attribution.scores)
    assert [word for _, _, word in words] == ["Das", "alte Haus", "</s>", *TARGET]
    np.testing.assert_allclose(scores[:, 1], np.asarray(attribution.encoder)[:, 1:3].sum(1), rtol=1e-6)


def test_an_explanation_knows_the_words_of_its_text(tmp_path):
    model, tokenizer = load_model("agreement")
    options = {"tokenizer": tokenizer, "positions": [0]}
    explanation = explain(model, "the keys' cabinet", **options)
    assert explanation.words == ((0, 1, "[CLS]"), (1, 2, "the"), (2, 4, "keys'"), (4, 5, "cabinet"))
    words = explain(model, "the keys' cabinet", spans="words", **options)
    np.testing.assert_array_equal(explanation.word_scores, words.scores)
    assert words.words == ()
    assert explain(model, "the keys", AttentionFlow(normalise=True), **options).word_scores is None
    explanation.save(tmp_path / "x.json")
    loaded = load(tmp_path / "x.json")
    assert loaded.words == explanation.words
    np.testing.assert_array_equal(loaded.word_scores, explanation.word_scores)


class Config:
    def __init__(self, **sizes):
        self.config = self
        self.__dict__.update(sizes)


def test_patches_of_a_vision_model():
    assert patch_grid(Config(image_size=32, patch_size=8)) == (4, 4)
    assert patch_grid(Config(image_size=(32, 16), patch_size=8)) == (4, 2)
    assert patch_grid(Config(hidden_size=8)) is None
    assert patch_grid(len) is None
