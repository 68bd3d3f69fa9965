"""The certified solver against one solve per pair: how long, how exact, how much memory, which stage settled what.

    python benchmarks/performance.py --plot docs/growth.svg
    python benchmarks/performance.py --rows P1 P3 --peer-pairs 50

Prints the tables of docs/performance.md and README.md, with versions and the machine's load; peers that are not installed
(igraph, networkx) are left out. Certified runs solve all pairs of a row, preparation of the network included, and the
compiled code is warm; peers solve a sample of the same pairs, on a graph that is built once and not counted. All are measured
in this one run, in wall time. Every sampled value must equal OR-Tools' to 1e-6 and every value must be proven, or the run ends.

P1: all pairs, all-MiniLM-L6-v2, 242 tokens. P2: all inputs to the last output, causal, 12 layers, 256 tokens, with and without
residual. P3: as P1, 22 tokens. P4: P1's peak memory beyond the network. P6: P2's time as the number of tokens doubles.
"""

import argparse
import ctypes
import dataclasses
import importlib.metadata
import importlib.util
import logging
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import minilm
import numpy as np
from peers import NAMES, OPTIONAL, Pairs, seconds_per_pair

from jaxflow import Capacities, FlowNetwork, flow_network
from jaxflow.solve import _certified as certified
from jaxflow.solve._flows import Flows

PATIENCE = 60.0  # seconds; a peer that would need more for its sample of P6's next length is left out from there on


def synthetic(n_layers: int, n_tokens: int, residual: float, *, n_heads: int = 8, seed: int = 0) -> np.ndarray:
    """Causal attention of random heads, each with a taste for near tokens and for the first: `[layer, query, key]`.

    Tastes are drawn apart from scores, so that every length gets the same heads.
    """
    tastes = np.random.default_rng(seed).uniform(size=(n_layers, n_heads, 2))
    random = np.random.default_rng(seed + 1)
    distance = np.subtract.outer(np.arange(n_tokens), np.arange(n_tokens))
    layers = np.zeros((n_layers, n_tokens, n_tokens), np.float32)
    for layer, heads in zip(layers, tastes, strict=True):
        for near, first in heads:
            query, key = random.standard_normal((2, n_tokens, 32))
            scores = 2 * query @ key.T / np.sqrt(32) - 0.2 * near * np.abs(distance)
            scores[:, 0] += 6 * first
            scores = np.exp(scores - np.where(distance >= 0, scores, -np.inf).max(1, keepdims=True)) * (distance >= 0)
            layer += (1 - residual) / n_heads * scores / scores.sum(1, keepdims=True)
        layer += residual * np.eye(n_tokens, dtype=np.float32)
    return layers


def all_to_last(n_tokens: int, residual: float) -> tuple[FlowNetwork, Pairs]:
    network = flow_network(Capacities(decoder=synthetic(12, n_tokens, residual)))
    assert network.decoder_inputs is not None
    return network, (network.decoder_inputs, np.full(n_tokens, network.outputs[-1]))


def all_to_all(capacity: np.ndarray) -> tuple[FlowNetwork, Pairs]:
    network = flow_network(Capacities(encoder=capacity))
    sources, sinks = np.meshgrid(network.encoder_inputs, network.outputs)
    return network, (sources.ravel(), sinks.ravel())


