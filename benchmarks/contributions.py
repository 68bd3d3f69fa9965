"""What contributions cost, and what becomes of networks of them where large parts cancel.

    python benchmarks/contributions.py
    python benchmarks/contributions.py --checkpoint path/to/smollm2

Cost: a compiled call of `capture_contributions` beside one of the plain model and one of `capture`, in turn, in one run.
Networks: on contrasts of two tokens that the model finds about equally likely, so that the target is near 0 and its parts are
not, how much of the support of the tokens arrives (the largest maximum flow over the largest contribution), for several ways to
make capacities of contributions.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
sys.path.insert(0, str(Path(__file__).parent.parent))  # zoo/, which is no part of the package

import jax
import jax.numpy as jnp
import numpy as np

import jaxflow as jf
from jaxflow.network import Capacities, Spans
from zoo.agreement.grammar import generate

N_ROUNDS, N_TEXTS, SEED = 15, 24, 23


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="directory of a causal language model, measured too")
    arguments = parser.parse_args()
    print("| model | tokens | plain, ms | with attention | with contributions |\n|---|---:|---:|---:|---:|")
    for name in ("agreement", "agreement-lm"):
        model, tokenizer = jf.load_model(name)
        costs(name, model, np.asarray(tokenizer(["the keys to the old cabinet near the doors"])["input_ids"]))
    if arguments.checkpoint is not None:
        model, tokenizer = jf.load_model(arguments.checkpoint)
        costs(arguments.checkpoint.name, model, np.asarray(tokenizer(["The capital of Italy is"])["input_ids"]))
    networks()


def costs(name: str, model, ids: np.ndarray) -> None:
    """Print the medians of compiled calls, taken in turn."""
    adapted = jf.as_model(model)
    last = None if name == "agreement" else -1
    target = jf.contrast(1, 0, position=last)
    programs = [
        jax.jit(lambda p, ids: adapted.bind(p).call(input_ids=ids)),
        jax.jit(lambda p, ids: jf.capture(adapted.bind(p), input_ids=ids)),
        jax.jit(lambda p, ids: jf.capture_contributions(adapted.bind(p), input_ids=ids, target=target)),
    ]
    taken: list[list[float]] = [[] for _ in programs]
    for program in programs:
        jax.block_until_ready(program(adapted.parameters, ids))
    for _ in range(N_ROUNDS):
        for program, times in zip(programs, taken, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(program(adapted.parameters, ids))
            times.append(time.perf_counter() - start)
    plain, attention, contributions = map(statistics.median, taken)
    print(
        f"| {name} | {ids.shape[1]} | {1e3 * plain:.2f} | {attention / plain:.2f} x | {contributions / plain:.2f} x |"
    )


def networks() -> None:
    """Print how much of the support arrives, for each way to make capacities."""
    model, tokenizer = jf.load_model("agreement-lm")
    found: dict[str, list[float]] = {}
    for example in generate(N_TEXTS, split="held_out", seed=SEED):
        ids = np.asarray(tokenizer([example.text])["input_ids"])
        logits = np.asarray(jf.as_model(model).call(input_ids=ids))[0, -1]
        order = np.argsort(-logits)
        gaps = logits[order[:-1]] - logits[order[1:]]
        place = int(np.argmin(gaps[:20]))  # of the likeliest tokens, two that are about equally likely
        target = jf.contrast(int(order[place]), int(order[place + 1]), position=-1)
        _, _, batch = jf.capture_contributions(model, input_ids=ids, target=target)
        one = jax.tree.map(lambda leaf: np.asarray(leaf)[0], batch)
        largest = float(one.inputs["decoder"].max())
        for name, capacities in ways(one).items():
            read = Spans(outputs=(np.asarray(one.outputs) != 0)[None])
            flow = jf.AttentionFlow(decoder_layer="parallel")(jax.tree.map(np.asarray, capacities), spans=read)
            found.setdefault(name, []).append(float(flow.scores.max()) / largest)
    print("\n| capacities | share of the largest contribution that arrives, median | lower quartile |\n|---|---:|---:|")
    for name, shares in found.items():
        print(f"| {name} | {np.median(shares):.2f} | {np.quantile(shares, 0.25):.2f} |")


def ways(one: jf.Contributions) -> dict[str, Capacities]:
    """Make capacities of one example's contributions in several ways."""
    arcs, stay = jnp.asarray(one.decoder), jnp.asarray(one.decoder_stay)
    diagonal = stay[:, None, :] * jnp.eye(stay.shape[-1])
    sign = jnp.sign(jnp.asarray(one.value))
    return {
        "for and against held apart": jf.joint_capacities(one),
        "max(a, 0) and max(stay, 0)": Capacities(decoder=jnp.maximum(arcs, 0) + jnp.maximum(diagonal, 0)),
        "max(a + stay, 0)": Capacities(decoder=jnp.maximum(arcs + diagonal, 0)),
        "by the target's sign": Capacities(decoder=jnp.maximum(sign * arcs, 0) + jnp.maximum(sign * diagonal, 0)),
        "absolute": Capacities(decoder=jnp.abs(arcs) + jnp.abs(diagonal)),
    }


if __name__ == "__main__":
    main()
