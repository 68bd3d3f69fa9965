import dataclasses

import numpy as np
import pytest

from jaxflow import explain, load_model
from jaxflow.views._text import to_text


@pytest.fixture(scope="module")
def explanation():
    model, tokenizer = load_model("agreement")
    return explain(model, "the keys to the old cabinet", "flow", tokenizer=tokenizer)


@pytest.fixture(scope="module")
def twofold():
    model, tokenizer = load_model("agreement")
    return explain(model, "the keys to the old cabinet", tokenizer=tokenizer, positions=0)


def bars(text):
    return [line.count("█") for line in text.splitlines() if line.startswith("  ")]


def test_bars_are_as_long_as_scores_say(explanation):
    scores = explanation.attribution.encoder[2]
    np.testing.assert_array_equal(bars(to_text(explanation, rows=[2], width=100)), np.rint(40 * scores / scores.max()))


@pytest.mark.parametrize("width", [20, 30, 60, 100])
def test_lists_fit_the_width(explanation, twofold, width):
    for one in (explanation, twofold):
        lines = [line for line in to_text(one, width=width).splitlines() if line.startswith("  ")]
        assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [30, 100])
def test_what_tokens_did_give_stands_beside_what_they_could_send(twofold, width):
    text = to_text(twofold, width=width)
    for token, sent, gave in zip(twofold.tokens, twofold.scores[0], twofold.contributions.scores[0], strict=True):
        lines = [line for line in text.splitlines() if line.strip().startswith(f"{token} ")]
        assert any(f"{sent:.3f}" in line for line in lines)
        assert any(f"{gave:.3f}" in line for line in lines)
    assert text.index("could send") < text.index("did give")
    total = twofold.contributions.scores[0].sum()
    parked = twofold.contributions.scores[0, 0]
    assert f"contributions to plural, {total:.3f} together, of which {parked:.3f} is parked on [CLS]" in text


def test_special_and_first_tokens_set_no_scale_of_contributions(twofold):
    scores = np.array([[9.0, 1.0, 2.0, 0.5, -1.0, 0.0, 0.25]])
    given = dataclasses.replace(
        twofold.contributions, attribution=twofold.contributions.attribution.replace(encoder=scores)
    )
    lines = [line for line in to_text(given, width=100).splitlines() if line.startswith("  ")]
    assert [line.count("█") for line in lines] == [40, 20, 40, 10, 0, 0, 5]
    assert [line.endswith("▶") for line in lines] == [True, *[False] * 6]


def test_rows_are_chosen(explanation):
    assert "\noutput 1 (the)\n" in to_text(explanation, rows=[1])
    assert to_text(explanation, rows=[1]).count("\noutput ") == 1
    assert str(explanation).count("\noutput ") == len(explanation.tokens)


def test_words_do_not_reach_the_terminal_as_commands(explanation):
    tokens = ("\x1b[31mred", "a\nb", "日本", "e\u0301", "x", "y", "z")
    text = to_text(dataclasses.replace(explanation, encoder_tokens=tokens), rows=[4])
    assert "\x1b" not in text
    assert r"\x1b[31mred" in text
    assert "a↵b" in text
    lines = [line.partition("█")[0].rstrip() for line in text.splitlines() if line.startswith("  ")]
    columns = [sum(2 if c in "日本" else c != "\u0301" for c in line) for line in lines]
    assert len(set(columns)) == 1


def test_methods_without_a_flow_claim_no_bottleneck(explanation):
    model, tokenizer = load_model("agreement")
    text = str(explain(model, "the keys", "rollout", tokenizer=tokenizer))
    assert "attention rollout" in text
    assert "Saturated" not in text
    assert "Bottleneck" not in text


def test_bars_of_scores_below_0_are_grey(explanation):
    scores = np.array([[0.5, -1.0, 0.25, 0.0, np.nan, 0.125, -0.125]])
    attribution = explanation.attribution.replace(encoder=scores, positions=np.array([0]), certificate=None)
    text = to_text(dataclasses.replace(explanation, attribution=attribution, method="leave_one_out"), width=100)
    lines = [line for line in text.splitlines() if line.startswith("  ")]
    assert [line.count("█") for line in lines] == [20, 0, 10, 0, 0, 5, 0]
    assert [line.count("▒") for line in lines] == [0, 40, 0, 0, 0, 0, 5]
    assert "-1.000 ▒" in lines[1]
    assert "  0.250 █" in lines[2]