def solve(network: FlowNetwork, pairs: Pairs, arguments: argparse.Namespace) -> tuple[float, Flows]:
    """Solve all pairs; the best of as many times as asked."""
    certified.solve_pairs(network, pairs[0][:2], pairs[1][:2], n_threads=arguments.threads)
    times = []
    for _ in range(arguments.repeats):
        start = time.perf_counter()
        flows = certified.solve_pairs(network, *pairs, n_threads=arguments.threads)
        times.append(time.perf_counter() - start)
    np.testing.assert_array_equal(flows.lower, flows.upper)
    return min(times), flows


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the tables: `peers` are seconds for the median pair, `share` is settled by each stage."""

    name: str
    n_pairs: int
    seconds: float
    peers: dict[str, float]
    share: list[float]

    @property
    def each(self) -> float:
        return self.seconds / self.n_pairs

    @property
    def settled(self) -> str:
        return " / ".join(f"{100 * part:.3g}" for part in self.share)

    def cells(self, columns: list[str]) -> list[str]:
        """The row of a table of `docs/performance.md`, less the stages."""
        own = [self.name, f"{self.seconds:.3f} s", f"{1e6 * self.each:.1f} µs"]
        return own + [_against(self.peers[peer], self.each) if peer in self.peers else "-" for peer in columns]


def _against(seconds: float, each: float) -> str:
    time = f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.2f} ms"
    return f"{time} ({seconds / each:,.0f} x)"


def measure(name: str, network: FlowNetwork, pairs: Pairs, arguments: argparse.Namespace) -> Row:
    """Solve all pairs, and a sample by each peer; say so on the standard error."""
    seconds, flows = solve(network, pairs, arguments)
    n_pairs = len(flows.lower)
    print(f"{name}: {seconds:.3f} s", file=sys.stderr, flush=True)
    sample = np.random.default_rng(0).choice(n_pairs, min(arguments.peer_pairs, n_pairs), replace=False)
    value, peers = flows.lower[sample] * flows.quantum, {}
    for peer in arguments.peers:
        part = sample[:4] if peer == "networkx" else sample
        peers[peer] = seconds_per_pair(peer, network, (pairs[0][part], pairs[1][part]), value)
    share = np.bincount(flows.stage, minlength=4)[:3] / n_pairs
    return Row(name, n_pairs, seconds, peers, share.tolist())


def print_table(heads: list[str], rows: list[list[str]]) -> None:
    """Print Markdown: words to the left, numbers to the right."""
    print(f"\n| {' | '.join(heads)} |\n|---{'|---:' * (len(heads) - 1)}|")
    for cells in rows:
        print(f"| {' | '.join(cells)} |")
    print(flush=True)


def peak_bytes(work: Callable[[], object]) -> int:
    """How far resident memory rises while `work` runs (Linux)."""

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])

    ctypes.CDLL(None).malloc_trim(0)  # else what was freed before hides what is taken
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    work()
    return status("VmHWM") - before


def memory(directory: Path, threads: int | None) -> None:
    """Measure in a process of its own, whose allocator has nothing left over from other rows."""
    logging.disable(logging.WARNING)
    small = all_to_all(np.full((2, 3, 3), 1 / 3, np.float32))
    network, pairs = all_to_all(minilm.capacities(directory, 242))
    certified.SMALL_WORK = certified.BRIEF_WORK = 0.0  # in threads, as the large one
    certified.solve_pairs(small[0], *small[1], n_threads=threads)  # compiled code is no data
    size = np.asarray(network.capacity, np.float32).nbytes
    peak = peak_bytes(lambda: certified.solve_pairs(network, *pairs, n_threads=threads))
    print(f"\nP4: peak memory of {len(pairs[0]):,} pairs beyond the network: {peak / 2**20:.1f} MiB, ", end="")
    print(f"{peak / size:.1f} x the capacities ({size / 2**20:.1f} MiB as float32)")


def grow(residual: float, arguments: argparse.Namespace) -> list[Row]:
    """Measure P6 at each length; a peer that would take too long at the next is left out from there on."""
    short = argparse.Namespace(**{**vars(arguments), "repeats": 1, "peer_pairs": 4})
    rows = []
    for n in arguments.tokens:
        row = measure(f"{n:,}, {residual}", *all_to_last(n, residual), short)
        rows.append(row)
        # Four pairs of twice the length take a peer about 30 times as long as one pair of this one.
        short.peers = [peer for peer in short.peers if 30 * row.peers[peer] < PATIENCE]
    return rows


def plot(file: Path, tokens: list[int], growth: dict[float, list[Row]]) -> None:
    """Draw P6: seconds for all inputs to one output against the number of tokens, on two logarithmic axes."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(growth), figsize=(5 * len(growth), 4.2), sharey=True, layout="constrained")
    for panel, (residual, rows) in zip(panels, growth.items(), strict=True):
        panel.loglog(tokens, [row.seconds for row in rows], marker="o", label="jaxflow")
        for peer in rows[0].peers:
            times = [row.peers.get(peer, np.nan) * row.n_pairs for row in rows]
            panel.loglog(tokens, times, marker="o", label=NAMES[peer])
        panel.set(title=f"residual {residual}", xlabel="tokens", xticks=tokens, xticklabels=tokens)
        panel.minorticks_off()
    panels[0].set_ylabel("seconds, all inputs to one output")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(NAMES) + 1)
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="directory of all-MiniLM-L6-v2")
    parser.add_argument("--rows", nargs="+", default=["P1", "P2", "P3", "P4", "P6"], help="which (default: all)")
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 256, 512, 1024, 2048], help="lengths of P6")
    parser.add_argument("--peer-pairs", type=int, default=20, help="sampled pairs for each peer (default: 20)")
    parser.add_argument("--repeats", type=int, default=3, help="certified runs, of which the best counts (default: 3)")
    parser.add_argument("--threads", type=int, help="of the certified solver (default: one per core)")
    parser.add_argument("--plot", type=Path, help="file to draw P6 in; peers' times are of sampled pairs, times all")
    arguments = parser.parse_args()
    if arguments.plot is not None and ("P6" not in arguments.rows or not importlib.util.find_spec("matplotlib")):
        parser.error(
            "--plot draws row P6 with matplotlib: name P6 among --rows, and pip install 'jaxflow-attention[plots]'"
        )
    arguments.peers = ["ortools", "scipy", *(name for name in OPTIONAL if importlib.util.find_spec(name))]
    columns, peer_names = arguments.peers, [f"{NAMES[peer]}, a pair" for peer in arguments.peers]
    directory = minilm.directory(parser, arguments.model)
    logging.disable(logging.WARNING)

    n_threads = arguments.threads or len(os.sched_getaffinity(0))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "numba", *columns))
    load = f"{os.getloadavg()[0]:.1f}"
    print(
        f"Python {platform.python_version()}, {n_threads} threads on {os.cpu_count()} cores, load {load} before; {versions}"
    )
    rows = []
    for name, n_tokens in (("P3", 22), ("P1", 242)):
        if name in arguments.rows:
            work = f"all {n_tokens**2:,} pairs, all-MiniLM-L6-v2, {n_tokens} tokens"
            rows.append(measure(work, *all_to_all(minilm.capacities(directory, n_tokens)), arguments))
    if "P2" in arguments.rows:
        work = "all inputs to one output, causal, 12 layers, 256 tokens, residual ½"
        rows.append(measure(work, *all_to_last(256, 0.5), arguments))
        rows.append(measure("the same without residual", *all_to_last(256, 0.0), arguments))
    if rows:
        heads = ["work", "all pairs", "a pair", *peer_names, "search / residual / OR-Tools, %"]
        print_table(heads, [[*row.cells(columns), row.settled] for row in rows])
        heads = ["work", "per pair", *(f"against {NAMES[peer]}" for peer in columns), heads[-1]]
        short = [[f"{row.peers[peer] / row.each:,.0f} x" for peer in columns] for row in rows]
        print_table(
            heads, [[row.name, f"{1e6 * row.each:.0f} µs", *x, row.settled] for row, x in zip(rows, short, strict=True)]
        )
    if "P6" in arguments.rows:
        growth = {residual: grow(residual, arguments) for residual in (0.5, 0.0)}
        heads = ["tokens, residual", "all pairs", "a pair", *(NAMES[peer] for peer in columns)]
        print_table(heads, [row.cells(columns) for part in growth.values() for row in part])
        slopes = [
            np.polyfit(np.log(arguments.tokens), np.log([row.seconds for row in part]), 1)[0]
            for part in growth.values()
        ]
        print(
            "Slopes in log-log: "
            + ", ".join(f"{slope:.2f} at residual {r}" for r, slope in zip(growth, slopes, strict=True))
        )
        if arguments.plot is not None:
            plot(arguments.plot, arguments.tokens, growth)
    if "P4" in arguments.rows:
        process = multiprocessing.get_context("spawn").Process(target=memory, args=(directory, arguments.threads))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
