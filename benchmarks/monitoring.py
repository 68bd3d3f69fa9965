"""What a FlowMonitor costs, compared with the training step.

    python benchmarks/monitoring.py
    python benchmarks/monitoring.py --rounds 3

Run it from a checkout: zoo/, which is no part of the package, draws the sentences. For each model it measures the seconds of a
training step and of a report within the call (`background=False`: capture, solves, cuts, image). Each is the median of several
runs, taken in turns, so that other load on the machine affects both alike. "call" is how long the training loop waits at a step
with a report in the background, "no report" how long at all others. "N = 100" is the share of the training time that reports at
every hundredth step take if nothing runs in parallel.
"""

import argparse
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # zoo/, which is no part of the package

import flax.linen as nn
import jax
import numpy as np
import optax

import jaxflow as jf
from jaxflow.solve._certified import n_cores
from zoo.agreement.grammar import generate

# A module, its parameters, a batch with its labels, the tracked batch, and the roles of the module's stacks.
Case = tuple[nn.Module, Any, tuple, dict, dict | None]


class Writer:
    def write_scalars(self, step: int, scalars: Any) -> None:
        pass

    def write_images(self, step: int, images: Any) -> None:
        pass


class Decoder(nn.Module):
    """A language model of GPT-2's shape."""

    n_layers: int = 12
    n_heads: int = 12
    width: int = 384
    n_words: int = 1000

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        x = nn.Embed(self.n_words, self.width)(ids)
        x += self.param("positions", nn.initializers.normal(0.02), (1, ids.shape[1], self.width))
        for i in range(self.n_layers):
            x += nn.MultiHeadDotProductAttention(self.n_heads, name=f"decoder_{i}")(
                nn.LayerNorm()(x), mask=nn.make_causal_mask(ids)
            )
            x += nn.Dense(self.width)(nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x))))
        return nn.Dense(self.n_words)(nn.LayerNorm()(x))


def agreement(n_tracked: int) -> Case:
    """Return a module, its parameters, a batch with its labels, the tracked batch, and the roles of the module's stacks."""
    model, tokenizer = jf.load_model("agreement")
    module, variables = model.unbind()
    examples = generate(128, split="train", seed=0)
    ids = np.asarray(tokenizer([example.text for example in examples])["input_ids"])
    labels = np.array([example.number for example in examples])
    tracked = {"input_ids": ids[:n_tracked], "attention_mask": ids[:n_tracked] != 0}
    return module, variables["params"], (ids, labels), tracked, None


def language_model(n_tracked: int, n_tokens: int) -> Case:
    module = Decoder()
    ids = np.random.default_rng(0).integers(0, module.n_words, (8, n_tokens + 1))
    params = module.init(jax.random.key(0), ids[:1, :-1])["params"]
    batch = (ids[:, :-1], ids[:, 1:])
    return module, params, batch, {"ids": batch[0][:n_tracked]}, {"decoder": "decoder"}


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def measure(case: Case, positions: Any, rounds: int) -> dict[str, float]:
    module, params, (ids, labels), tracked, roles = case
    optimiser = optax.adam(1e-3)

    @jax.jit
    def step_of(params: Any, state: Any, ids: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        def loss(params: Any) -> jax.Array:
            logits = module.apply({"params": params}, ids)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, state = optimiser.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    state = optimiser.init(params)
    model = jf.as_model(module, roles=roles)
    options = {"state": params, "writer": Writer(), "positions": positions}
    inline = jf.FlowMonitor(model, tracked, every_steps=1, background=False, **options)
    beside = jf.FlowMonitor(model, tracked, every_steps=2, **options)
    inline(0, params), beside(0, params), beside.flush()
    jax.block_until_ready(step_of(params, state, ids, labels))
    times: dict[str, list[float]] = {"step": [], "report": [], "call": [], "no report": []}
    for _ in range(rounds):
        times["step"].append(seconds(lambda: step_of(params, state, ids, labels)))
        times["report"].append(seconds(lambda: inline(0, params)))
        times["call"].append(seconds(lambda: beside(2, params)))
        beside.flush()
        times["no report"].append(seconds(lambda: beside(1, params)))
    beside.close()
    assert inline.failure is None, inline.failure
    return {name: float(np.median(measured)) for name, measured in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="times that each is measured (default: 9)")
    arguments = parser.parse_args()
    cases = [
        ("`agreement`, 4 layers, batch of 128; tracked batch of 8 sentences, one output", agreement(8), 0),
        ("the same, all outputs", agreement(8), None),
        (
            "12 layers, 384 wide, batch of 8 x 64 tokens; tracked batch of 2, last 8 outputs",
            language_model(2, 64),
            range(56, 64),
        ),
        ("the same, all outputs", language_model(2, 64), None),
    ]
    print(f"Python {platform.python_version()}, {n_cores()} cores; jax {version('jax')}, flax {version('flax')}\n")
    print("| training | step | report | report / step | N = 100 | call / step | no report / step |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, case, positions in cases:
        took = measure(case, positions, arguments.rounds)
        step, report = took["step"], took["report"]
        print(
            f"| {name} | {1e3 * step:.1f} ms | {1e3 * report:.1f} ms | {report / step:.2f} | {report / step:.2f} % | "
            f"{took['call'] / step:.3f} | {took['no report'] / step:.6f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
