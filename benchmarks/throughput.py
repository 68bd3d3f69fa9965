"""What a user waits for: `explain` of one text and of many, beside the jitted forward pass alone; as Markdown.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --checkpoint path/to/smollm2   # a causal language model, too

All is measured in one run, in turn, warm: CPU time of all threads, per text. The forward pass is that of the same texts, padded
to the same lengths, in batches of the same size. OR-Tools solves each pair of an input and the output by itself, on a network
that is built once, as the paper does. Then: which stage takes how long, what a new length costs, whether memory grows over many
texts, and what the command line takes beside a script that loads the same weights and runs the model.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
sys.path.insert(0, str(Path(__file__).parent.parent))  # zoo/, which is no part of the package

import jax
import minilm
import numpy as np

import jaxflow as jf
from jaxflow.attribute import Evidence
from jaxflow.explain._runs import ModelRuns, run_together
from jaxflow.models import padded_length
from zoo.agreement.grammar import generate

N_TEXTS, N_ROUNDS, SEED = 256, 5, 41
LONG = "the old keys to the old cabinet near the old doors beside the old window near the old table"
SCRIPT = """
import jax
from jaxflow.zoo import load
model, tokenizer = load("agreement")
module, variables = model.unbind()
print(jax.jit(module.apply)(variables, **tokenizer("the keys to the old cabinet")))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minilm", type=Path, help="directory of all-MiniLM-L6-v2")
    parser.add_argument("--checkpoint", type=Path, help="directory of a causal language model, measured too")
    parser.add_argument("--memory", type=int, default=10_000, metavar="N", help="texts over which memory is watched")
    arguments = parser.parse_args()
    model, tokenizer = jf.load_model("agreement")
    texts = [example.text for example in generate(N_TEXTS, split="held_out", seed=SEED)]
    new_lengths(model, tokenizer)
    memory(model, tokenizer, arguments.memory)
    table("agreement", model, tokenizer, texts)
    stages(model, tokenizer, texts)
    directory = minilm.directory(parser, arguments.minilm)
    model, tokenizer = jf.load_model(directory)
    words = minilm.TEXT.split()
    texts = [cut_to(tokenizer, words[start:], 22) for start in range(0, 128, 2)]
    table("all-MiniLM-L6-v2, 22 tokens", model, tokenizer, texts)
    if arguments.checkpoint is not None:
        model, tokenizer = jf.load_model(arguments.checkpoint)
        table(arguments.checkpoint.name, model, tokenizer, [cut_to(tokenizer, words[i:], 22) for i in range(0, 32, 2)])
    shell()


def cut_to(tokenizer: Any, words: list[str], n_tokens: int) -> str:
    """Take so many words that there are `n_tokens` tokens, or one less."""
    stop = next(i for i in range(1, len(words)) if len(tokenizer(" ".join(words[: i + 1]))["input_ids"]) > n_tokens)
    return " ".join(words[:stop])


def arrays_of(tokenizer: Any, text: str) -> dict[str, np.ndarray]:
    return {name: np.asarray(values) for name, values in tokenizer([text]).items()}


def table(name: str, model: Any, tokenizer: Any, texts: list[str]) -> None:
    """Print CPU time per text of each way, and its ratio to the forward pass with tokenising."""
    adapted = jf.as_model(model)
    split = adapted.split()
    assert split is not None
    forward = jax.jit(lambda arrays, inputs: adapted.merge(arrays).call(**inputs))
    last = adapted.facts.stacks == ("decoder",)
    options: dict[str, Any] = {"tokenizer": tokenizer, "positions": None if last else 0}

    def passes(size: int) -> Callable[[], Any]:
        def run() -> None:
            lengths: dict[int, list[dict[str, np.ndarray]]] = {}
            for text in texts:
                inputs = adapted.arguments((), arrays_of(tokenizer, text))
                n_tokens = inputs["input_ids"].shape[-1]
                width = padded_length(n_tokens, adapted.facts.n_positions)
                padded = {k: np.pad(v, ((0, 0), (0, width - n_tokens))) for k, v in inputs.items()}
                lengths.setdefault(width, []).append(padded)
            for group in lengths.values():
                for start in range(0, len(group), size):
                    chunk = group[start : start + size]
                    chunk += [chunk[-1]] * (size - len(chunk))
                    inputs = {k: np.concatenate([each[k] for each in chunk]) for k in chunk[0]}
                    jax.block_until_ready(forward(split[1], inputs))

        return run

    def one_by_one(method: Any = None, contributions: bool = False) -> Callable[[], Any]:
        def run() -> None:
            for text in texts:
                explanation = jf.explain(model, text, method, **options)
                if contributions:
                    explanation.contributions  # noqa: B018

        return run

    predicts = bool(jf.explain(model, texts[0], **options).predictions)
    ways: dict[str, Callable[[], Any]] = {
        "forward pass, one text": passes(1),
        "forward pass, 32 texts": passes(32),
        "explain, one text": one_by_one(),
        "explain, list": lambda: jf.explain(model, texts, **options),
        "explain rollout, list": lambda: jf.explain(model, texts, jf.Rollout(), **options),
    }
    if predicts and not last:
        ways["explain with contributions, one text"] = one_by_one(contributions=True)
    ways["OR-Tools, one solve per pair"] = lambda: solved_by_ortools(model, tokenizer, texts, options)
    for way in ways.values():
        way()
    spent: dict[str, list[float]] = {each: [] for each in ways}
    for _ in range(N_ROUNDS):
        for each, way in ways.items():
            start = time.process_time()
            way()
            spent[each].append((time.process_time() - start) / len(texts))
    medians = {each: statistics.median(times) * 1e3 for each, times in spent.items()}
    print(
        f"\n{name}: {len(texts)} texts\n\n| | CPU ms per text | texts per s of CPU | x forward pass |\n|---|---:|---:|---:|"
    )
    for each, ms in medians.items():
        forward_ms = medians["forward pass, 32 texts" if "list" in each or "32" in each else "forward pass, one text"]
        print(f"| {each} | {ms:.2f} | {1000 / ms:,.0f} | {ms / forward_ms:.1f} |", flush=True)


