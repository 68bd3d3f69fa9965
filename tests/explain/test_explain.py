import dataclasses
import functools

import checkpoints
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from flax import nnx

from jaxflow import AttentionFlow, Attribution, Example, as_model, attention_flow, capture, explain, load, load_model
from jaxflow.attribute import RawAttention, Rollout, raw_attention, rollout
from jaxflow.network import Spans, span_masks

TEXT = "the keys to the old cabinet"

pytestmark = pytest.mark.usefixtures("standard_promotion")  # models of transformers run here


@pytest.fixture(scope="module")
def agreement():
    return load_model("agreement")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bert")
    checkpoints.save_bert(directory)
    return load_model(directory)


def test_it_is_capture_and_attention_flow_with_words(agreement):
    model, tokenizer = agreement
    explanation = explain(model, TEXT, tokenizer=tokenizer)
    _, attention = capture(model, **tokenizer([TEXT]))
    np.testing.assert_allclose(explanation.attribution.encoder, attention_flow(attention).encoder[0], rtol=1e-6)
    assert explanation.tokens == ("[CLS]", "the", "keys", "to", "the", "old", "cabinet")
    prediction = explanation.prediction_of(0)
    logits = np.asarray(model(**tokenizer([TEXT]))[0], np.float64)
    assert prediction.label == "plural"
    assert prediction.probability == pytest.approx(1 / (1 + np.exp(logits[0] - logits[1])))
    assert explanation.bottleneck.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("method", "function"), [(Rollout(normalise=True), rollout), (RawAttention(normalise=True), raw_attention)]
)
def test_methods_without_a_flow(agreement, method, function):
    model, tokenizer = agreement
    explanation = explain(model, TEXT, method, tokenizer=tokenizer, positions=[0, 2])
    _, attention = capture(model, **tokenizer([TEXT]))
    expected = function(attention, positions=[0, 2], normalise=True).encoder[0]
    np.testing.assert_allclose(explanation.attribution.encoder, expected, rtol=1e-6)
    assert explanation.bottleneck is None
    assert explanation.attribution.saturation is None


def test_padding_is_taken_from_the_attention_mask(bert):
    model, tokenizer = bert
    alone = explain(model, "the old keys", tokenizer=tokenizer)
    padded = tokenizer(["the old keys"], padding="max_length", max_length=9, return_tensors="np")
    explanation = explain(model, padded, tokenizer=tokenizer)
    assert explanation.tokens[5:] == ("[PAD]",) * 4
    np.testing.assert_array_equal(explanation.attribution.encoder[5:], 0)
    np.testing.assert_array_equal(explanation.attribution.encoder[:, 5:], 0)
    np.testing.assert_allclose(explanation.attribution.encoder[:5, :5], alone.attribution.encoder, atol=1e-5)
    np.testing.assert_allclose(explanation.bottleneck, alone.bottleneck, atol=1e-4)
    positional = explain(model, (padded["input_ids"], padded["attention_mask"]))
    np.testing.assert_array_equal(positional.attribution.encoder, explanation.attribution.encoder)


def test_a_prediction_per_token(tmp_path):
    checkpoints.save_bert(tmp_path, "FlaxBertForMaskedLM")
    model, tokenizer = load_model(tmp_path)
    explanation = explain(model, "the [MASK]", tokenizer=tokenizer, positions=2)
    logits = np.asarray(model(**tokenizer(["the [MASK]"], return_tensors="np")).logits[0, 2])
    assert explanation.prediction_of(0).label == tokenizer.convert_ids_to_tokens(int(logits.argmax()))
    assert explanation.prediction_of(0).position == 2


