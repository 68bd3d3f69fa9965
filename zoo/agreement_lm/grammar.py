"""Whole English sentences: those of the agreement grammar, and how they end from the verb on.

"the keys to the old cabinet" is finished by a verb that agrees with "keys" and something to say of keys: "are
lost .". Where a relative clause is open, its own verb comes first, and then that of the noun outside: "the keys that
the guard" | "has hidden are lost .".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxflow.zoo.agreement import lexicon
from jaxflow.zoo.agreement_lm import endings
from zoo.agreement.grammar import Example, Split
from zoo.agreement.grammar import generate as generate_starts

# Of the pairs of `endings.VERBS`, and of "not" after a verb.
_VERB_ODDS = (0.6, 0.15, 0.1, 0.15)
_NOT_ODDS = 0.15
# Odds of 0 to 4 attractors in training. Nearly half of the noun phrases of any length end here, so that what comes
# next most often is a verb, and the model ends its sentences instead of adding one phrase to another.
ODDS = (0.4, 0.25, 0.15, 0.1, 0.1)


@dataclass(frozen=True)
class Sentence:
    """A whole sentence.

    Attributes:
        start: Up to the verb that agrees.
        ending: The words from that verb to the full stop.
    """

    start: Example
    ending: tuple[str, ...]


def generate(n_sentences: int, *, split: Split, seed: int, odds: Sequence[float] | None = None) -> list[Sentence]:
    """Generate whole sentences.

    Args:
        n_sentences: How many.
        split: As in `agreement.grammar.generate`. The words of endings are in neither split kept apart from any noun.
        seed: Of the draw.
        odds: Of 0 to 4 attractors; equal ones if None.

    Example:
        >>> (sentence,) = generate(1, split="train", seed=2)
        >>> len(sentence.ending) <= endings.MAX_ENDING, is_ending(sentence.start, sentence.ending)
        (True, True)
    """
    rng = np.random.default_rng([seed, int(split == "held_out"), 1])
    starts = generate_starts(n_sentences, split=split, seed=seed, odds=odds)
    return [Sentence(start, _ending(rng, start)) for start in starts]


def is_ending(start: Example, words: Sequence[str]) -> bool:
    """Tell whether words end a sentence: every verb agrees, and what is said can be said of its noun.

    Example:
        >>> (sentence,) = generate(1, split="train", seed=0)
        >>> is_ending(sentence.start, sentence.ending), is_ending(sentence.start, ("is", "are", "."))
        (True, False)
    """
    left = list(words)

    def takes(verbs: Sequence[str], said: Sequence[str]) -> bool:
        """Take a verb, perhaps "not", and what is said from the words that are left."""
        if len(left) > 1 and left[1] == endings.NOT:
            del left[1]
        if len(left) < 2 or left[0] not in verbs or left[1] not in said:
            return False
        del left[:2]
        return True

    noun = start.subject
    if start.outer is not None:
        noun = start.outer
        if not takes([endings.HAVE[start.number]], endings.DEEDS[_noun(start, noun)[0]]):
            return False
    kind, number = _noun(start, noun)
    said = endings.EVENTS if left[:1] == [endings.HAVE[number]] else endings.STATES
    return takes([pair[number] for pair in endings.VERBS], said[kind]) and left == [endings.END]


def _ending(rng: np.random.Generator, start: Example) -> tuple[str, ...]:
    words: list[str] = []
    noun = start.subject
    if start.outer is not None:
        noun = start.outer
        words += [endings.HAVE[start.number], *_negation(rng), _one_of(rng, endings.DEEDS[_noun(start, noun)[0]])]
    kind, number = _noun(start, noun)
    verb = endings.VERBS[int(rng.choice(len(endings.VERBS), p=_VERB_ODDS))]
    said = endings.EVENTS if verb is endings.HAVE else endings.STATES
    return (*words, verb[number], *_negation(rng), _one_of(rng, said[kind]), endings.END)


def _noun(start: Example, position: int) -> tuple[lexicon.NounClass, int]:
    numbers = dict(zip((start.subject, *start.attractors), (start.number, *start.attractor_numbers), strict=True))
    return lexicon.NOUN_CLASS[start.lemmas[position]], numbers[position]


def _negation(rng: np.random.Generator) -> list[str]:
    return [endings.NOT] if rng.random() < _NOT_ODDS else []


def _one_of(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.random() * len(words))]
