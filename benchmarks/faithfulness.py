"""Which scores predict what a model does: methods x metrics on every model of the package and MiniLM; as Markdown.

    python benchmarks/faithfulness.py
    python benchmarks/faithfulness.py --models agreement --texts 8
    python benchmarks/faithfulness.py --models --decoder path/to/smollm2   # the checkpoint that benchmarks/smollm2.py writes

Run it from a checkout: zoo/, which is no part of the package, draws the sentences and formulas. It prints the tables of
docs/faithfulness.md: means with 95% bootstrap intervals over texts, by `jaxflow.compare`. For models of subject-verb agreement it
also prints how often the subject outranks a noun of the other number. Below each table: by how much methods differ from
leave-one-out on the same texts, and contributions from what takes few passes.

A decoder from elsewhere reads prompts of which it is known which word decides (`prompts.py`), those that it gets right. Hidden
tokens are replaced by an ellipsis, so that every place stays filled; the first token is always shown. How often the deciding
word has the best score of all that may be hidden is printed, too.
"""

import argparse
import importlib
import importlib.metadata
import logging
import os
import platform
import re
import sys
import time
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
sys.path.insert(0, str(Path(__file__).parent.parent))  # zoo/, which is no part of the package

import jax
import jax.numpy as jnp
import minilm
import numpy as np
import prompts

import jaxflow as jf
from jaxflow.evaluate import METRICS, Bootstrap, Comparison, Decision
from jaxflow.zoo import names, package_of
from zoo.agreement.grammar import Example, generate
from zoo.logic.data import generate as generate_formulas

N_TEXTS, N_PROMPTS, LONGEST, SEED = 128, 20, 15, 11
NAMED = (
    "contributions", "contribution_flow", "flow", "flow_attention_gradient", "rollout", "gradient", "integrated_gradients",
    "leave_one_out", "random",
)  # fmt: skip
METHODS = {name: jf.attribute.METHODS[name] for name in NAMED} | {
    "leave_out_2_best": jf.LeaveOneOut(best=2, by="contributions"),
    "leave_out_2_random": jf.LeaveOneOut(best=2, by="random"),  # as many passes as contributions take
    "token_shapley_4": jf.attribute.TokenShapley(n_permutations=4),  # the fewest orders that it takes
}
AT_FEW_PASSES = tuple(name for name in METHODS if name not in NAMED)
ARROWS = {"more": "↑", "less": "↓", "near 0": "→0"}
HIDDEN = " ..."  # stands in the place of hidden tokens of --decoder: a token that no prompt has and that ends no text
ERASURE = ("comprehensiveness", "sufficiency", "deletion", "activation")
MINILM = "all-MiniLM-L6-v2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = (*names(), MINILM)
    parser.add_argument("--models", nargs="*", choices=every, default=every, metavar="NAME", help="default: all")
    parser.add_argument("--minilm", type=Path, help="directory of all-MiniLM-L6-v2")
    parser.add_argument(
        "--texts", type=int, default=N_TEXTS, help="for each model of the package (default: %(default)s)"
    )
    parser.add_argument(
        "--decoder", type=Path, help="directory of a causal language model of English, compared as well"
    )
    parser.add_argument(
        "--prompts", type=int, default=N_PROMPTS, help="of each kind, for --decoder (default: %(default)s)"
    )
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    print(f"Python {platform.python_version()}; ", end="")
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax", "numpy")))
    for name in arguments.models:
        start = time.process_time()
        if name == MINILM:
            sentence_embeddings(minilm.directory(parser, arguments.minilm))
        elif name.startswith("agreement"):
            agreement(name, arguments.texts)
        else:
            formulas(name, arguments.texts)
        print(f"\n({time.process_time() - start:.0f} s of CPU time)", flush=True)
    if arguments.decoder is not None:
        start = time.process_time()
        decoder(arguments.decoder, arguments.prompts)
        print(f"\n({time.process_time() - start:.0f} s of CPU time)", flush=True)


