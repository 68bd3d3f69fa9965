import checkpoints
import numpy as np
import pytest

from jaxflow import load_model
from jaxflow.explain import plain_names, text_spans
from jaxflow.explain._words import cover, written_spans

TEXT = "the keys'  old, cabinet\nis on.\n \n the key"


@pytest.fixture(scope="module")
def tokenizer():
    return checkpoints.byte_pairs()


def tokens_of(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer([text])["input_ids"][0])


@pytest.mark.parametrize(
    ("unit", "names"),
    [
        ("words", ["the", "keys'", "old,", "cabinet", "is", "on.", "the", "key"]),
        ("lines", ["the keys' old, cabinet", "is on.", "the key"]),
        ("paragraphs", ["the keys' old, cabinet is on.", "the key"]),
    ],
)
@pytest.mark.parametrize("make", [checkpoints.byte_pairs, checkpoints.words])
def test_units_of_a_text(make, unit, names):
    tokenizer = make()
    spans = text_spans(tokenizer, TEXT, unit)
    assert [name for _, _, name in spans] == names
    offsets = tokenizer([TEXT], return_offsets_mapping=True)["offset_mapping"][0]
    for start, stop, name in spans:
        assert " ".join(TEXT[offsets[start][0] : offsets[stop - 1][1]].split()) == name


def test_byte_pairs_that_begin_with_a_blank_belong_to_the_word_behind_it(tokenizer):
    assert "Ġkeys" in tokens_of(tokenizer, "the keys")
    assert text_spans(tokenizer, "the keys") == [(0, 1, "the"), (1, 2, "keys")]


def test_added_tokens_belong_to_no_word(tmp_path):
    tokenizer = checkpoints.save_tokenizer(tmp_path)
    assert tokens_of(tokenizer, "the cabinets") == ["[CLS]", "the", "cabinet", "##s", "[SEP]"]
    assert text_spans(tokenizer, "the cabinets") == [(1, 2, "the"), (2, 4, "cabinets")]


def test_a_token_of_two_words_joins_them():
    class Pairs:
        """Takes "old cabinet" for one token, as SentencePiece models may."""

        def __call__(self, texts, *, return_offsets_mapping):
            return {"offset_mapping": [[(0, 3), (3, 15), (15, 17), (17, 20)]]}

    assert text_spans(Pairs(), "the old cabinets on") == [(0, 1, "the"), (1, 3, "old cabinets"), (3, 4, "on")]


def test_the_model_of_the_package_tells_offsets():
    _, tokenizer = load_model("agreement")
    spans = text_spans(tokenizer, "the keys' old cabinet")
    assert spans == [(1, 2, "the"), (2, 4, "keys'"), (4, 5, "old"), (5, 6, "cabinet")]


def test_a_tokenizer_without_offsets(tmp_path):
    import transformers

    checkpoints.save_tokenizer(tmp_path)
    slow = transformers.BertTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"BertTokenizer tells no offsets.*\(start, stop\) pairs"):
        text_spans(slow, "the keys")


def test_units_that_are_none(tokenizer):
    with pytest.raises(ValueError, match="spans is 'sentences'; expected 'words', 'lines', 'paragraphs'"):
        text_spans(tokenizer, "the", "sentences")


@pytest.mark.parametrize("make", [checkpoints.byte_pairs, checkpoints.words])
def test_words_that_were_written(make):
    tokenizer = make()
    ids = np.array(tokenizer(["the keys the old keys"])["input_ids"][0])
    start = 2
    spans = written_spans(tokenizer, ids, start=start)
    assert [name for _, _, name in spans] == ["the", "old", "keys"]
    assert spans[0][0] == start
    for start, stop, name in spans:
        assert tokenizer.decode(ids[start:stop], skip_special_tokens=True).strip() == name


def test_tokens_in_no_span_stay_inputs_of_their_own():
    tokens = plain_names("abcd")
    assert cover([(2, 4), (0, 1, "first")], tokens) == [(0, 1, "first"), (1, 2, "b"), (2, 4, "c d")]
    (named,) = cover([(0, 40)], plain_names(["word"] * 40))
    assert len(named[2]) <= 40
    assert named[2].endswith("…")


@pytest.mark.parametrize("span", ["ab", (1,), (0, "x"), (0.5, 2)])
def test_what_is_no_span(span):
    with pytest.raises(ValueError, match="is no span"):
        cover([span], plain_names("ab"))
