import re

import jax
import numpy as np
import pytest

from jaxflow import Generate, explain
from jaxflow.cli._main import main
from jaxflow.models import generate
from jaxflow.zoo import load
from jaxflow.zoo._weights import file_of, read_weights
from jaxflow.zoo.agreement_lm import NAME, VOCABULARY, AgreementDecoder, endings
from zoo import command, training
from zoo.agreement_lm import evaluate, grammar, train
from zoo.training import Settings

TEXT = "the keys to the old cabinet"


@pytest.fixture(scope="module")
def trained_lm():
    return load(NAME)


@pytest.fixture(scope="module")
def sentences():
    return grammar.generate(1_000, split="held_out", seed=54_321)


# The grammar


def number_of(word):
    return int(word.endswith("s") or word in {"children", "women", "men"})


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_every_verb_agrees_with_its_noun(split):
    plural = {"are", "were", "seem", "have"}
    for sentence in grammar.generate(500, split=split, seed=3):
        start = sentence.start
        nouns = [start.words[i] for i in (start.subject, start.outer) if i is not None]
        verbs = [word for word in sentence.ending if word in plural | {"is", "was", "seems", "has"}]
        assert [number_of(noun) for noun in nouns] == [verb in plural for verb in verbs]
        assert sentence.ending[-1] == "."
        assert len(sentence.ending) <= endings.MAX_ENDING
        assert grammar.is_ending(start, sentence.ending)
    nested = [s for s in grammar.generate(500, split=split, seed=3) if s.start.outer is not None]
    assert nested
    for sentence in nested:  # "the keys | that | the guard": the clause opens between the nouns
        between = sentence.start.words[sentence.start.outer : sentence.start.subject]
        assert {"that", "who", "which"} & set(between)


def test_wrong_endings_are_told(sentences):
    pairs = {form: pair[1 - i] for pair in endings.VERBS for i, form in enumerate(pair)}
    for sentence in sentences[:200]:
        ending = sentence.ending
        for i, word in enumerate(ending):
            for other in [pairs[word]] if word in pairs else ["keys"]:
                assert not grammar.is_ending(sentence.start, (*ending[:i], other, *ending[i + 1 :])) or word == "not"
        assert not grammar.is_ending(sentence.start, ending[:-1])
        assert not grammar.is_ending(sentence.start, (*ending[:-1], "not", "."))
        assert not grammar.is_ending(sentence.start, (*ending, "."))


def test_what_shares_of_sentences_have_attractors():
    starts = [s.start for s in grammar.generate(4_000, split="train", seed=1, odds=grammar.ODDS)]
    shares = np.bincount([len(start.attractors) for start in starts], minlength=5) / len(starts)
    np.testing.assert_allclose(shares, grammar.ODDS, atol=0.03)


# The trained model


def test_shipped_model_agrees_and_finishes_sentences(trained_lm, sentences):
    module, variables = trained_lm[0].unbind()
    params = variables["params"]
    table = {name: share for name, _, share in train.agreement(module, sentences, params=params)}
    assert table["all"] >= 0.99
    assert table["attractors of the other number"] >= 0.985
    assert table["a noun outside an open clause, its verb"] >= 0.95
    n_verbs, share = evaluate.finished(sentences, evaluate.write(module, sentences, params=params))
    assert n_verbs > len(sentences) / 3
    assert share > 0.9


def test_what_is_written_together_is_written_alone(trained_lm, sentences):
    model, tokenizer = trained_lm
    module, variables = model.unbind()
    written = evaluate.write(module, sentences[:4], params=variables["params"])
    for sentence, ending in zip(sentences[:4], written, strict=True):
        alone, n_given = generate(model, tokenizer([sentence.start.text]), max_new_tokens=endings.MAX_ENDING)
        assert tokenizer.convert_ids_to_tokens(alone[n_given:]) == list(ending)


def test_it_looks_at_nothing_to_come(trained_lm):
    model, tokenizer = trained_lm
    ids = tokenizer(TEXT)["input_ids"]
    other = ids.copy()
    other[0, 5:] = 9
    np.testing.assert_allclose(model(ids)[:, :5], model(other)[:, :5], atol=1e-5)
    assert np.abs(model(ids) - model(other))[:, 5:].max() > 0.1
    padded = np.pad(ids, ((0, 0), (0, 3)))
    np.testing.assert_allclose(model(padded)[:, : ids.shape[1]], model(ids), atol=1e-5)


def test_every_written_word_is_explained(trained_lm):
    model, tokenizer = trained_lm
    explanation = explain(model, TEXT, generate=Generate(), tokenizer=tokenizer)
    assert explanation.decoder_tokens[:7] == ("[BOS]", *TEXT.split())
    written = explanation.decoder_tokens[7:]
    assert written[0] in {"are", "were", "seem", "have"}
    assert written[-1] == "."
    assert [explanation.prediction_of(row).label for row in range(len(written))] == list(written)
    assert (explanation.scores[0, :7] > 0).all()
    assert explanation.bottleneck is not None


def test_from_a_shell(capsys):
    assert main(["explain", "--model", "agreement-lm", TEXT]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^output 6 \(cabinet\): (are|were|seem|have), \d", out, re.MULTILINE)
    assert "output 6 (cabinet): are" in out
    assert main(["explain", "--model", "agreement-lm", "the kees to the cabinet"]) == 1
    assert "does not know: 'kees' (did you mean keys" in capsys.readouterr().err
    assert main(["explain", "--model", "agreement-lm", "the keys are lost."]) == 1
    assert "has the token that ends what AgreementDecoder writes" in capsys.readouterr().err


# Its training

TINY = AgreementDecoder(n_layers=1, n_heads=2, width=16, hidden=16)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(train, "_REPORT", 60)
    monkeypatch.setattr(train, "_WRITTEN", 20)
    monkeypatch.setattr(train, "_PROGRESS", 8)
    monkeypatch.setattr(training, "_BATCHES_SORTED", 1)
    monkeypatch.setattr(training, "_WIDTH", 32)


def test_training_learns(quick, standard_promotion):
    settings = Settings(steps=150, batch_size=16, n_examples=300, learning_rate=1e-2)
    _, losses = train.train(TINY, settings, show_progress=False)
    assert losses[-20:].mean() < 0.5 * losses[:5].mean()


def test_command_writes_weights_and_card(quick, tmp_path, capsys, standard_promotion):
    command.main(train.recipe(TINY), ["--steps=2", "--sentences=200", "--batch-size=8", f"--output={tmp_path}"])
    assert "finished as the grammar would" in capsys.readouterr().out
    ids = jax.ShapeDtypeStruct((1, 9), np.int32)
    path = tmp_path / file_of(NAME)
    assert "head" in read_weights(TINY, path, name=NAME, vocabulary=VOCABULARY, inputs=[ids])
    card = (tmp_path / "README.md").read_text("utf-8")
    assert "    python -m zoo.agreement_lm.train --output=" in card
    assert "| all | 60 |" in card
    assert "Of 20 held-out starts" in card


def test_card_of_the_shipped_model_says_what_was_asked_of_it():
    from importlib import resources

    card = (resources.files("jaxflow.zoo.agreement_lm") / "README.md").read_text("utf-8")
    shares = dict(re.findall(r"^\| ([\w ]+) \| [\d,]+ \| ([\d.]+) %", card, re.MULTILINE))
    assert float(shares["all"]) >= 99
    assert float(shares["attractors of the other number"]) >= 99