def agreement(name: str, n_texts: int) -> None:
    """Compare on sentences whose subject is in no training sentence together with any other content word of theirs."""
    model, tokenizer = jf.load_model(name)
    drawn = generate(8 * n_texts, split="held_out", seed=SEED)
    examples = [example for example in drawn if example.n_other and len(example.words) <= LONGEST][:n_texts]
    compared = compared_on(model, tokenizer, [example.text for example in examples])
    show(name, compared)
    outranks = np.array(
        [subject_outranks(example, rows) for example, rows in zip(examples, compared.scores, strict=True)]
    )
    lower, upper = Bootstrap().interval(outranks)
    print("\n| method | the subject outranks a noun of the other number |\n| --- | ---: |")
    for method, mean, low, high in zip(compared.methods, outranks.mean(0), lower, upper, strict=True):
        print(f"| {method} | {mean:.2f} [{low:.2f}, {high:.2f}] |")


def subject_outranks(example: Example, rows: np.ndarray) -> np.ndarray:
    """Find, for each method, the share of attractors of the other number that the subject outranks; ties count half."""
    places = [
        place + 1  # after [CLS] or [BOS]
        for place, number in zip(example.attractors, example.attractor_numbers, strict=True)
        if number != example.number
    ]
    subject, attractors = rows[:, [example.subject + 1]], rows[:, places]
    return ((subject > attractors) + 0.5 * (subject == attractors)).mean(1)


def formulas(name: str, n_texts: int) -> None:
    """Compare on formulas held out from the training; explained is the first token of the answer."""
    language = importlib.import_module(package_of(name)).LANGUAGE
    sizes = [size for size in language.sizes if 4 <= size <= LONGEST]
    examples = generate_formulas(language, n_texts, sizes=sizes, held_out=True, seed=SEED)
    model, tokenizer = jf.load_model(name)
    show(name, compared_on(model, tokenizer, [str(example.formula) for example in examples]))


def sentence_embeddings(directory: Path) -> None:
    """Compare on MiniLM, which has no head: explained is the similarity of the embedding to that of the whole sentence."""

    def pooled(outputs, inputs):
        shown = jnp.asarray(inputs["attention_mask"], jnp.float32)[..., None]
        return (outputs.last_hidden_state * shown).sum(-2) / shown.sum(-2)

    def cosine(embedding, other):
        return embedding @ other / (jnp.linalg.norm(embedding, axis=-1) * jnp.linalg.norm(other))

    decision = Decision(
        positions=range,
        find=lambda embedding, _: embedding[0],
        # The cosine to itself is greatest, so its gradient is 0; the length along the whole sentence's direction has one.
        target=lambda whole: lambda embedding: embedding @ whole / jnp.linalg.norm(whole),
        value=lambda whole: lambda embedding: cosine(embedding, whole),
        read=pooled,
    )
    model, tokenizer = jf.load_model(directory)
    clauses = [clause.strip() for clause in re.split("[.;,:]", minilm.TEXT.replace("\n", " "))]
    texts = [clause for clause in clauses if 7 <= len(tokenizer(clause)["input_ids"]) <= 24]
    show(MINILM, compared_on(model, tokenizer, texts, decision=decision))


def decoder(directory: Path, n_prompts: int) -> None:
    """Compare on a causal language model: which of two verbs agrees, and which fact it writes."""
    model, tokenizer = jf.load_model(directory)
    are, is_, hidden = (int(tokenizer(text)["input_ids"][0]) for text in (" are", " is", HIDDEN))
    sentences = list(prompts.agreement(16 * n_prompts, are, is_, capital=True))
    facts = list(prompts.facts(tokenizer))
    for kind, drawn, lengths in (("verbs", sentences, range(9, 17)), ("facts", facts, range(4, 9))):
        answers = prompts.answers_of(drawn)
        options = {"n_wanted": n_prompts, "lengths": lengths, "answers": answers}
        asked, n_read = prompts.got_right(model, tokenizer, drawn, **options)
        texts = [each.text for each in asked]
        compared = compared_on(model, tokenizer, texts, decision=choice(answers), hide=hidden)
        show(f"{directory.name}, {kind}", compared)
        print(f"\nThe model was right on {len(asked)} of the first {n_read}, of {len(answers)} answers.")
        deciding_first(compared, [each.deciding(tokenizer) for each in asked])


