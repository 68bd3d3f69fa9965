import dataclasses
import io
import re

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from jaxflow import Attribution, Explanation, explain, load_model
from jaxflow.explain import Prediction
from jaxflow.views._terminal import InTerminal, has_colours

HOSTILE = (
    "[bold]x[/]",
    "\x1b[31mred",
    "a\nb",
    "日本語",
    "שלום",
    "e\u0301",
    "👩\u200d👩\u200d👧",
    "a name that is very long",
)


@pytest.fixture(scope="module")
def explanation():
    model, tokenizer = load_model("agreement")
    return explain(model, "the keys to the old cabinet", "flow", tokenizer=tokenizer)


def terminal(width=80, **options):
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor", **options)


def drawn(explanation, rows=None, width=80):
    console = terminal(width)
    console.print(InTerminal(explanation, rows))
    return console.file.getvalue()


def plain(text):
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def with_tokens(tokens, *, n_decoder=0, positions=None, scores=None, **fields):
    """An explanation without a model: of an encoder, or of one and a decoder that writes."""
    n = len(tokens)
    positions = np.arange(n) if positions is None else np.array(positions)
    scores = np.random.default_rng(0).random((len(positions), n)) if scores is None else np.array(scores)
    split = n - n_decoder
    return Explanation(
        encoder_tokens=tuple(tokens[:split]),
        decoder_tokens=tuple(tokens[split:]),
        output_tokens=tuple(tokens[split:] or tokens),
        attribution=Attribution(
            encoder=scores[:, :split] if split else None,
            decoder=scores[:, split:] if n_decoder else None,
            positions=positions,
            **fields,
        ),
        predictions=tuple(Prediction(f"word{i}", 0.5, i) for i in range(n_decoder)),
        model="Model",
        method="rollout",
        conventions={"heads": "mean", "residual": 0.5, "normalise": False, "joint": None},
        version="0",
    )


def test_one_output_is_a_strip_and_bars_with_its_numbers(explanation):
    lines = plain(drawn(explanation, rows=[2])).splitlines()
    assert lines[:4] == [
        "AgreementEncoder: attention flow, mean over heads, residual 0.5, not normalised",
        f"Predicted: plural, {explanation.predictions[0].probability:.1%}.",
        "",
        "output 2 (keys)",
    ]
    assert lines[4].split() == list(explanation.tokens)
    bars = lines[6 : 6 + 7]
    for line, token, score in zip(bars, explanation.tokens, explanation.scores[2], strict=True):
        assert line.split()[:2] == [token, f"{score:.3f}"]
        assert line.count("█") == round(40 * score / explanation.scores[2].max())
    assert any(line.startswith("Saturated: ") for line in lines)


def test_shades_follow_the_scores(explanation):
    # Styles, and not what is written: rich keeps the codes of a style that it has written once, for whatever terminal.
    console = terminal()
    words = [
        part for part in console.render_lines(InTerminal(explanation, [0]))[4] if part.style and part.style.bgcolor
    ]
    assert [part.text.strip() for part in words] == list(explanation.tokens)
    green = np.array([part.style.bgcolor.triplet.green for part in words])
    order = np.argsort(explanation.scores[0], kind="stable")
    assert (np.diff(green[order]) <= 0).all()
    assert green.min() < green.max()


def test_outputs_of_short_inputs_are_a_matrix(explanation):
    lines = plain(drawn(explanation)).splitlines()
    assert lines[3].split() == list(explanation.tokens)
    rows = [line.split() for line in lines[4:11]]
    assert [row[0] for row in rows] == list(explanation.tokens)
    np.testing.assert_allclose([[float(score) for score in row[1:]] for row in rows], explanation.scores, atol=0.005)


def test_outputs_of_long_inputs_are_strips(explanation):
    text = plain(drawn(explanation, width=30))
    assert [line for line in text.splitlines() if line.startswith("output ")] == [
        f"output {i} ({token})" for i, token in enumerate(explanation.tokens)
    ]


