import numpy as np
import pytest

from jaxflow.zoo.agreement import lexicon
from zoo.agreement.grammar import generate
from zoo.agreement.split import HELD_OUT
from zoo.agreement.split import held_out as apart

# The split


def content(example):
    """The content words of a sentence by their singular, found again from its words alone."""
    singular = {form: lemma for lemma, forms in lexicon.FORMS.items() for form in forms}
    words = [singular.get(word, word) for word in example.words]
    return [word for word in words if word not in lexicon.FUNCTION_WORDS], words[example.subject]


def pairs_in(examples):
    found = set()
    for example in examples:
        words, _ = content(example)
        found |= {(a, b) for a in words for b in words}
    return found


def unseen_share(example, pairs):
    words, subject = content(example)
    others = [word for word in words if word != subject]
    return np.mean([(subject, other) not in pairs for other in others]) if others else 0.0


def test_held_out_sentences_combine_their_subject_with_nothing_it_met_in_training(seen, held_out):
    pairs = pairs_in(seen)
    assert all(unseen_share(example, pairs) == 1.0 for example in held_out)


def test_what_is_not_held_out_was_met_in_training(seen):
    # Else "unseen" would only say that the training sentences are few.
    others = generate(500, split="train", seed=1)
    pairs = pairs_in(seen)
    assert np.mean([unseen_share(example, pairs) for example in others]) < 0.01


def test_every_subject_is_trained_in_both_numbers_and_held_out(seen, held_out):
    both = {(lemma, number) for lemma in lexicon.LEMMAS for number in (0, 1)}
    for examples in (seen, held_out):
        assert {(example.lemmas[example.subject], example.number) for example in examples} == both


def test_held_out_rule_is_symmetric_and_leaves_every_noun_a_fifth():
    for noun in lexicon.LEMMAS:
        assert all(apart(other, noun) for other in HELD_OUT[noun] & set(lexicon.LEMMAS))
        assert 0.15 < len(HELD_OUT[noun]) / len(lexicon.CONTENT_WORDS) < 0.25


# The grammar


def number_of(word):
    return int(word.endswith("s") or word in {"children", "women", "men"})


def agreeing_noun(words):
    """Find the noun that the coming verb agrees with, by reading from left to right.

    A noun waits for its verb unless it follows a preposition or a verb, or owns the next noun; a verb serves the noun
    that has waited least, unless it follows its relative pronoun, whose noun goes on waiting.
    """
    nouns = {form for forms in lexicon.FORMS.values() for form in forms}
    prepositions = {w for ws in [*lexicon.PREPOSITIONS.values(), *lexicon.NOUN_PREPOSITIONS.values()] for w in ws}
    verbs = {*lexicon.PERSON_VERBS, *lexicon.OBJECT_VERBS, *lexicon.FEELING_VERBS, *lexicon.INTRANSITIVE_VERBS}
    waiting, is_object = [], False
    for i, word in enumerate(words):
        if word in prepositions:
            is_object = True
        elif word in verbs:
            if words[i - 1] not in ("that", "who", "which"):
                waiting.pop()
            is_object = True
        elif word in nouns and words[i + 1 : i + 2] not in (("'s",), ("'",)):
            if not is_object:
                waiting.append(i)
            is_object = False
    return waiting[-1]


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_recorded_subject_and_numbers_are_right(split):
    examples = generate(3_000, split=split, seed=5)
    for example in examples:
        assert agreeing_noun(example.words) == example.subject, example.text
        assert number_of(example.words[example.subject]) == example.number
        forms = {form for forms in lexicon.FORMS.values() for form in forms}
        nouns = [i for i, word in enumerate(example.words) if word in forms]
        assert sorted([example.subject, *example.attractors]) == nouns
        assert [number_of(example.words[i]) for i in example.attractors] == list(example.attractor_numbers)
        assert len(example.words) <= lexicon.MAX_WORDS
    assert any(example.subject > example.attractors[0] for example in examples if example.attractors)
    assert {len(example.attractors) for example in examples} == {0, 1, 2, 3, 4}


def test_no_word_but_the_subject_tells_the_number(seen):
    numbers = np.asarray([example.number for example in seen])
    for word in [*lexicon.FUNCTION_WORDS, *lexicon.CONTENT_WORDS[len(lexicon.LEMMAS) :]]:
        has = np.asarray([word in example.words for example in seen])
        # Four standard errors of a fair coin.
        assert abs(numbers[has].mean() - 0.5) < 2 / np.sqrt(has.sum()), word


def test_a_seed_gives_its_sentences_again_and_another_gives_others():
    assert generate(50, split="train", seed=3) == generate(50, split="train", seed=3)
    assert generate(50, split="train", seed=3) != generate(50, split="train", seed=4)