def test_words_are_inputs_by_their_joint_flow(agreement):
    model, tokenizer = agreement
    text = "the keys' cabinet near the doors"
    tokens, words = (explain(model, text, tokenizer=tokenizer, positions=0, spans=unit) for unit in (None, "words"))
    assert tokens.tokens == ("[CLS]", "the", "keys", "'", "cabinet", "near", "the", "doors")
    assert words.tokens == ("[CLS]", "the", "keys'", "cabinet", "near", "the", "doors")
    assert words.output_tokens == tokens.output_tokens, "outputs stay tokens"
    np.testing.assert_array_equal(np.delete(words.scores, 2, axis=1), np.delete(tokens.scores, [2, 3], axis=1))
    masks = span_masks([(i, i + 1) for i in (0, 1)] + [(2, 4)] + [(i, i + 1) for i in range(4, 8)], 8)
    _, attention = capture(model, **tokenizer([text]))
    np.testing.assert_allclose(
        words.scores, AttentionFlow()(attention, positions=0, spans=Spans(encoder=masks)).encoder[0], rtol=1e-6
    )
    assert words.bottleneck.sum() == pytest.approx(1)


def test_named_spans(agreement):
    model, tokenizer = agreement
    options = {"tokenizer": tokenizer, "positions": [0], "spans": [(1, 3, "subject"), (3, 6)]}
    explanation = explain(model, "the keys to the cabinet", **options)
    assert explanation.tokens == ("[CLS]", "subject", "to the cabinet")
    shares = explain(model, "the keys to the cabinet", "rollout", **options)
    tokens = explain(model, "the keys to the cabinet", "rollout", tokenizer=tokenizer, positions=[0]).scores[0]
    np.testing.assert_allclose(shares.scores, [[tokens[0], tokens[1:3].sum(), tokens[3:6].sum()]], rtol=1e-6)


@pytest.mark.parametrize("method", ["flow", "rollout"])
def test_joint_outputs(agreement, method, tmp_path):
    model, tokenizer = agreement
    options = {"tokenizer": tokenizer, "method": method, "positions": [0, 2, 3]}
    one, each = (explain(model, "the keys to the cabinet", joint=t, **options) for t in (True, False))
    assert one.scores.shape == (1, 6)
    assert one.output_tokens == ("[CLS] keys to",)
    total = each.scores.sum(0)
    if method == "rollout":
        np.testing.assert_allclose(one.scores[0], total, rtol=1e-6)
    else:
        assert (one.scores[0] <= total + 1e-9).all()
        assert (one.scores[0] >= each.scores.max(0) - 1e-9).all()
    assert "outputs 0, 2 to 3 together ([CLS] keys to)" in str(one)
    one.save(tmp_path / "one.html")
    assert "Outputs 0, 2 to 3 together" in (tmp_path / "one.html").read_text()
    one.save(tmp_path / "one.json")
    assert load(tmp_path / "one.json").output_tokens == one.output_tokens


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spans": [(1, 3), (2, 4)]}, "Spans 0 and 1 overlap|overlap: both hold token 2"),
        ({"spans": [(4, 9)]}, "leaves the text, which has 6 tokens"),
        ({"spans": "sentences"}, "spans is 'sentences'"),
        ({"spans": {"decoder": [(0, 1)]}}, "spans are given for the decoder; the model has encoder tokens alone"),
    ],
)
def test_spans_that_do_not_fit(agreement, options, message):
    model, tokenizer = agreement
    with pytest.raises(ValueError, match=message):
        explain(model, "the keys to the cabinet", tokenizer=tokenizer, **options)


def test_words_of_what_is_no_text(agreement):
    model, tokenizer = agreement
    with pytest.raises(ValueError, match="spans='words' groups the tokens of a text: pass the text"):
        explain(model, tokenizer(["the keys"])["input_ids"], tokenizer=tokenizer, spans="words")


def test_labels_of_a_classifier(bert):
    model, tokenizer = bert
    named = explain(as_model(model, labels=["sad", "happy"]), "the keys", tokenizer=tokenizer, positions=0)
    own = explain(model, "the keys", tokenizer=tokenizer, positions=0)
    assert named.prediction_of().label == {"LABEL_0": "sad", "LABEL_1": "happy"}[own.prediction_of().label]
    with pytest.raises(ValueError, match=r"3 labels are given for 2 logits"):
        explain(as_model(model, labels=["a", "b", "c"]), "the keys", tokenizer=tokenizer, positions=0)


