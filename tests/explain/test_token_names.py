"""Names of tokens: what is shown, joined, is the text, in all scripts and by all kinds of tokenizers."""

import copy
import re

import checkpoints
import numpy as np
import pytest
import scripts
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxflow import load_model
from jaxflow._printable import BLANKS
from jaxflow.explain import TokenName, join_names, name_tokens, plain_names
from jaxflow.explain._token_names import find_token

# Letters that names use as signs cannot be told from these signs.
LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="(\\␣↵⇥␍∅")
WORDS = sorted({word for text in scripts.TEXTS.values() for word in text.split()})
FROM_WORDS = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from([" ", "", "  "])), min_size=1, max_size=6).map(
    lambda pairs: "".join(word + blank for word, blank in pairs)
)


def named(tokenizer, text, **options):
    return name_tokens(tokenizer, tokenizer([text])["input_ids"][0], text=text, **options)


def read(tokens):
    """Read names as a reader does who knows the signs."""
    text = ""
    for name, kind in tokens:
        assert name.isprintable() or set(name) & set("\u200c\u200d"), name
        assert name
        if kind != "special":
            text += name if kind == "part" or not text else f" {name}"
    text = re.sub(r"(\\(?:x|u|U)[0-9a-f]+|.)\((\d)/\d\)", lambda part: part[1] if part[2] == "1" else "", text)
    for letter, sign in BLANKS.items():
        text = text.replace(sign, letter)
    escapes = r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))"
    return re.sub(escapes, lambda found: chr(int(next(filter(None, found.groups())), 16)), text)


@pytest.mark.parametrize("script", scripts.TEXTS)
@pytest.mark.parametrize("kind", scripts.TOKENIZERS)
def test_names_joined_are_the_text(kind, script):
    text = scripts.TEXTS[script]
    tokens = named(scripts.TOKENIZERS[kind](), text)
    assert read(tokens).removeprefix(" ") == text, "SentencePiece puts a blank before every text"
    assert len(tokens) > 1 or script in ("one word", "Gothic")
    assert "\ufffd" not in join_names(tokens)


@settings(max_examples=150, deadline=None)
@given(st.text(LETTERS, min_size=1, max_size=12))
@example("  two  blanks \n\n and lines\t")
@example("\u3000\xa0\x1b[2J\r")
@example("e\u0301\u200d\u202eabc\U000e0041")
def test_texts_of_all_of_unicode_in_byte_level_tokens(text):
    read_again = read(named(scripts.byte_level(), text))
    assert read_again == text if text[0] != " " else read_again.lstrip(" ") == text.lstrip(" ")


@settings(max_examples=100, deadline=None)
@given(st.text(LETTERS.filter(lambda letter: letter != "▁"), min_size=1, max_size=12))
@example("日本  語\n")
def test_texts_of_all_of_unicode_in_unigrams_and_bytes(text):
    assert read(named(scripts.unigram(), text)).lstrip(" ") == text.lstrip(" ")


@settings(max_examples=60, deadline=None)
@given(st.text(LETTERS, min_size=1, max_size=10))
def test_texts_of_all_of_unicode_in_single_bytes(text):
    assert read(named(scripts.byte_letters(), text)).lstrip(" ") == text.lstrip(" ")


@settings(max_examples=80, deadline=None)
@given(FROM_WORDS)
@pytest.mark.parametrize("kind", ["WordPiece", "characters"])
def test_texts_of_many_scripts_in_pieces_of_words(kind, text):
    tokens = named(scripts.TOKENIZERS[kind](), text)
    if "[UNK]" not in [token.name for token in tokens]:
        assert read(tokens).split() == text.split()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 299), min_size=1, max_size=12))
def test_any_sequence_of_byte_level_tokens_has_names(ids):
    """What a model writes need not be text: its bytes are written in hexadecimal then, and nothing is lost."""
    tokens = name_tokens(scripts.byte_level(), ids)
    assert len(tokens) == len(ids)
    expected = scripts.byte_level().backend_tokenizer.decode(ids, skip_special_tokens=True)
    if "\ufffd" not in expected and not set(expected) & set("(\\␣↵⇥␍∅") and "<s>" not in [name for name, _ in tokens]:
        assert read(tokens).strip(" ") == expected.strip(" ")


def test_a_letter_of_several_tokens_is_named_in_each_as_a_part_of_it():
    tokens = named(scripts.byte_letters(), "a好")
    assert [name for name, _ in tokens] == ["a", "好(1/3)", "好(2/3)", "好(3/3)", "</s>"]
    assert [kind for _, kind in tokens] == ["word", "part", "part", "part", "special"]
    pieces = [name for name, _ in name_tokens(Bytes([b" \xe5\xa5", b"\xbd\xe4", b"\xbd\xa0", b"\xff"]), range(4))]
    assert pieces == ["好(1/2)", "好(2/2)你(1/2)", "你(2/2)", r"\xff"]


