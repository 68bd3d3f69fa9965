import pytest

from jaxflow._printable import printable, visible
from jaxflow.views._tokens import runs_from_the_right


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "∅"), (" ", "␣"), ("\n\n", "↵↵"), (" a ", "␣a␣"), ("a\tb", "a⇥b"), ("\x1b[0m", r"\x1b[0m"), ("\u202eab", r"\u202eab"),
     ("a b", "a b"), ("\x9b2J", r"\x9b2J"), ("\u200f", r"\u200f"), ("\U000e0041", r"\U000e0041"), ("\ud800", r"\ud800"),
     ("\u2028", r"\u2028"), ("   ", "␣␣␣")],
)  # fmt: skip
def test_what_is_not_seen_is_shown(text, expected):
    assert visible(text) == expected
    assert visible(expected) == expected, "what was made visible stays as it is"
    assert printable(expected) == expected


def test_joined_emoji_stay_one():
    assert visible("👩🏽\u200d🚀") == printable("👩🏽\u200d🚀") == "👩🏽\u200d🚀"


def test_scripts_from_the_right():
    assert runs_from_the_right(["[CLS]", "שלום", "עולם"])
    assert not runs_from_the_right(["the", "keys", "של"])
    assert not runs_from_the_right(["日本"])
