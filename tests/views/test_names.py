"""One name everywhere: every view shows the tokens of every script by every kind of tokenizer under the same names."""

import dataclasses
import html
import io
import re

import numpy as np
import pytest
import scripts
from example_explanations import explained
from rich.console import Console

from jaxflow import compare, explain, load, plot
from jaxflow.explain import name_tokens
from jaxflow.views.html import methods_page, to_page


def shown_in(view, explanation, tmp_path):
    """Return all that a view shows, as one text."""
    if view == "page":
        return html.unescape(re.sub(r"<[^>]*>", "\n", to_page(explanation).partition("<script")[0]))
    if view == "methods":
        return html.unescape(re.sub(r"<[^>]*>", "\n", methods_page({"a": explanation, "b": explanation})))
    if view == "terminal":
        console = Console(file=io.StringIO(), force_terminal=True, width=4000, color_system="truecolor")
        console.print(explanation)
        return re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue())
    if view == "figure":
        ax = plot.plot_matrix(explanation)
        return "\n".join(label.get_text() for label in ax.xaxis.get_ticklabels())
    if view == "saved":
        explanation.save(tmp_path / "x.json")
        loaded = load(tmp_path / "x.json")
        assert loaded.token_kinds == explanation.token_kinds
        return "\n".join(loaded.tokens)
    return str(explanation)


@pytest.mark.parametrize("view", ["text", "page", "methods", "terminal", "figure", "saved"])
@pytest.mark.parametrize("kind", scripts.TOKENIZERS)
def test_every_view_shows_the_same_names(kind, view, tmp_path):
    tokenizer = scripts.TOKENIZERS[kind]()
    for script in ("Chinese", "Thai", "Maltese", "Arabic", "emoji", "one word", "signs"):
        text = scripts.TEXTS[script]
        tokens = name_tokens(tokenizer, tokenizer([text])["input_ids"][0], text=text)[:24]
        names = [name for name, _ in tokens]
        explanation = explained(names, positions=[0], graphs=False, n_layers=1)
        explanation = dataclasses.replace(explanation, token_kinds=tuple(kind for _, kind in tokens))
        shown = shown_in(view, explanation, tmp_path)
        missing = [name for name in names if name not in shown]
        assert not missing
        if view == "text":
            assert f"minimum cuts to output 0 ({names[0]})" in shown


@pytest.fixture(scope="module")
def writer():
    """A tiny decoder that reads byte-level tokens."""
    import transformers

    config = transformers.GPT2Config(
        vocab_size=scripts.N_WORDS, n_embd=16, n_layer=2, n_head=2, n_positions=40, bos_token_id=0, eos_token_id=None
    )
    return transformers.FlaxGPT2LMHeadModel(config, seed=3)


@pytest.mark.usefixtures("standard_promotion")
def test_a_text_without_blanks_is_explained_under_its_own_letters(writer):
    tokenizer = scripts.byte_level()
    explanation = explain(writer, "你好世界", tokenizer=tokenizer, positions=0)
    assert re.sub(r"(.)\((\d)/\d\)", lambda part: part[1] * (part[2] == "1"), "".join(explanation.tokens)) == "你好世界"
    assert not re.search("[äåçèé]", f"{explanation}{explanation._repr_html_()}")
    assert explanation.token_kinds == ("word", *["part"] * (len(explanation.tokens) - 1))
    with_target = explain(writer, "你好", "gradient", tokenizer=tokenizer, positions=0, target="the")
    assert with_target.conventions["target"] == "the"


@pytest.mark.usefixtures("standard_promotion")
def test_a_comparison_names_decisions_as_the_page_does(writer):
    tokenizer = scripts.byte_level()
    texts = ["the keys to the old cabinet", "a key of"]
    found = compare(writer, texts, tokenizer=tokenizer, methods=["raw"], metrics=["deletion"], hide=5)
    for text, decision, tokens in zip(texts, found.decisions, found.tokens, strict=True):
        explanation = explain(writer, text, tokenizer=tokenizer)
        assert decision == explanation.predictions[-1].label
        assert tokens == explanation.tokens
    assert all(not decision.startswith("Ġ") for decision in found.decisions)


@pytest.mark.usefixtures("standard_promotion")
def test_a_target_is_the_token_that_is_shown_under_that_name(writer):
    tokenizer = scripts.byte_level()
    vocabulary = tokenizer.get_vocab()
    spelled = min(
        f"Ġ{token}" for token in vocabulary if token.isascii() and token.isalpha() and f"Ġ{token}" in vocabulary
    )

    def scores(target):
        return explain(writer, "the keys", "gradient", tokenizer=tokenizer, positions=1, target=target).scores

    np.testing.assert_array_equal(scores(spelled[1:]), scores(vocabulary[spelled]))
    np.testing.assert_array_equal(scores(spelled), scores(vocabulary[spelled]))
    assert (scores(vocabulary[spelled[1:]]) != scores(spelled)).any()
    with pytest.raises(ValueError, match=r"target is 'xylophone', which is no token of the tokenizer.*by its number"):
        scores("xylophone")
