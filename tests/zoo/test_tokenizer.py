import re

import numpy as np
import pytest

from jaxflow.zoo._tokenizer import WordTokenizer


@pytest.fixture
def tokenizer():
    return WordTokenizer(
        ["[PAD]", "[BOS]", "a", "b"],
        model_max_length=4,
        split=lambda text: list(re.finditer("[a-z]", text)),
        start="[BOS]",
        join="".join,
        example="ab",
    )


def test_texts_are_padded_and_tell_where_their_tokens_are(tokenizer):
    inputs = tokenizer(["ab", "b1"], return_offsets_mapping=True)
    assert inputs["input_ids"].tolist() == [[1, 2, 3], [1, 3, 0]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert inputs["offset_mapping"].tolist() == [[[0, 0], [0, 1], [1, 2]], [[0, 0], [0, 1], [0, 0]]]
    assert tokenizer("ab", add_special_tokens=False)["input_ids"].tolist() == [[2, 3]]


def test_tokens_are_joined_again(tokenizer):
    ids = np.array([1, 3, 2, 0])
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ba"
    assert tokenizer.decode(ids) == "[BOS]ba[PAD]"
    assert tokenizer.all_special_ids == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abc", r"does not know: 'c'\. This model is small: it knows 2 words, such as \"ab\""),
        ("", "the text is empty: ''; expected one such as 'ab'"),
        ("ababa", r"has 5 words and signs; with \[BOS\] added the model reads at most 4 tokens, so leave out 2"),
    ],
)
def test_what_cannot_be_read_is_refused(tokenizer, text, message):
    with pytest.raises(ValueError, match=message):
        tokenizer(text)
