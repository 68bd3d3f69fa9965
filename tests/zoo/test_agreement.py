import re
from importlib import resources

import numpy as np
import pytest
import safetensors

from jaxflow.zoo._weights import file_of
from jaxflow.zoo.agreement import NAME
from zoo.agreement import evaluate
from zoo.agreement.grammar import generate

PACKAGE = resources.files("jaxflow.zoo.agreement")
FILE = file_of(NAME)


# The tokenizer


def test_tokenizer_gives_back_the_words_of_every_sentence(trained, held_out):
    _, tokenizer = trained
    encoded = tokenizer([example.text for example in held_out])
    assert encoded["input_ids"].dtype == encoded["attention_mask"].dtype == np.int32
    for example, ids, mask in zip(held_out, encoded["input_ids"], encoded["attention_mask"], strict=True):
        n = len(example.words) + 1
        tokens = tokenizer.convert_ids_to_tokens(ids)
        assert tokens == ["[CLS]", *example.words] + ["[PAD]"] * (len(ids) - n)
        assert mask.tolist() == [1] * n + [0] * (len(ids) - n)


def test_tokenizer_ignores_case_and_kind_of_apostrophe(trained):
    _, tokenizer = trained
    plain = tokenizer("the guards' key near the child's doors")["input_ids"]
    other = tokenizer("  The GUARDS\u2019 key near the child\u2019s doors ")["input_ids"]
    np.testing.assert_array_equal(plain, other)
    assert plain.shape == (1, 10)
    assert tokenizer.get_vocab()["[PAD]"] == tokenizer.pad_token_id == 0
    assert tokenizer.convert_ids_to_tokens(tokenizer.all_special_ids) == tokenizer.all_special_tokens


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty"),
        (" \n ", "the text is empty"),
        (["the key", ""], "the text is empty"),
        ([], "there is no text to read"),
        ("the zebras near the cabinett", r"does not know: 'zebras'.*'cabinett' \(did you mean cabinet"),
        ("the keys.", r"does not know: '\.'"),
        ("[CLS] the keys", "does not know: '\\['"),
        ("zqx", r"get_vocab\(\)"),
        ("the key " + "near the door " * 8, "has 26 words and signs; .* at most 25 tokens, so leave out 2"),
    ],
)
def test_tokenizer_refuses(trained, text, message):
    _, tokenizer = trained
    with pytest.raises(ValueError, match=message):
        tokenizer(text)


def test_tokenizer_reads_up_to_its_limit(trained):
    _, tokenizer = trained
    text = "near the door " * 7 + "the old key"
    assert tokenizer(text)["input_ids"].shape == (1, tokenizer.model_max_length)


# The trained model


def test_shipped_model_is_right_on_held_out_sentences(trained, held_out):
    model, tokenizer = trained
    module, variables = model.unbind()
    predicted = evaluate.predict(module, evaluate.encode(held_out, tokenizer), params=variables["params"])
    table = {name: (count, share) for name, count, share in evaluate.accuracy_table(held_out, predicted)}
    assert table["all"] == (2_000, pytest.approx(1.0, abs=0.01))
    assert table["attractors of the other number"][0] > 1_000
    assert table["attractors of the other number"][1] >= 0.99
    # The sentences are no easy ones: rules of thumb fail.
    for rule in evaluate.RULES_OF_THUMB.values():
        guessed = np.asarray([rule(example) for example in held_out])
        assert evaluate.accuracy_table(held_out, guessed)[1][2] < 0.8


def test_shipped_model_reads_plain_english(trained):
    model, tokenizer = trained
    expected = {
        "the keys": "plural",
        "The key to the old cabinets": "singular",
        "the keys to the old cabinet": "plural",
        "the keys to the old cabinet near the doors": "plural",
        "near the doors, the key to the cabinets": "singular",
        "the teachers' old book": "singular",
        "the children that the guard near the gate admired": "plural",
        "the keys that the guard": "singular",
    }
    logits = model(**tokenizer(list(expected)))
    assert dict(zip(expected, [model.labels[i] for i in logits.argmax(-1)], strict=True)) == expected


def test_padding_changes_nothing(trained):
    model, tokenizer = trained
    texts = ["the keys", "the key to the old cabinet near the doors of the museum"]
    both = tokenizer(texts)
    logits = np.asarray(model(**both))
    for text, row in zip(texts, logits, strict=True):
        np.testing.assert_allclose(model(**tokenizer(text))[0], row, atol=1e-5)
    filled = np.where(both["attention_mask"] == 1, both["input_ids"], 7)
    np.testing.assert_array_equal(model(filled, both["attention_mask"]), logits)
    np.testing.assert_array_equal(model(both["input_ids"]), logits)
    assert np.abs(np.asarray(model(filled)) - logits).max() > 1e-3  # Unmasked, those words count.


def test_every_layer_takes_part_and_the_first_two_decide(trained):
    model, tokenizer = trained
    module, variables = model.unbind()
    params = variables["params"]
    examples = generate(500, split="held_out", seed=1)
    ids = evaluate.encode(examples, tokenizer)
    logits = np.asarray(model(ids[:100]))
    for i in range(module.n_layers):
        silent = evaluate.without_attention(params, layer=i)
        assert np.abs(module.apply({"params": silent}, ids[:100]) - logits).mean() > 0.05
        if i < 2:
            without = evaluate.accuracy_table(examples, evaluate.predict(module, ids, params=silent))
            assert without[0][2] < 0.98


@pytest.mark.parametrize(("shape", "message"), [((5,), r"expected \[batch, token\]"), ((1, 26), "reads at most 25")])
def test_model_refuses(trained, shape, message):
    model, _ = trained
    with pytest.raises(ValueError, match=message):
        model(np.ones(shape, np.int32))


# The files


def test_weights_are_small_and_say_what_made_them():
    with resources.as_file(PACKAGE) as directory:
        assert (directory / FILE).stat().st_size <= 500_000
        with safetensors.safe_open(directory / FILE, framework="numpy") as file:
            metadata = file.metadata()
        card = (directory / "README.md").read_text("utf-8")
    assert metadata["format"] == "jaxflow-agreement-1"
    assert f"| seed | {metadata['seed']} |" in card
    assert f"| steps | {metadata['steps']} |" in card
    assert f"--seed={metadata['seed']} --steps={metadata['steps']}" in card
    assert f"jaxflow {metadata['jaxflow']}," in card
    shares = dict(re.findall(r"^\| ([\w ]+) \| [\d,]+ \| ([\d.]+) %", card, re.MULTILINE))
    wanted = ["all", "attractors of the other number", "1 attractor", *(f"{n} attractors" for n in (0, 2, 3, 4))]
    assert min(float(shares[name]) for name in wanted) >= 99
