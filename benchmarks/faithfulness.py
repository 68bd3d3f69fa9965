"""Which scores predict what a model does: methods x metrics on every model of the package and MiniLM; as Markdown.

    python benchmarks/faithfulness.py
    python benchmarks/faithfulness.py --models agreement --texts 8
    python benchmarks/faithfulness.py --decoder path/to/smollm2   # the checkpoint that benchmarks/smollm2.py writes

Run it from a checkout: zoo/, which is no part of the package, draws the sentences and formulas. It prints the tables of
docs/faithfulness.md: means with 95% bootstrap intervals over texts, by `jaxflow.compare`. For models of subject-verb agreement it
also prints how often the subject outranks a noun of the other number. Below each table: by how much methods differ from
leave-one-out on the same texts.
"""

import argparse
import importlib
import importlib.metadata
import logging
import os
import platform
import sys
import time
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
sys.path.insert(0, str(Path(__file__).parent.parent))  # zoo/, which is no part of the package

import jax.numpy as jnp
import minilm
import numpy as np

import jaxflow as jf
from jaxflow.evaluate import Bootstrap, Comparison, Decision
from jaxflow.zoo import names, package_of
from zoo.agreement.grammar import Example, generate
from zoo.logic.data import generate as generate_formulas

N_TEXTS, N_MINILM, LONGEST, SEED = 128, 10, 15, 11
METHODS = (
    "contributions", "contribution_flow", "flow", "flow_attention_gradient", "rollout", "gradient", "integrated_gradients",
    "leave_one_out", "random",
)  # fmt: skip
MINILM = "all-MiniLM-L6-v2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = (*names(), MINILM)
    parser.add_argument("--models", nargs="+", choices=every, default=every, metavar="NAME", help="default: all")
    parser.add_argument("--minilm", type=Path, help="directory of all-MiniLM-L6-v2")
    parser.add_argument(
        "--texts", type=int, default=N_TEXTS, help="for each model of the package (default: %(default)s)"
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
    sentences = [sentence.strip() for sentence in minilm.TEXT.replace("\n", " ").replace(";", ".").split(".")]
    short = [text for text in sentences if 5 <= len(tokenizer(text)["input_ids"]) <= 24][:N_MINILM]
    show(MINILM, compared_on(model, tokenizer, short, decision=decision))


def compared_on(model, tokenizer, texts: list[str], **options) -> Comparison:
    return jf.compare(model, texts, tokenizer=tokenizer, methods=METHODS, **options)


def show(name: str, compared: Comparison) -> None:
    n_tokens = [int(known.sum()) for known in compared.candidates]
    print(
        f"\n## {name}\n\n{len(compared.texts)} texts of {min(n_tokens)} to {max(n_tokens)} tokens that can be hidden, such as"
    )
    print(f"`{compared.texts[0]}` → {compared.decisions[0]}.\n\n{compared.to_markdown()}")
    print(f"\n```\n{compared.differences('leave_one_out', width=220)}\n```")


if __name__ == "__main__":
    main()
