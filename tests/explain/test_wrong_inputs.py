"""What is given as inputs and is none: each is refused by a sentence about what is wrong with it."""

import checkpoints
import numpy as np
import pytest
import tiny_models

from jaxflow import AttentionFlow, Example, Generate, capture, compare, explain, load_model
from jaxflow.capture import attention_gradients, capture_contributions, logit
from jaxflow.models import generate
from jaxflow.network import capture_capacities

pytestmark = pytest.mark.usefixtures("standard_promotion")
BEYOND = "holds 999; .* knows 50 tokens, 0 to 49. Was the text read by the tokenizer of another model"
NEGATIVE = "holds -1; expected token ids of 0 or more. JAX would count it from the end"


@pytest.fixture(scope="module")
def models():
    return {name: tiny_models.build(name, tiny_models.WITH_GENERATION[name]) for name in ("GPT2", "Bart")}


def calls(model):
    """All that runs a model on inputs by name."""
    at = {"explain": lambda **inputs: explain(model, inputs), "capture": lambda **inputs: capture(model, **inputs)}
    at["gradients"] = lambda **inputs: attention_gradients(model, target=logit(0, position=0), **inputs)
    at["contributions"] = lambda **inputs: capture_contributions(model, target=logit(0, position=0), **inputs)
    at["capacities"] = lambda **inputs: capture_capacities(model, **inputs)
    at["generate"] = lambda **inputs: generate(model, inputs)
    at["explain what is generated"] = lambda **inputs: explain(model, inputs, generate=Generate(max_new_tokens=1))
    return at


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1, 999]], BEYOND),
        ([[1, -1]], NEGATIVE),
        (np.zeros((1, 0), int), r"has shape \(1, 0\): it holds no token"),
        ([[1.0, 2.0]], "is float64; expected token ids, whole numbers"),
        ([[True, False]], "is bool; expected token ids"),
        ([1, 2], r"has shape \(2,\); expected \[batch, token\]: input_ids\[None\]"),
    ],
)
@pytest.mark.parametrize(
    "call", ["explain", "capture", "gradients", "contributions", "capacities", "generate", "explain what is generated"]
)
def test_ids_that_are_none_of_the_model_s(models, call, ids, message):
    with pytest.raises(ValueError, match=f"input_ids {message}"):
        calls(models["GPT2"])[call](input_ids=np.asarray(ids))


@pytest.mark.parametrize(("ids", "message"), [([[1, 999]], BEYOND), ([[1, -1]], NEGATIVE)])
@pytest.mark.parametrize("side", ["input_ids", "decoder_input_ids"])
def test_ids_of_either_side(models, side, ids, message):
    inputs = {"input_ids": np.array([[1, 2]]), "decoder_input_ids": np.array([[2, 3]]), side: np.asarray(ids)}
    with pytest.raises(ValueError, match=f"^{side} {message}"):
        explain(models["Bart"], inputs)


def test_a_model_that_does_not_say_how_many_tokens_it_knows():
    model, _ = load_model("agreement")
    with pytest.raises(ValueError, match="Token ids beyond the vocabulary give NaN"):
        explain(model, {"input_ids": np.array([[1, 2, 9999]])})
    with pytest.raises(ValueError, match=NEGATIVE):
        explain(model, (np.array([[1, -1]]),))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (b"the keys", r"inputs is bytes; .* inputs.decode\('utf-8'\) is"),
        (bytearray(b"the keys"), "inputs is bytearray"),
        (["the keys", b"the keys"], r"^inputs\[1\]: inputs is bytes"),
        ([["the", "keys"]], r"^inputs\[0\]: inputs is list; .* ' '.join\(words\)"),
        ([1, 2, 3], r"inputs is int; .* one array, np.array\(\[ids\]\)"),
        (Example(["the", "keys"]), "inputs is list"),
        (Example(b"the keys"), "inputs is bytes"),
        (("the", "keys"), "input 0 is a str, 'the'; expected an array"),
        ({"input_ids": "the keys"}, "input_ids is a str, 'the keys'; expected an array. A text is the whole"),
        (None, "inputs is NoneType"),
        (7, "inputs is int"),
    ],
)
def test_what_is_no_text(inputs, message):
    model, tokenizer = load_model("agreement")
    with pytest.raises(TypeError, match=message):
        explain(model, inputs, tokenizer=tokenizer)