def test_a_generation_goes_step_by_step_and_shows_what_was_there():
    scores = np.hstack([np.full((2, 2), 0.5), [[0.5, 0.25, 0.0], [0.5, 0.25, 0.25]]])
    written = with_tokens(["das", "Haus", "<s>", "the", "house"], n_decoder=3, positions=[1, 2], scores=scores)
    lines = plain(drawn(written)).splitlines()
    first = lines.index("output 1 (the → word1, 50.0%)")
    assert [line.split() for line in lines[first + 1 : first + 3]] == [["das", "Haus"], ["<s>", "the"]]
    second = lines.index("output 2 (house → word2, 50.0%)")
    assert [line.split() for line in lines[second + 1 : second + 3]] == [["das", "Haus"], ["<s>", "the", "house"]]


def test_what_no_path_leads_to_and_what_is_unknown_are_no_numbers():
    scores = [[0.5, np.nan, 1.0, 0.0], [0.5, 0.25, 1.0, 0.75]]
    written = with_tokens(["a", "b", "c", "d"], n_decoder=2, positions=[0, 1], scores=scores)
    written = dataclasses.replace(written, predictions=())
    lines = plain(drawn(written)).splitlines()
    assert [line.split() for line in lines if line.startswith(("c ", "d "))] == [
        ["c", "0.50", "?", "│", "1.00", "/////"],
        ["d", "0.50", "0.25", "│", "1.00", "0.75"],
    ]
    one = plain(drawn(written, rows=[0]))
    assert re.search(r"\n  b +unknown", one)
    assert re.search(r"\n  d +no path\n", one)


def test_sampled_and_negative_scores():
    error = np.full((1, 3), 0.01)
    sampled = with_tokens(["a", "b", "c"], positions=[0], scores=[[0.5, -0.5, 0.0]], standard_error=error)
    text = drawn(sampled)
    assert "0.500 ±0.020" in plain(text)
    assert "-0.500 ±0.020" in plain(text)
    assert "48;2;190;80;10" in text  # of what is below 0
    assert "Sampled: " in plain(text)


@pytest.mark.parametrize("width", [24, 40, 80, 200])
@pytest.mark.parametrize("rows", [None, [0]])
def test_every_line_fits_and_columns_hold(width, rows):
    text = plain(drawn(with_tokens(HOSTILE), rows, width))
    assert max(map(cell_len, text.splitlines())) <= width
    bars = [line for line in text.splitlines() if "█" in line]
    starts = {cell_len(re.split(r"\d\.\d\d\d", line)[0]) for line in bars}
    assert len(starts) == (0 if rows is None else 1)


def test_tokens_neither_style_nor_command():
    text = drawn(with_tokens(HOSTILE), [0])
    assert "[bold]x[/]" in plain(text)
    assert "\\x1b[31mred" in plain(text)
    assert "\x1b[31m" not in text
    assert "a↵b" in text
    assert HOSTILE[6] in text


def test_spans_are_shown_by_their_names():
    model, tokenizer = load_model("agreement")
    spans = explain(model, "the keys' cabinet", tokenizer=tokenizer, positions=0, spans=[(1, 4, "the keys'")])
    assert " the keys' " in plain(drawn(spans))


def test_colours_only_where_they_are_wanted():
    assert has_colours(terminal())
    assert not has_colours(Console(file=io.StringIO()))  # piped
    assert not has_colours(Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"}))
    assert not has_colours(
        Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm", "NO_COLOR": "1"})
    )


def test_rich_shows_it_by_itself(explanation):
    console = terminal()
    console.print(explanation)
    assert console.file.getvalue() == drawn(explanation)


@pytest.mark.parametrize("width", [30, 100])
def test_what_tokens_did_give_stands_beside_what_they_could_send(width):
    model, tokenizer = load_model("agreement")
    twofold = explain(model, "the keys to the old cabinet", tokenizer=tokenizer, positions=0)
    console = terminal(width)
    console.print(InTerminal(twofold))
    text = plain(console.file.getvalue())
    assert "could send" in text
    assert "did give" in text
    for scores in (twofold.scores[0], twofold.contributions.scores[0]):
        assert all(f"{score:.3f}" in text for score in scores)
    assert max(map(len, text.splitlines())) <= width