def test_independent_labels_are_no_softmax(tmp_path):
    checkpoints.save_bert(tmp_path, problem_type="multi_label_classification", num_labels=3)
    model, tokenizer = load_model(tmp_path)
    logits = np.asarray(model(**tokenizer(["the keys"], return_tensors="np")).logits[0])
    prediction = explain(model, "the keys", tokenizer=tokenizer, positions=0).prediction_of()
    assert prediction.probability == pytest.approx(1 / (1 + np.exp(-logits.max())), rel=1e-5)


def test_a_linen_module_of_the_user():
    class Encoder(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(nn.MultiHeadDotProductAttention(num_heads=2)(x)[..., 0, :])

    x = jax.random.normal(jax.random.key(0), (1, 3, 8))
    variables = Encoder().init(jax.random.key(1), x)
    explanation = explain(
        as_model(Encoder(), variables=variables, labels=["no", "yes"]), Example(x, tokens=["a", "b", "c"])
    )
    assert explanation.tokens == ("a", "b", "c")
    assert explanation.model == "Encoder"
    assert explanation.prediction_of().label in ("no", "yes")
    assert explain(Encoder(), x, variables=variables).tokens == ("0", "1", "2")


@pytest.fixture(params=["flow", "rollout", "raw", "weighted heads"])
def explanation(request, agreement):
    model, tokenizer = agreement
    if request.param == "weighted heads":
        _, attention = capture(model, **tokenizer([TEXT]))
        heads = np.full(attention.encoder.shape[1:3], 0.2, np.float32)
        return explain(model, TEXT, AttentionFlow(heads=heads), tokenizer=tokenizer, positions=[3, 1])
    return explain(model, TEXT, request.param, tokenizer=tokenizer)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_saved_and_loaded_it_is_the_same(explanation, tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    explanation.save(path)
    loaded = load(path)
    assert type(loaded.attribution) is Attribution

    def same(a, b):
        assert type(a) is type(b)
        np.testing.assert_array_equal(a, b)
        assert getattr(a, "dtype", None) == getattr(b, "dtype", None)

    def record(explanation):
        names = (
            "encoder_tokens",
            "decoder_tokens",
            "output_tokens",
            "model",
            "method",
            "conventions",
            "version",
            "words",
        )
        return {
            **{
                name: getattr(explanation, name)
                for name in (*names, "bottleneck", "word_scores", "patches", "image", "notes")
            },
            "attribution": dataclasses.asdict(explanation.attribution),
            "predictions": [dataclasses.asdict(prediction) for prediction in explanation.predictions],
            "flow_graphs": [dataclasses.asdict(graph) for graph in explanation.flow_graphs],
        }

    jax.tree.map(same, record(explanation), record(loaded))
    assert [path.name for path in tmp_path.iterdir()] == [f"x{suffix}"]
    assert loaded.version
    assert loaded.conventions.get("residual") == (None if explanation.method == "raw" else 0.5)


def test_bad_method(agreement):
    with pytest.raises(
        ValueError, match=r"'shap' is no method; expected one of flow, .*rollout, raw, .*leave_one_out, .*random"
    ):
        explain(agreement[0], TEXT, "shap", tokenizer=agreement[1])


@pytest.mark.parametrize(
    ("method", "expected"),
    [(AttentionFlow, "the class AttentionFlow"), (3, "int"), (lambda evidence: evidence, "function")],
)
def test_what_is_no_method(agreement, method, expected):
    with pytest.raises(TypeError, match=f"method is {expected}; expected a name .*attribute.evidence"):
        explain(agreement[0], TEXT, method, tokenizer=agreement[1])


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_text(agreement, text):
    with pytest.raises(ValueError, match=r"text is empty"):
        explain(agreement[0], text, tokenizer=agreement[1])


def test_a_text_without_tokenizer(agreement):
    with pytest.raises(ValueError, match=r"no tokenizer: pass tokenizer="):
        explain(agreement[0], TEXT)


def test_a_text_that_is_too_long_is_not_cut(bert, agreement):
    with pytest.raises(ValueError, match=r"26 tokens long; the model reads 24 at most. It is not cut"):
        explain(bert[0], "the " * 24, tokenizer=bert[1])
    limit = agreement[1].model_max_length
    with pytest.raises(ValueError, match=rf"reads at most {limit} tokens"):
        explain(agreement[0], "the " * limit, tokenizer=agreement[1])


def test_inputs_beyond_the_models_positions_are_refused(bert):
    ids = np.ones((1, 25), np.int32)
    with pytest.raises(ValueError, match=r"25 tokens.*24 positions"):
        explain(bert[0], ids)


def test_roberta_spends_two_positions_on_padding():
    config = transformers.RobertaConfig(
        vocab_size=20, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=12, pad_token_id=1,
    )  # fmt: skip
    model = transformers.FlaxRobertaModel(config)
    assert explain(model, np.full((1, 10), 5)).attribution.encoder.shape == (10, 10)
    with pytest.raises(ValueError, match=r"11 tokens.*10 positions"):
        explain(model, np.full((1, 11), 5))


def test_more_than_one_example(bert):
    with pytest.raises(ValueError, match=r"batch of shape \(2,\).*attention_flow"):
        explain(bert[0], np.ones((2, 4), np.int32))


def test_words_that_do_not_fit(bert):
    with pytest.raises(ValueError, match=r"tokens holds 2 words; the model's attention is over 4 tokens"):
        explain(bert[0], Example(np.ones((1, 4), np.int32), tokens=["a", "b"]))


def test_a_mask_that_is_no_padding_mask():
    class Encoder(nn.Module):
        @nn.compact
        def __call__(self, x, attention_mask):
            return nn.MultiHeadDotProductAttention(num_heads=2)(x, mask=attention_mask)

    x, mask = jnp.ones((1, 3, 8)), jnp.ones((1, 2, 3, 3), bool)  # one for each head
    variables = Encoder().init(jax.random.key(0), x, mask)
    with pytest.raises(
        ValueError, match=r"attention_mask has shape \(1, 2, 3, 3\).*pass encoder_mask of shape \(1, 3\)"
    ):
        explain(Encoder(), (x, mask), variables=variables)
    assert explain(Encoder(), Example((x, mask), encoder_mask=np.ones((1, 3), bool)), variables=variables).tokens


def causal_model(ids):
    """A function that nobody prepared: one-hot tokens attend to those before them, in two layers."""
    x = jax.nn.one_hot(ids, 7) @ jax.random.normal(jax.random.key(0), (7, 8))
    for i in range(2):
        q, k, v = (x @ jax.random.normal(jax.random.key(3 * i + j + 1), (8, 8)) for j in range(3))
        seen = jnp.tril(jnp.ones((1, ids.shape[-1], ids.shape[-1]), bool))
        x = x + jax.nn.softmax(jnp.where(seen, q @ k.swapaxes(-1, -2) / 8, -1e9)) @ v
    return x


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, functools.partial], ids=["function", "jit", "partial"])
def test_functions(wrap):
    words = ("a", "b", "c", "d")
    explanation = explain(wrap(causal_model), Example(jnp.asarray([[1, 2, 3, 4]]), tokens=words))
    assert explanation.tokens == words
    assert explanation.model == "causal_model"
    np.testing.assert_array_equal(np.triu(explanation.attribution.encoder, 1), 0)
    assert "causal_model" in str(explanation)


def test_nnx_modules():
    class Model(nnx.Module):
        def __init__(self):
            self.attention = nnx.MultiHeadAttention(num_heads=2, in_features=8, decode=False, rngs=nnx.Rngs(0))

        def __call__(self, inputs, *, scale):
            return inputs + self.attention(inputs * scale)

    x = jax.random.normal(jax.random.key(0), (1, 3, 8))
    explanation = explain(Model(), Example({"inputs": x, "scale": 2.0}, tokens=["x", "y", "z"]))
    assert explanation.model == "Model"
    assert explanation.scores.shape == (3, 3)
    with pytest.raises(ValueError, match=r"tokens holds 2 words; the model's attention is over 3 tokens"):
        explain(Model(), Example({"inputs": x, "scale": 2.0}, tokens=["x", "y"]))
