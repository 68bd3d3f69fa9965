import pytest

from jaxflow.views._tokens import runs_from_the_right, shown_tokens, visible


def test_word_pieces():
    shown = shown_tokens(["[CLS]", "key", "##s", "##", "[SEP]"])
    assert [token.text for token in shown] == ["[CLS]", "key", "s", "##", "[SEP]"]
    assert [token.is_joined for token in shown] == [False, False, True, False, False]
    assert [token.is_special for token in shown] == [True, False, False, False, True]
    assert shown[2].raw == "##s"


def test_bytes():
    shown = shown_tokens(["The", "Ġkey", "s", "Ċ", "Ġ", "æĹ¥", "<|endoftext|>"])
    assert [token.text for token in shown] == ["The", "key", "s", "↵", "␣", "日", "<|endoftext|>"]
    assert [token.is_joined for token in shown] == [False, False, True, False, False, True, False]


def test_a_part_of_a_letter_stays_bytes():
    assert shown_tokens(["Ġa", "æĹ"])[1].text == r"\xe6\x97"
    assert shown_tokens(["Ġa", "日"])[1].text == "日", "no letter that stands for a byte"


def test_sentence_pieces():
    shown = shown_tokens(["▁Das", "▁", "haus", "</s>"])
    assert [token.text for token in shown] == ["Das", "␣", "haus", "</s>"]
    assert [token.is_joined for token in shown] == [False, False, True, False]


def test_words_without_marks_are_words():
    assert [token.is_joined for token in shown_tokens(["old", "house"])] == [False, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "∅"), (" ", "␣"), ("\n\n", "↵↵"), (" a ", "a"), ("a\tb", "a⇥b"), ("\x1b[0m", r"\x1b[0m"), ("\u202eab", r"\u202eab")],
)  # fmt: skip
def test_what_is_not_seen_is_shown(text, expected):
    assert visible(text) == expected


def test_joined_emoji_stay_one():
    assert visible("👩🏽‍🚀") == "👩🏽‍🚀"


def test_scripts_from_the_right():
    assert runs_from_the_right(["[CLS]", "שלום", "עולם"])
    assert not runs_from_the_right(["the", "keys", "של"])
    assert not runs_from_the_right(["日本"])