class Bytes:
    """A tokenizer of these bytes, as the slow one of GPT-2: with a table from letters to bytes."""

    all_special_ids = ()

    def __init__(self, tokens):
        self.byte_decoder = {chr(0x4E00 + byte): byte for byte in range(256)}
        self.tokens = ["".join(chr(0x4E00 + byte) for byte in token) for token in tokens]

    def convert_ids_to_tokens(self, ids):
        return [self.tokens[i] for i in ids]


def test_blanks_that_are_no_gap_between_words_are_seen():
    tokenizer = scripts.byte_level()
    tokens = named(tokenizer, "a \n  b\t")
    assert read(tokens) == "a \n  b\t"
    assert name_tokens(tokenizer, [tokenizer.get_vocab()["Ġt"]])[0].name == "t", (
        "the blank before a word is no part of its name"
    )


def test_what_looks_like_the_mark_of_another_tokenizer_is_left_alone():
    tokens = named(scripts.word_piece(), "Ġorġ ▁ </w>")
    assert read(tokens).startswith("Ġorġ")
    assert read(named(scripts.byte_level(), "##s ▁x")) == "##s ▁x"
    assert read(named(scripts.unigram(), "Ġa ##b")).lstrip(" ") == "Ġa ##b"


def test_tokens_that_were_added_stand_as_they_are():
    tokenizer = copy.deepcopy(scripts.byte_level())
    tokenizer.add_tokens(["日本", "<|user|>"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    tokens = named(tokenizer, "a日本<|user|>b<|end|>")
    assert [name for name, _ in tokens] == ["a", "日本", "<|user|>", "b", "<|end|>"]
    assert [kind for _, kind in tokens] == ["word", "part", "part", "part", "special"]


def test_ids_without_a_token_have_a_number():
    for tokenizer in (checkpoints.byte_pairs(), load_model("agreement")[1]):
        assert [name for name, _ in name_tokens(tokenizer, [5000, -1])] == ["#5000", "#-1"]


def test_tokens_apart_are_no_text():
    tokenizer = scripts.byte_letters()
    ids = tokenizer("好")["input_ids"][:3]
    assert [name for name, _ in name_tokens(tokenizer, ids)] == ["好(1/3)", "好(2/3)", "好(3/3)"]
    assert len({name for name, _ in name_tokens(tokenizer, ids, are_apart=True)}) == 3


def test_the_text_tells_which_words_touch():
    _, tokenizer = load_model("agreement")
    ids = np.asarray(tokenizer("the keys' cabinet")["input_ids"][0])
    assert join_names(name_tokens(tokenizer, ids, text="the keys' cabinet")[1:]) == "the keys' cabinet"
    assert join_names(name_tokens(tokenizer, ids)[1:]) == "the keys ' cabinet"
    assert join_names(name_tokens(tokenizer, ids, text="the cabinet")[1:]) == "the keys ' cabinet", "another text"


def test_names_that_are_given_stay_so():
    assert plain_names(["Ġorġ", "##s", "▁a", "[SEP]", "\x1b[2J"]) == [
        TokenName("Ġorġ", "word"),
        TokenName("##s", "word"),
        TokenName("▁a", "word"),
        TokenName("[SEP]", "special"),
        TokenName(r"\x1b[2J", "word"),
    ]


def test_a_token_is_found_by_its_name_its_spelling_and_where_it_begins_a_word():
    tokenizer = copy.deepcopy(scripts.byte_level())
    vocabulary = tokenizer.get_vocab()
    assert find_token(tokenizer, "t") == vocabulary["Ġt"] != vocabulary["t"]
    assert find_token(tokenizer, "Ġt") == vocabulary["Ġt"]
    inside = next(
        token for token in sorted(vocabulary) if token.isalpha() and token.isascii() and f"Ġ{token}" not in vocabulary
    )
    assert find_token(tokenizer, inside) == vocabulary[inside]
    assert find_token(tokenizer, "no such token") is None
    tokenizer.add_tokens(["no such token"])
    assert find_token(tokenizer, "no such token") == len(tokenizer) - 1, "a vocabulary may grow"
    names = [name for name, _ in name_tokens(tokenizer, range(len(vocabulary)), are_apart=True)]
    for name in names:
        found = find_token(tokenizer, name)
        assert vocabulary.get(name) == found or names[found] == name
