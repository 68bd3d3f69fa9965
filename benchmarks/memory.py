"""Peak memory of taking a deep model's capacities on a long input, with the heads of all layers and with those of one at a time.

    python benchmarks/memory.py
    python benchmarks/memory.py --layers 12 --tokens 512 --models scan

Each row runs in a process of its own, which compiles what it can first; its peak is how far resident memory rises above what
is there just before the run (Linux). Random models, narrow, since attention is what takes the memory: [layer, head, query, key]
in float32 is printed above the table. "all heads" is capture and then joint_capacities; "one layer's" is capture_capacities,
or layers handed over one by one.
"""

import argparse
import ctypes
import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxflow import Attention, capture, joint_capacities
from jaxflow.network import capture_capacities

MODELS = ("layers", "scan", "bert", "arrays")


class Block(nn.Module):
    """One layer of attention."""

    n_heads: int

    @nn.compact
    def __call__(self, x: jax.Array, _: None = None) -> tuple[jax.Array, None]:
        return x + nn.MultiHeadDotProductAttention(num_heads=self.n_heads)(nn.LayerNorm()(x)), None


class Layers(nn.Module):
    """Layers one after the other."""

    n_layers: int
    n_heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(self.n_layers):
            x, _ = Block(self.n_heads)(x)
        return x


class Scan(nn.Module):
    """Layers as one piece of code that runs for each."""

    n_layers: int
    n_heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        axes = {"params": 0, "intermediates": 0}
        return nn.scan(Block, axes, split_rngs={"params": True}, length=self.n_layers)(self.n_heads)(x, None)[0]


def linen(model: nn.Module, n_tokens: int) -> tuple[dict[str, Callable], tuple]:
    x = jax.random.normal(jax.random.key(0), (1, n_tokens, 4 * model.n_heads))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    runs = {
        "forward": lambda variables, x: model.apply(variables, x),
        "all heads": lambda variables, x: joint_capacities(capture(model, x, variables=variables)[1]),
        "one layer's": lambda variables, x: capture_capacities(model, x, variables=variables)[1],
    }
    return runs, (variables, x)


def bert(n_layers: int, n_heads: int, n_tokens: int) -> tuple[dict[str, Callable], tuple]:
    from transformers import BertConfig, FlaxBertModel

    config = BertConfig(
        vocab_size=100,
        hidden_size=4 * n_heads,
        intermediate_size=4 * n_heads,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        max_position_embeddings=n_tokens,
    )
    model = FlaxBertModel(config, seed=0)
    runs = {
        "forward": lambda params, ids: model(ids, params=params)[0],
        "all heads": lambda params, ids: joint_capacities(capture(model, ids, params=params)[1]),
        "one layer's": lambda params, ids: capture_capacities(model, ids, params=params)[1],
    }
    return runs, (model.params, np.arange(n_tokens)[None] % 100)


def arrays(n_layers: int, n_heads: int, n_tokens: int) -> tuple[dict[str, Callable], tuple]:
    def layer(number: int) -> jax.Array:
        return jax.nn.softmax(jax.random.normal(jax.random.key(number), (n_heads, n_tokens, n_tokens)))

    runs = {
        "all heads": lambda: joint_capacities(Attention(encoder=jnp.stack([layer(i) for i in range(n_layers)]))),
        "one layer's": lambda: joint_capacities(layer(number) for number in range(n_layers)),
    }
    return runs, ()


def peak_of(run: Callable[[], Any]) -> tuple[int, float]:
    """How far resident memory rises while `run` runs, and how long it takes."""

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])

    ctypes.CDLL(None).malloc_trim(0)  # else what was freed before hides what is taken
    Path("/proc/self/clear_refs").write_text("5")
    before, start = status("VmRSS"), time.perf_counter()
    jax.block_until_ready(run())
    return status("VmHWM") - before, time.perf_counter() - start


def measure(model: str, way: str, jitted: bool, n_layers: int, n_heads: int, n_tokens: int) -> None:
    if model in ("layers", "scan"):
        kind = Layers if model == "layers" else Scan
        runs, arguments = linen(kind(n_layers, n_heads), n_tokens)
    else:
        runs, arguments = (bert if model == "bert" else arrays)(n_layers, n_heads, n_tokens)
    run = runs[way]
    if jitted:
        run = jax.jit(run).lower(*arguments).compile()
    else:
        jax.block_until_ready(run(*arguments))  # compiles each operation
    print(json.dumps(peak_of(lambda: run(*arguments))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="which (default: all)")
    parser.add_argument("--measure", nargs=3, metavar=("MODEL", "WAY", "JIT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = arguments.layers, arguments.heads, arguments.tokens
    if arguments.measure:
        model, way, jitted = arguments.measure
        measure(model, way, jitted == "True", *sizes)
        return

    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax"))
    whole = 4 * arguments.layers * arguments.heads * arguments.tokens**2
    print(f"Python {platform.python_version()}, {versions}; {sizes[0]} layers, {sizes[1]} heads, {sizes[2]:,} tokens")
    print(f"attention {whole / 2**20:,.0f} MiB, of one layer {whole / sizes[0] / 2**20:,.0f} MiB, ", end="")
    print(f"capacities {whole / sizes[1] / 2**20:,.0f} MiB\n")
    print("| model | | plain forward | all heads | one layer's | less by |")
    print("|---|---|---:|---:|---:|---:|")
    for model in arguments.models:
        for jitted in (False, True) if model != "arrays" else (False,):
            peaks = {}
            for way in ("forward", "all heads", "one layer's")[model == "arrays" :]:
                options = ["--layers", "--heads", "--tokens"]
                command = [sys.executable, __file__, "--measure", model, way, str(jitted)]
                command += [part for pair in zip(options, map(str, sizes), strict=True) for part in pair]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                peaks[way] = json.loads(done.stdout.splitlines()[-1])
            cells = [f"{size / 2**20:,.0f} MiB, {seconds:.1f} s" for size, seconds in peaks.values()]
            ratio = peaks["all heads"][0] / peaks["one layer's"][0]
            blank = [""] * (3 - len(cells))
            print(
                f"| {model} | {'jit' if jitted else ''} | {' | '.join([*blank, *cells])} | {ratio:.1f} x |", flush=True
            )


if __name__ == "__main__":
    main()
