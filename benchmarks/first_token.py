"""What is parked on a decoder's first token, and whether contributions against a reference are rid of it; as Markdown.

    python benchmarks/first_token.py
    python benchmarks/first_token.py --checkpoint path/to/smollm2   # the checkpoint that benchmarks/smollm2.py writes

Prompts whose deciding word is known (`prompts.py`), those that a model gets right. Contributions are to the logit of the right
token, and to the contrast of it and a wrong one; each as they are, less those at the same positions of the same prompt with a
neutral token in the place of every token but the first, and less those of the next prompt of as many tokens that has another
answer. Differences add up, too: to what the target has more than on the baseline.

In the columns: the share of the sizes of all scores that the first token has; how often the deciding word has the greatest
score of all tokens, and of all but the first; and erasure, of the probability of the right token among the two, with the first
token always shown. Intervals are 95%, over prompts.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
sys.path.insert(0, str(Path(__file__).parent.parent))  # zoo/, which is no part of the package

import jax
import jax.numpy as jnp
import numpy as np
import prompts
from prompts import Prompt

import jaxflow as jf
from jaxflow.evaluate import Bootstrap, erase, erasure_curves

N_SENTENCES, N_PROMPTS, N_STEPS, BATCH = 128, 24, 10, 16
COLUMNS = (
    "on the first token",
    "deciding word first of all",
    "first of the others",
    "comprehensiveness ↑",
    "sufficiency ↓",
    "deletion ↓",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="directory of a causal language model of English, measured too")
    parser.add_argument(
        "--prompts", type=int, default=N_PROMPTS, help="of each kind, for --checkpoint (default: %(default)s)"
    )
    arguments = parser.parse_args()
    model, tokenizer = jf.load_model("agreement-lm")
    are, is_ = (tokenizer.vocab[verb] for verb in ("are", "is"))
    drawn = list(prompts.agreement(16 * N_SENTENCES, are, is_, capital=False))
    subject = Subject(model, tokenizer, width=16, neutral=tokenizer.pad_token_id, replaces=False)
    measure("agreement-lm", subject, drawn, range(4, 17), N_SENTENCES)
    if arguments.checkpoint is None:
        return
    name, n_wanted = arguments.checkpoint.name, arguments.prompts
    model, tokenizer = jf.load_model(arguments.checkpoint)
    are, is_, neutral = (int(tokenizer(text)["input_ids"][0]) for text in (" are", " is", " ..."))
    drawn = list(prompts.agreement(16 * n_wanted, are, is_, capital=True))
    subject = Subject(model, tokenizer, width=16, neutral=neutral, replaces=True)
    measure(f"{name}, verbs", subject, drawn, range(9, 17), n_wanted)
    subject = Subject(model, tokenizer, width=8, neutral=neutral, replaces=True)
    measure(f"{name}, facts", subject, list(prompts.facts(tokenizer)), range(4, 9), n_wanted)


class Subject:
    """A model, and what is asked of it: compiled once, for prompts padded to one width."""

    def __init__(self, model: Any, tokenizer: Any, *, width: int, neutral: int, replaces: bool) -> None:
        """Compile nothing yet. Hidden tokens are replaced by the token `neutral`, or masked."""
        self.model, self.tokenizer, self.neutral = model, tokenizer, neutral
        self._adapted, self._width, self._replaces = jf.as_model(model), width, replaces
        self._pulled, self._lead = jax.jit(self._contributions), jax.jit(self._probability)

    def contributions(self, ids: np.ndarray, prompt: Prompt) -> np.ndarray:
        """Return what each token gave to the logit of the right token, and to the contrast: `[target, token]`."""
        n_tokens, parameters = ids.shape[1], self._adapted.parameters
        found = self._pulled(parameters, self._padded(ids), n_tokens - 1, prompt.right, prompt.wrong)
        return np.asarray(found, np.float64)[:, :n_tokens]

    def shown(self, ids: np.ndarray, prompt: Prompt) -> Callable[[np.ndarray], np.ndarray]:
        """Return the probability of the right token, of the two, as a function of which tokens are kept: `[mask, token]`."""
        n_tokens, ends = ids.shape[1], (ids.shape[1] - 1, prompt.right, prompt.wrong)
        known: dict[bytes, float] = {}  # several kinds of scores ask for the same masks

        def value(kept: np.ndarray) -> np.ndarray:
            masks = kept.reshape(-1, n_tokens)
            new = np.array([mask for mask in np.unique(masks, axis=0) if bytes(mask) not in known]).reshape(
                -1, n_tokens
            )
            for start in range(0, len(new), BATCH):
                part = new[start : start + BATCH]
                wide = np.ones((BATCH, self._width), bool)
                wide[: len(part), :n_tokens] = part
                found = self._lead(self._adapted.parameters, self._padded(ids), wide, *ends)
                known.update(zip(map(bytes, part), np.asarray(found, np.float64).tolist(), strict=False))
            return np.array([known[bytes(mask)] for mask in masks]).reshape(kept.shape[:-1])

        return value

    def _padded(self, ids: np.ndarray) -> np.ndarray:
        return np.pad(ids, ((0, 0), (0, self._width - ids.shape[1])))  # later tokens change nothing before

    def _contributions(self, parameters: Any, ids: Any, last: Any, right: Any, wrong: Any) -> jax.Array:
        targets = jf.logit(right, position=last), jf.contrast(right, wrong, position=last)
        bound = self._adapted.bind(parameters)
        found = [jf.capture_contributions(bound, input_ids=ids, target=target)[2] for target in targets]
        return jnp.stack([each.inputs["decoder"][0] for each in found])

    def _probability(self, parameters: Any, ids: Any, kept: Any, last: Any, right: Any, wrong: Any) -> jax.Array:
        many = jnp.broadcast_to(ids, kept.shape)
        inputs = {"input_ids": many, "attention_mask": kept.astype(ids.dtype)}
        if self._replaces:
            inputs = {"input_ids": jnp.where(kept, many, self.neutral), "attention_mask": jnp.ones_like(many)}
        outputs = self._adapted.bind(parameters).call(**inputs)
        return jax.nn.sigmoid(jf.contrast(right, wrong, position=last)(outputs))


def measure(title: str, subject: Subject, drawn: Sequence[Prompt], lengths: range, n_wanted: int) -> None:
    """Print a row for each kind of scores."""
    tokenizer = subject.tokenizer
    options = {"n_wanted": n_wanted, "lengths": lengths, "answers": prompts.answers_of(drawn)}
    asked, n_read = prompts.got_right(subject.model, tokenizer, drawn, **options)
    read = [np.asarray(tokenizer([each.text])["input_ids"]) for each in asked]
    found: dict[str, list[list[float]]] = {}
    for number, (prompt, ids) in enumerate(zip(asked, read, strict=True)):
        others = [*range(number + 1, len(asked)), *range(number)]
        fits = (i for i in others if read[i].shape == ids.shape and asked[i].right != prompt.right)
        if (another := next(fits, None)) is not None:
            for name, row in rows(subject, prompt, ids, read[another]).items():
                found.setdefault(name, []).append(row)
    n_found = len(next(iter(found.values())))
    print(f"\n{title}: {n_found} prompts; the model was right on {len(asked)} of the first {n_read}.\n")
    print(f"| contributions to | {' | '.join(COLUMNS)} |\n| --- |{' ---: |' * len(COLUMNS)}")
    for name, measured in found.items():
        lower, upper = Bootstrap().interval(np.array(measured))
        cells = [f"{m:.2f} [{a:.2f}, {b:.2f}]" for m, a, b in zip(np.mean(measured, 0), lower, upper, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def rows(subject: Subject, prompt: Prompt, ids: np.ndarray, another: np.ndarray) -> dict[str, list[float]]:
    """Return what stands in the columns, for the logit and for the contrast, against each baseline."""
    neutral = np.where(np.arange(ids.shape[1]) > 0, subject.neutral, ids)
    own, of_neutral, of_another = (subject.contributions(each, prompt) for each in (ids, neutral, another))
    decides, value = prompt.deciding(subject.tokenizer), subject.shown(ids, prompt)
    found = {}
    for i, target in enumerate(("the logit", "the contrast")):
        found[target] = numbers(own[i], decides, value)
        found[f"{target}, less those with a neutral token"] = numbers(own[i] - of_neutral[i], decides, value)
        found[f"{target}, less those of another prompt"] = numbers(own[i] - of_another[i], decides, value)
    return found


def numbers(scores: np.ndarray, decides: np.ndarray, value: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    """Return what stands in the columns."""
    candidates = np.arange(len(scores)) > 0
    erased = erase(value, scores, candidates=candidates)
    return [
        abs(scores[0]) / abs(scores).sum(),
        float(decides[scores.argmax()]),
        float(decides[1 + scores[1:].argmax()]),
        erased.aopc_comprehensiveness,
        erased.aopc_sufficiency,
        erasure_curves(value, scores, n_steps=N_STEPS, candidates=candidates).deletion,
    ]


if __name__ == "__main__":
    main()