def solved_by_ortools(model: Any, tokenizer: Any, texts: list[str], options: dict[str, Any]) -> None:
    for text in texts:
        jf.explain(model, text, jf.AttentionFlow(solver="ortools"), **options)


def stages(model: Any, tokenizer: Any, texts: list[str]) -> None:
    """Print which stage of `explain` of a list takes how much; each stage is run once before."""
    adapted = jf.as_model(model)
    for _ in range(2):
        spent = _stages(adapted, tokenizer, texts)
    whole = sum(spent.values())
    print(f"\nStages of a list of {len(texts)}, {whole:.2f} ms of CPU per text\n\n| stage | share |\n|---|---:|")
    for stage, ms in spent.items():
        print(f"| {stage} | {100 * ms / whole:.0f}% |")


def _stages(model: Any, tokenizer: Any, texts: list[str]) -> dict[str, float]:
    start = [time.process_time()]

    def lap() -> float:
        start.append(time.process_time())
        return (start[-1] - start[-2]) / len(texts) * 1e3

    inputs = [arrays_of(tokenizer, text) for text in texts]
    spent = {"tokenise": lap()}
    runs = [ModelRuns(model, (), each) for each in inputs]
    run_together(runs, "mean")
    spent["model, compiled, padded, in batches"] = lap()
    n_tokens = [each.attention("mean").encoder.shape[-1] for each in runs]
    evidences = [
        Evidence(each, tokens={"encoder": ("",) * n}, positions=[0]) for each, n in zip(runs, n_tokens, strict=True)
    ]
    jf.AttentionFlow().attribute_each(evidences)
    spent["capacities, networks, flows"] = lap()
    jf.explain(model, texts, tokenizer=tokenizer, positions=0)
    spent["everything else: names, predictions, explanations"] = lap() - sum(spent.values())
    return spent


def new_lengths(model: Any, tokenizer: Any) -> None:
    """Print what lengths that were not met before cost."""
    words = LONG.split()
    jf.explain(model, "the keys", tokenizer=tokenizer, positions=0).contributions  # noqa: B018
    before, start = resident(), time.process_time()
    lengths = range(3, len(words) + 1)
    for n_words in lengths:
        jf.explain(model, " ".join(words[:n_words]), tokenizer=tokenizer, positions=0).contributions  # noqa: B018
    spent, grown = time.process_time() - start, resident() - before
    print(
        f"\n{len(lengths)} new lengths, attention and contributions: {spent / len(lengths):.2f} s of CPU and "
        f"{grown / len(lengths):.1f} MB each"
    )


def memory(model: Any, tokenizer: Any, n_texts: int) -> None:
    """Print how memory grows over many texts, in lists of 100 that are not kept."""
    texts = [example.text for example in generate(1000, split="held_out", seed=SEED + 1)]
    seen = []
    for start in range(0, n_texts, 100):
        chunk = [texts[i % len(texts)] for i in range(start, start + 100)]
        for explanation in jf.explain(model, chunk, tokenizer=tokenizer, positions=0)[:10]:
            explanation.contributions  # noqa: B018
        if start % max(n_texts // 5, 100) == 0:
            seen.append(f"{start + 100:,}: {resident():.0f} MB")
    print(f"\nMemory of the process after so many texts: {'; '.join(seen)}; at the end {resident():.0f} MB", flush=True)


def resident() -> float:
    """Return the memory that the process holds, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def shell() -> None:
    """Print the CPU time of the command line, and of a script that loads and runs the same model."""
    with tempfile.TemporaryDirectory() as home:
        known = {**os.environ, "XDG_CACHE_HOME": home}
        command = [sys.executable, "-m", "jaxflow", "explain", "the keys to the old cabinet"]
        first = spent_by(command, known)
        ways = {
            "jaxflow --version": [*command[:3], "--version"],
            "import jax, flax": [sys.executable, "-c", "import jax, flax.linen"],
            "import jaxflow; jaxflow.explain": [sys.executable, "-c", "import jaxflow; jaxflow.explain"],
            "script: load, jit, run once": [sys.executable, "-c", SCRIPT],
            "jaxflow explain": command,
        }
        spent = {name: statistics.median(spent_by(each, known) for _ in range(N_ROUNDS)) for name, each in ways.items()}
    print("\n| from the shell | s of CPU |\n|---|---:|")
    print(f"| jaxflow explain, with nothing kept by an earlier run | {first:.2f} |")
    for name, seconds in spent.items():
        print(f"| {name} | {seconds:.2f} |")


def spent_by(command: list[str], environment: dict[str, str]) -> float:
    before = os.times()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


if __name__ == "__main__":
    main()
