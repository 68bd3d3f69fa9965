"""A model that checks what it wrote: its verdict in the explanation and in all views."""

import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jaxflow import Generate, explain, load
from jaxflow.explain import Picture
from jaxflow.views._generation_table import generation_table, is_generation
from jaxflow.views._sentences import notes_sentence
from jaxflow.views._terminal import InTerminal
from jaxflow.views._text import to_text
from jaxflow.views.html._page import to_page
from jaxflow.zoo.logic import FormulaTransformer, tokenizer_of
from jaxflow.zoo.ltl import LANGUAGE

RIGHT = "Checked: the trace satisfies the formula."


@pytest.fixture(scope="module")
def model():
    module = FormulaTransformer(
        LANGUAGE.vocabulary,
        n_encoder_layers=1,
        n_decoder_layers=1,
        n_heads=2,
        width=16,
        hidden=16,
        n_source=16,
        n_path=8,
    )
    shapes = (jnp.ones((1, 16), jnp.int32), jnp.ones((1, 32), jnp.int32))
    return module.bind(module.init(jax.random.key(0), *shapes))


@pytest.fixture(scope="module")
def tokenizer(model):
    return tokenizer_of(model.unbind()[0], LANGUAGE)


@pytest.fixture(scope="module")
def explanation(model, tokenizer):
    return explain(model, "U a b", generate=Generate(continuation="a ; b ; { 1 }"), tokenizer=tokenizer)


def test_steps_are_the_tokens_that_were_written(explanation):
    assert explanation.encoder_tokens == ("U", "a", "b")
    assert explanation.decoder_tokens == ("[START]", *["a", ";", "b", ";", "{", "1", "}", "[END]"])
    written = [explanation.prediction_of(row).label for row in range(8)]
    assert written == ["a", ";", "b", ";", "{", "1", "}", "[END]"]


def test_verdict_is_in_every_view(explanation, tmp_path):
    assert explanation.notes == (RIGHT,)
    assert notes_sentence(explanation) == RIGHT
    assert f"\n{RIGHT}\n" in str(explanation)
    console = Console(file=io.StringIO(), width=100)
    console.print(InTerminal(explanation))
    assert f"\n{RIGHT}\n" in console.file.getvalue()
    assert RIGHT in to_page(explanation)
    assert json.loads(explanation.to_json())["content"]["notes"] == [RIGHT]
    explanation.save(tmp_path / "explanation.npz")
    assert load(tmp_path / "explanation.npz").notes == (RIGHT,)


def test_explanations_without_a_checker_say_nothing(explanation):
    assert notes_sentence(dataclasses.replace(explanation, notes=())) is None


@pytest.mark.parametrize(
    ("formula", "continuation", "says"),
    [
        ("U a b", "{ a }", "does not satisfy the formula: not with { a !b }. One that does: b ; { 1 }."),
        ("& a ! a", "{ a }", "Checked: nothing satisfies this formula, so no trace is right."),
        ("X X X X X X X a", "{ a }", RIGHT),
        ("& & & & & a a a a a a", "{ a }", f"{RIGHT} Longer than trained on: the formula has 11 symbols"),
    ],
)
def test_verdicts_of_wrong_and_of_unusual(model, tokenizer, formula, continuation, says):
    explanation = explain(model, formula, "raw", generate=Generate(continuation=continuation), tokenizer=tokenizer)
    assert says in notes_sentence(explanation)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("U a", "ends too early, after character 3"),
        ("a U b", "is complete after character 1"),
        ("U a W b", "has 'W' at character 5, which this model does not know"),
        ("& a d", "propositions a, b, c"),
        ("& " * 8 + "a " * 9, "The text is 17 tokens long; the model reads 16 at most"),
        ("X " * 9 + "a", "nests 9 deep; the model reads 8 at most"),
    ],
)
def test_bad_formulas_are_refused(model, tokenizer, formula, message):
    with pytest.raises(ValueError, match=message):
        explain(model, formula, generate=Generate(), tokenizer=tokenizer)


def test_bad_answers_are_refused(model, tokenizer):
    with pytest.raises(ValueError, match="it does not end with }"):
        explain(model, "U a b", generate=Generate(continuation="a ; b"), tokenizer=tokenizer)


def test_several_steps_are_one_table(explanation):
    text = to_text(explanation, width=100)
    assert "It read   U a b" in text
    assert "It wrote  a ; b ; { 1 } [END]" in text
    assert "█" not in text
    (line,) = (line for line in text.splitlines() if line.startswith("  b "))
    assert f"{explanation.prediction_of(2).probability:.1%}" in line


def test_one_step_has_bars(explanation):
    text = to_text(explanation, rows=[2], width=100)
    assert "output 2 (;): b" in text
    assert "█" in text


@pytest.mark.parametrize("verb", ["decided", "given"])
def test_steps_name_what_scored_most(explanation, verb):
    """By what they did give, where that is known, and else by what they could send."""
    shown = explanation if verb == "given" else dataclasses.replace(explanation, picture=Picture())
    header, *steps = generation_table(shown, rows=range(8))
    assert len(header) == 4
    assert header[2] == f"{verb} by, of what it read"
    scores = (explanation.contributions if verb == "given" else explanation).attribution.encoder[4]
    best = int(np.argmax(np.abs(scores)))
    assert steps[4][2].startswith(f"{explanation.encoder_tokens[best]} ({best}) {scores[best]:.3f}")
    assert steps[0][3].startswith("[START] (0)")
    assert len(steps[0][3].split(", ")) == 1  # nothing else was written yet


def test_outputs_explained_together_are_no_steps(model, tokenizer):
    together = explain(
        model, "U a b", generate=Generate(continuation="b ; { 1 }"), tokenizer=tokenizer, positions=[0, 1], joint=True
    )
    assert not is_generation(together)
    assert "outputs 0 to 1 together" in str(together)


def test_formulas_are_grouped_by_words(model, tokenizer):
    grouped = explain(
        model, "U a b", "raw", generate=Generate(continuation="{ b }"), tokenizer=tokenizer, spans="words"
    )
    assert grouped.encoder_tokens == ("U", "a", "b")
    assert grouped.decoder_tokens == ("[START]", "{", "b", "}", "[END]")
