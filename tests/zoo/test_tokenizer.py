import re

import numpy as np
import pytest

from jaxflow.zoo.tokenizer import WordTokenizer


@pytest.fixture
def tokenizer():
    """Reads letters and writes digits."""
    return WordTokenizer(
        ["[PAD]", "[BOS]", "[EOS]", "a", "b", "1", "2"],
        model_max_length=4,
        split=lambda text: list(re.finditer("[a-z]", text)),
        split_target=lambda text: list(re.finditer("[0-9]", text)),
        end="[EOS]",
        join="".join,
        example="ab",
    )


def test_texts_and_targets_are_read_by_rules_of_their_own(tokenizer):
    source = tokenizer(["ab", "b1"], return_offsets_mapping=True)
    assert source["input_ids"].tolist() == [[3, 4], [4, 0]]
    assert source["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert source["offset_mapping"].tolist() == [[[0, 1], [1, 2]], [[0, 1], [0, 0]]]
    assert tokenizer(text_target="a21")["input_ids"].tolist() == [[6, 5, 2]]
    assert tokenizer(text_target="21", add_special_tokens=False)["input_ids"].tolist() == [[6, 5]]


def test_tokens_are_joined_again(tokenizer):
    ids = np.array([1, 6, 5, 2, 0])
    assert tokenizer.decode(ids, skip_special_tokens=True) == "21"
    assert tokenizer.decode(ids) == "[BOS]21[EOS][PAD]"
    assert tokenizer.all_special_ids == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abc", r"does not know: 'c'\. It knows 4 words, such as \"ab\""),
        ("", "the text is empty: ''; expected one such as 'ab'"),
        ("ababa", "has 5 words and signs; with nothing added the model reads at most 4 tokens, so leave out 1"),
    ],
)
def test_what_cannot_be_read_is_refused(tokenizer, text, message):
    with pytest.raises(ValueError, match=message):
        tokenizer(text)


def test_a_target_leaves_room_for_its_end(tokenizer):
    with pytest.raises(ValueError, match=r"with \[EOS\] the model reads at most 4 tokens, so leave out 1"):
        tokenizer(text_target="1212")
