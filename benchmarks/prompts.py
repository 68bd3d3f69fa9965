"""Prompts for causal language models of which it is known which word decides: subject-verb agreement, and facts.

Benchmarks take those that a model gets right: of the others it is not known what decides. Nothing else is chosen by a model,
and nothing of jaxflow was chosen by these prompts.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

import jaxflow as jf
from zoo.agreement.grammar import generate

SEED = 29
# A prompt with a gap, and pairs of what stands there and what is right.
FACTS = {
    "The capital city of {} is called": """Spain Madrid, Germany Berlin, Japan Tokyo, Russia Moscow, China Beijing, Egypt Cairo,
        Greece Athens, Austria Vienna, Poland Warsaw, Portugal Lisbon, Ireland Dublin, Norway Oslo, Sweden Stockholm,
        Finland Helsinki, Denmark Copenhagen, Cuba Havana, Peru Lima, Chile Santiago, Hungary Budapest, Turkey Ankara,
        Iran Tehran, Iraq Baghdad, Kenya Nairobi, Canada Ottawa, Belgium Brussels, Thailand Bangkok, England London""",
    "The official language of {} is": """Brazil Portuguese, Mexico Spanish, Germany German, Spain Spanish, Japan Japanese,
        Russia Russian, Poland Polish, Sweden Swedish, Greece Greek, Turkey Turkish, Hungary Hungarian, Egypt Arabic,
        Austria German, China Mandarin, Argentina Spanish, Thailand Thai, Finland Finnish, Norway Norwegian, Denmark Danish""",
    "The opposite of {} is": """hot cold, up down, big small, black white, day night, left right, good bad, open closed,
        rich poor, old young, wet dry, light dark, fast slow, happy sad, early late, strong weak, high low, long short""",
}


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt, the word in it that decides, and how it goes on.

    Attributes:
        text: the prompt.
        start: the first character of the word.
        stop: the one after its last.
        right: the token that is right.
        wrong: one that another such word would make right.
    """

    text: str
    start: int
    stop: int
    right: int
    wrong: int

    def deciding(self, tokenizer: Any) -> np.ndarray:
        """Say of each token whether it is part of the word that decides: `[token]`."""
        (places,) = np.asarray(tokenizer([self.text], return_offsets_mapping=True)["offset_mapping"])
        return (places[:, 0] < self.stop) & (places[:, 1] > self.start)


def agreement(n_drawn: int, are: int, is_: int, *, capital: bool) -> Iterator[Prompt]:
    """Draw sentences up to the verb, each with a noun of the other number: the subject decides between two verbs."""
    for example in generate(n_drawn, split="held_out", seed=SEED):
        if not example.n_other:
            continue
        text = example.text[0].upper() + example.text[1:] if capital else example.text
        before = len("".join(example.words[: example.subject]))  # spaces are between words, not before every mark
        start = next(i for i in range(len(text)) if len(text[:i].replace(" ", "")) == before and text[i] != " ")
        right, wrong = (are, is_) if example.number else (is_, are)
        yield Prompt(text, start, start + len(example.words[example.subject]), right, wrong)


def answers_of(prompts: Iterable[Prompt]) -> np.ndarray:
    """Return the right tokens of prompts, each once."""
    return np.unique([prompt.right for prompt in prompts])


def facts(tokenizer: Any) -> Iterator[Prompt]:
    """Fill the gaps: what stands there decides. The wrong answer is that to what stands in another gap."""
    filled = [list(_filled(tokenizer, prompt, pairs)) for prompt, pairs in FACTS.items()]
    for kinds in itertools.zip_longest(*filled):  # each kind in turn
        yield from (prompt for prompt in kinds if prompt is not None)


def _filled(tokenizer: Any, prompt: str, pairs: str) -> Iterator[Prompt]:
    known = [pair.split() for pair in pairs.split(",")]
    answers = [int(tokenizer(f" {answer}")["input_ids"][0]) for _, answer in known]
    start = prompt.index("{")
    for i, (word, _) in enumerate(known):
        wrong = next(other for other in answers[i:] + answers if other != answers[i])
        yield Prompt(prompt.format(word), start, start + len(word), answers[i], wrong)


def got_right(
    model: Any, tokenizer: Any, prompts: Iterable[Prompt], *, n_wanted: int, lengths: range, answers: np.ndarray
) -> tuple[list[Prompt], int]:
    """Return the first prompts that a model goes on with as is right, and of how many.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: prompts.
        n_wanted: how many at most.
        lengths: numbers of tokens that count.
        answers: the tokens among which the right one must be the likeliest.
    """
    adapted = jf.as_model(model)

    @jax.jit
    def logits(parameters: Any, ids: jax.Array, last: int) -> jax.Array:
        outputs = adapted.bind(parameters).call(input_ids=ids)
        return getattr(outputs, "logits", outputs)[0, last]

    found: list[Prompt] = []
    n_read = 0
    for prompt in prompts:
        ids = np.asarray(tokenizer([prompt.text])["input_ids"])
        if ids.shape[1] not in lengths or prompt.deciding(tokenizer)[0]:  # the first token is never hidden
            continue
        padded = np.pad(ids, ((0, 0), (0, lengths[-1] - ids.shape[1])))  # later tokens change nothing before
        after = np.asarray(logits(adapted.parameters, padded, ids.shape[1] - 1))
        n_read += 1
        if after[prompt.right] >= after[answers].max():
            found.append(prompt)
        if len(found) == n_wanted:
            break
    return found, n_read