def choice(answers: np.ndarray) -> Decision:
    """Explain which of some tokens comes next: its lead over the second, and its probability among them."""

    def find(outputs, position):
        logits = jf.models.logits_of(outputs, position)[0, answers]
        best, second = jnp.asarray(answers)[jnp.argsort(-logits)[:2]]
        return best, second, position

    def value(decided):
        def among(outputs):
            logits = jf.models.logits_of(outputs, decided[2])
            return jnp.exp(logits[..., decided[0]] - jax.nn.logsumexp(logits[..., answers], axis=-1))

        return among

    return Decision(
        positions=lambda n_tokens: (n_tokens - 1,),
        find=find,
        target=lambda decided: jf.contrast(decided[0], decided[1], position=decided[2]),
        value=value,
    )


def deciding_first(compared: Comparison, deciding: list[np.ndarray]) -> None:
    """Print how often a token of the deciding word scores best of those that may be hidden; ties count in part."""
    first = []
    for rows, known, decides in zip(compared.scores, compared.candidates, deciding, strict=True):
        best = (rows == np.where(known, rows, -np.inf).max(-1, keepdims=True)) & known
        first.append((best & decides).sum(-1) / best.sum(-1))
    mean, (lower, upper) = np.mean(first, axis=0), Bootstrap().interval(np.array(first))
    chance = np.mean(
        [decides.sum() / known.sum() for known, decides in zip(compared.candidates, deciding, strict=True)]
    )
    print("\n| method | the deciding word comes first |\n| --- | ---: |")
    for method, *found in zip(compared.methods, mean, lower, upper, strict=True):
        print("| {} | {:.2f} [{:.2f}, {:.2f}] |".format(method, *found))
    print(f"| chance, by counting | {chance:.2f} |")


def compared_on(model, tokenizer, texts: list[str], **options) -> Comparison:
    return jf.compare(model, texts, tokenizer=tokenizer, methods=METHODS, **options)


def show(name: str, compared: Comparison) -> None:
    n_tokens = [int(known.sum()) for known in compared.candidates]
    print(
        f"\n## {name}\n\n{len(compared.texts)} texts of {min(n_tokens)} to {max(n_tokens)} tokens that can be hidden, such as"
    )
    print(f"`{compared.texts[0]}` → {compared.decisions[0]}.\n\n{compared.to_markdown()}")
    others = [name for name in compared.methods if name not in ("leave_one_out", "random")]
    differences("less leave_one_out", compared, {name: (name, "leave_one_out") for name in others})
    pairs = [(ours, few) for ours in ("contributions", "contribution_flow") for few in AT_FEW_PASSES]
    differences("at few passes", compared, {f"{ours} less {few}": (ours, few) for ours, few in pairs})


def differences(title: str, compared: Comparison, pairs: dict[str, tuple[str, str]]) -> None:
    """Print by how much one method differs from another on the same texts, for each pair."""
    columns = [compared.metrics.index(name) for name in ERASURE]
    print(f"\n| {title} | {' | '.join(f'{name} {ARROWS[METRICS[name]]}' for name in ERASURE)} |")
    print(f"| --- |{' ---: |' * len(ERASURE)}")
    for name, (method, other) in pairs.items():
        ends = compared.difference(method, other)[:, columns].T
        stars = [r" \*" if lower > 0 or upper < 0 else "" for _, lower, upper in ends]
        cells = [f"{m:.2f} [{a:.2f}, {b:.2f}]{star}" for (m, a, b), star in zip(ends, stars, strict=True)]
        print(f"| {name} | {' | '.join(cells).replace('-0.00', '0.00')} |")


if __name__ == "__main__":
    main()