def test_lists_of_numbers_are_arrays():
    model, tokenizer = load_model("agreement")
    ids = tokenizer("the keys")["input_ids"]
    expected = explain(model, {"input_ids": ids}).scores
    np.testing.assert_array_equal(explain(model, {"input_ids": ids.tolist()}).scores, expected)
    np.testing.assert_array_equal(explain(model, (ids.tolist(),)).scores, expected)
    with pytest.raises(ValueError, match="input_ids holds lists of different lengths"):
        explain(model, {"input_ids": [[1, 2], [3]]})


def test_a_tokenizer_that_is_none():
    model, _ = load_model("agreement")
    with pytest.raises(TypeError, match="tokenizer is 'bert'; expected a tokenizer, as load_model returns it"):
        explain(model, "the keys", tokenizer="bert")


def test_a_text_without_tokens():
    class Deaf:
        model_max_length = 9

        def __call__(self, texts):
            return {"input_ids": np.zeros((1, 0), int)}

    model, _ = load_model("agreement")
    with pytest.raises(ValueError, match=r"The text '\.\.\.' has no token: the tokenizer leaves out all that it holds"):
        explain(model, "...", tokenizer=Deaf())


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (b"the keys", ValueError, "texts is b'the keys'; expected one or more texts, in a list"),
        ([b"the keys"], TypeError, r"texts\[0\] is bytes, b'the keys'; expected a text"),
        (["the keys", ["the"]], TypeError, r"texts\[1\] is list"),
        ([None], TypeError, r"texts\[0\] is NoneType"),
    ],
)
def test_texts_of_a_comparison(texts, error, message):
    model, tokenizer = load_model("agreement")
    with pytest.raises(error, match=message):
        compare(model, texts, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("name", "purpose"),
    [("agreement", "tells whether the subject"), ("agreement-lm", "finishes short English sentences with a verb")],
)
def test_words_that_a_shipped_model_does_not_know(name, purpose):
    model, tokenizer = load_model(name)
    with pytest.raises(ValueError, match=f"'xylophones'.*This model {purpose}.*load another model: .*--model DIR"):
        explain(model, "the xylophones", tokenizer=tokenizer)


def test_gradients_without_a_target_are_those_of_what_is_predicted():

    model, tokenizer = load_model("agreement")
    explanation = explain(model, "the keys", AttentionFlow(weighting="gradient"), tokenizer=tokenizer, positions=0)
    named = explain(
        model, "the keys", AttentionFlow(weighting="gradient"), tokenizer=tokenizer, positions=0, target="plural"
    )
    np.testing.assert_array_equal(explanation.scores, named.scores)
    assert explanation.conventions["target"] == "plural"


def test_what_a_tokenizer_returns_is_inputs(tmp_path):
    """A tokenizer's BatchEncoding, which holds lists, is inputs."""
    checkpoints.save_bert(tmp_path)
    model, tokenizer = load_model(tmp_path)
    encoded = tokenizer(["the keys"])
    assert isinstance(encoded["input_ids"], list)
    expected = explain(model, "the keys", tokenizer=tokenizer)
    np.testing.assert_array_equal(explain(model, encoded, tokenizer=tokenizer).scores, expected.scores)


def test_a_byte_order_mark_is_no_word():
    model, tokenizer = load_model("agreement")
    with pytest.raises(ValueError, match=r"begins with a byte order mark, U\+FEFF.*utf-8-sig"):
        explain(model, "\ufeffthe keys", tokenizer=tokenizer)
    with pytest.raises(ValueError, match=r"Text 2 of 2.*begins with a byte order mark"):
        compare(model, ["the old keys", "\ufeffthe old keys"], tokenizer=tokenizer)


def test_a_tokenizer_that_has_no_token_for_a_word():
    """The library tokenizers raises a bare Exception then."""
    import tokenizers
    import transformers

    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"the": 0, "keys": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend)
    model, _ = load_model("agreement")
    with pytest.raises(ValueError, match="PreTrainedTokenizerFast cannot read the text 'the xylophones': "):
        explain(model, "the xylophones", tokenizer=tokenizer)
