"""English sentences up to the verb that agrees, with attractors: "the keys to the old cabinet" -> plural.

The task of Linzen et al. (2016) on which Abnar & Zuidema (2020, https://arxiv.org/abs/2005.00928) try
attention flow. A sentence is a subject with 0 to 4 other nouns (attractors):

- prepositional phrases, one in another or one after another: "the keys to the cabinet near the doors";
- a relative clause: "the keys that the guards saw", "the keys that surprised the guards", "the keys that
  vanished";
- a possessor before the subject: "the guards' old key";
- a phrase or an adverb in front: "near the doors, the key", "today the key";
- an open relative clause, whose own verb comes next: in "the keys that the guard" it agrees with "guard".

Nouns are never coordinated, since "the key to the doors and the cabinets" has two readings; adjectives are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from jaxflow.zoo.agreement import lexicon, text_of
from zoo.agreement.split import HELD_OUT

Split = Literal["train", "held_out"]

SINGULAR, PLURAL = 0, 1
MAX_ATTRACTORS = 4


@dataclass(frozen=True)
class Example:
    """A sentence up to the verb that agrees.

    Positions count words from 0. The tokenizer puts [CLS] in front, so word `i` is token `i + 1`.

    Attributes:
        words: The words, punctuation and possessive marks ("'s", "'") on their own.
        lemmas: What each word counts as in the split: a noun by its singular, "" for function words.
        subject: Position of the noun that the coming verb agrees with.
        number: Its number, 0 singular, 1 plural: the label.
        attractors: Positions of all other nouns, ascending.
        attractor_numbers: Their numbers, in the same order.
        outer: Position of the attractor whose relative clause is open, so that its verb comes after the one that
            agrees: "keys" in "the keys that the guard". None where no clause is.
    """

    words: tuple[str, ...]
    lemmas: tuple[str, ...]
    subject: int
    number: int
    attractors: tuple[int, ...]
    attractor_numbers: tuple[int, ...]
    outer: int | None = None

    @property
    def text(self) -> str:
        """The sentence as it is written."""
        return text_of(self.words)

    @property
    def n_other(self) -> int:
        """How many attractors have the other number."""
        return sum(number != self.number for number in self.attractor_numbers)


def generate(n_examples: int, *, split: Split, seed: int, odds: Sequence[float] | None = None) -> list[Example]:
    """Generate sentences, by default as many with 0 attractors as with 1, 2, 3 or 4 (in expectation).

    Every number is drawn on its own with equal odds, so about half of the attractors have the other number.

    Args:
        n_examples: How many.
        split: In "train", no noun shares a sentence with a content word it is kept apart from
            (`zoo.agreement.split.held_out`). In "held_out", the subject is kept apart from *every* other content word of
            its sentence, and there is at least one. So the subject of a held-out sentence shared no training
            sentence with any other content word of it.
        seed: Of the draw; the two splits of one seed are drawn apart.
        odds: Of 0 to 4 attractors; equal ones if None.

    Returns:
        The examples.

    Example:
        >>> generate(2, split="train", seed=0) == generate(2, split="train", seed=0)
        True
    """
    rng = np.random.default_rng([seed, int(split == "held_out")])

    def n_attractors() -> int:
        return int(rng.integers(MAX_ATTRACTORS + 1) if odds is None else rng.choice(MAX_ATTRACTORS + 1, p=odds))

    return [_example(rng, split, n_attractors()) for _ in range(n_examples)]


@dataclass(frozen=True)
class _Word:
    text: str
    lemma: str = ""
    role: Literal["", "subject", "attractor", "outer"] = ""
    number: int = SINGULAR


class _DeadEndError(Exception):
    """No word of a kind is left that the split allows."""


class _Draft:
    """A sentence in the making: what was drawn so far, and so what may still be."""

    def __init__(self, rng: np.random.Generator, split: Split) -> None:
        self.rng = rng
        self.may_relate = True
        self.noun_barred: set[str] = set()
        self.barred: set[str] = set()
        self.subject = lexicon.LEMMAS[int(rng.integers(len(lexicon.LEMMAS)))]
        self.wanted = HELD_OUT[self.subject] if split == "held_out" else None
        self._take(self.subject)

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def upto(self, n: int) -> int:
        """Draw from 1 to n."""
        return 1 + int(self.rng.random() * n)

    def choose(self, words: Sequence[str]) -> str:
        """Draw a content word."""
        if self.wanted is not None:
            left = [word for word in words if word in self.wanted and word not in self.barred]
        else:
            left = [
                word
                for word in words
                if word not in self.barred and not (word in lexicon.NOUN_CLASS and word in self.noun_barred)
            ]
        if not left:
            raise _DeadEndError
        word = left[int(self.rng.random() * len(left))]
        self._take(word)
        return word

    def _take(self, word: str) -> None:
        if word in lexicon.NOUN_CLASS:
            self.barred.add(word)
        if self.wanted is not None:
            return
        if word in lexicon.NOUN_CLASS:
            self.barred |= HELD_OUT[word]
        else:
            self.noun_barred |= _BARS[word]


# The nouns that each other content word is kept apart from.
_BARS = {word: frozenset(noun for noun in lexicon.LEMMAS if word in HELD_OUT[noun]) for word in lexicon.CONTENT_WORDS}


def _example(rng: np.random.Generator, split: Split, n_attractors: int) -> Example:
    # Drawn again whole at a dead end; neither the label nor the number of attractors depends on it.
    while True:
        try:
            words = _sentence(_Draft(rng, split), n_attractors)
        except _DeadEndError:
            continue
        combines = sum(bool(word.lemma) for word in words) > 1
        if len(words) <= lexicon.MAX_WORDS and (combines or split == "train"):
            break
    (subject,) = (i for i, word in enumerate(words) if word.role == "subject")
    attractors = tuple(i for i, word in enumerate(words) if word.role in ("attractor", "outer"))
    return Example(
        words=tuple(word.text for word in words),
        lemmas=tuple(word.lemma for word in words),
        subject=subject,
        number=words[subject].number,
        attractors=attractors,
        attractor_numbers=tuple(words[i].number for i in attractors),
        outer=next((i for i in attractors if words[i].role == "outer"), None),
    )


def _sentence(draft: _Draft, n: int) -> list[_Word]:
    subject = _noun(draft, draft.subject, "subject")
    form = draft.rng.random()
    words: list[_Word] = []
    if n and form < 0.25:
        n_front = draft.upto(n)
        # "near the doors that the guards saw the key" would lead the reader astray.
        draft.may_relate = False
        words += _prepositional_phrase(draft, "", n_front)
        words += [_Word(",")] if draft.chance(0.5) else []
        draft.may_relate = True
        n -= n_front
    elif n and form < 0.55 and lexicon.NOUN_CLASS[draft.subject] == "person":
        n_outer = draft.upto(n)
        draft.may_relate = False
        outer = replace(_attractor(draft), role="outer")
        words += _noun_phrase(draft, outer, n_outer - 1)
        words.append(_relativiser(draft, outer.lemma))
        n -= n_outer
    elif draft.chance(0.1):
        words.append(_content(draft, lexicon.INITIAL_ADVERBS))
    words += _noun_phrase(draft, subject, n)
    if draft.chance(0.2):
        words.append(_content(draft, lexicon.FINAL_ADVERBS))
    return words


def _noun_phrase(draft: _Draft, noun: _Word, n: int) -> list[_Word]:
    """A noun with n attractors around it: determiner or possessor, adjectives, noun, modifiers."""
    words = [_determiner(draft)]
    if n and draft.chance(0.15):
        possessor = _attractor(draft, ("person",))
        words += [possessor, _Word("'" if possessor.text.endswith("s") else "'s")]
        n -= 1
    adjectives = lexicon.PERSON_ADJECTIVES if lexicon.NOUN_CLASS[noun.lemma] == "person" else lexicon.OBJECT_ADJECTIVES
    if draft.chance(0.3):
        first = _content(draft, adjectives)
        words.append(first)
        if draft.chance(0.2):
            others = tuple(word for word in adjectives if word != first.text)
            words += [_Word("and"), _content(draft, others)]
    words.append(noun)
    if not n and draft.may_relate and draft.chance(0.05):
        draft.may_relate = False
        words += [_relativiser(draft, noun.lemma), _content(draft, lexicon.INTRANSITIVE_VERBS)]
    while n:
        n_here = draft.upto(n)
        if draft.may_relate and draft.chance(0.35):
            words += _relative_clause(draft, noun.lemma, n_here)
        else:
            words += _prepositional_phrase(draft, noun.lemma, n_here)
        n -= n_here
    return words


def _prepositional_phrase(draft: _Draft, head: str, n: int) -> list[_Word]:
    """A phrase with n attractors after the noun `head`, or in front of the sentence where that is empty."""
    noun = _attractor(draft)
    usual = lexicon.PREPOSITIONS[lexicon.NOUN_CLASS[noun.lemma]]
    if head:
        # Twice in the list, twice the odds: "to" is what follows "key" most often.
        prepositions = 2 * lexicon.NOUN_PREPOSITIONS.get(head, ()) + usual
    else:
        prepositions = tuple(word for word in usual if word not in lexicon.NEVER_FIRST)
    return [_content(draft, prepositions), *_noun_phrase(draft, noun, n - 1)]


def _relative_clause(draft: _Draft, head: str, n: int) -> list[_Word]:
    draft.may_relate = False  # One a sentence: more of them are grammatical, but no longer read.
    is_person = lexicon.NOUN_CLASS[head] == "person"
    person = _attractor(draft, ("person",))
    relativiser = _relativiser(draft, head)
    if draft.chance(0.5):
        verb = _content(draft, lexicon.PERSON_VERBS if is_person else lexicon.OBJECT_VERBS)
        return [relativiser, *_noun_phrase(draft, person, n - 1), verb]
    verb = _content(draft, lexicon.PERSON_VERBS if is_person else lexicon.FEELING_VERBS)
    return [relativiser, verb, *_noun_phrase(draft, person, n - 1)]


def _noun(draft: _Draft, lemma: str, role: Literal["subject", "attractor"]) -> _Word:
    number = PLURAL if draft.chance(0.5) else SINGULAR
    return _Word(lexicon.FORMS[lemma][number], lemma, role, number)


def _attractor(draft: _Draft, classes: Sequence[lexicon.NounClass] = ("person", "thing", "place", "place")) -> _Word:
    kind = classes[int(draft.rng.random() * len(classes))]
    return _noun(draft, draft.choose(tuple(lexicon.NOUNS[kind])), "attractor")


def _content(draft: _Draft, words: Sequence[str]) -> _Word:
    word = draft.choose(words)
    return _Word(word, word)


def _determiner(draft: _Draft) -> _Word:
    return _Word("the" if draft.chance(0.6) else lexicon.DETERMINERS[draft.upto(7)])


def _relativiser(draft: _Draft, head: str) -> _Word:
    if draft.chance(0.7):
        return _Word("that")
    return _Word("who" if lexicon.NOUN_CLASS[head] == "person" else "which")
