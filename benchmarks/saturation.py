"""How much of attention flow is saturated, and what then still tells outputs apart; as Markdown.

    python benchmarks/saturation.py

A score is saturated when it equals its trivial bound: what its token sends into the first layer, or what the output takes
from the last. Real attention (all-MiniLM-L6-v2) at several lengths, the same model with random weights, and trained and
random attention of each architecture. `contrast` is the coefficient of variation of one input's scores over outputs other than
itself, the median over inputs: 0 where every output gives an input the same score. Takes two to five minutes.
"""

import argparse
import importlib.metadata
import logging
import os
import platform
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import jax
import minilm
import numpy as np
import transformers

import jaxflow as jf
from jaxflow.zoo import agreement

LENGTHS = (12, 22, 42, 82, 242)
SENTENCES = (
    "the keys to the old cabinet",
    "the keys to the old cabinet near the doors",
    "the old keys to the cabinets near the doors of the house beside the garden",
)
# Shapley values of so many outputs, of up to so many tokens; the other methods explain all.
N_OUTPUTS, MOST_TOKENS = 8, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="directory of all-MiniLM-L6-v2")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="default: 12 22 42 82 242")
    arguments = parser.parse_args()
    directory = minilm.directory(parser, arguments.model)
    logging.disable(logging.WARNING)
    names = ("jax", "transformers", "numba")
    print(f"Python {platform.python_version()}; ", end="")
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in names))

    trained, tokenizer = jf.load_model(directory)
    random = type(trained)(trained.config, seed=0, add_pooling_layer=False)
    ids = np.array(tokenizer(minilm.TEXT, truncation=False)["input_ids"])
    for name, model in (("all-MiniLM-L6-v2", trained), ("all-MiniLM-L6-v2 with random weights", random)):
        heading(name, "tokens")
        for n_tokens in arguments.lengths:
            taken = np.concatenate([ids[: n_tokens - 1], ids[-1:]])[None]
            _, attention = jf.capture(model, input_ids=taken)
            for residual in (0.5, 0.0) if model is trained else (0.5,):
                row(f"{n_tokens}, residual {residual:g}", attention, residual)

    heading("Architectures", "attention")
    module, words = agreement.load()
    fresh = agreement.AgreementEncoder()
    untrained = fresh.bind(fresh.init(jax.random.key(0), **words(SENTENCES[0])))
    for name, model in (("trained", module), ("random", untrained)):
        for sentence in SENTENCES:
            inputs = words(sentence)
            _, attention = jf.capture(model, **inputs)
            row(f"`agreement`, {name}, {inputs['input_ids'].size} tokens", attention, 0.5)
    sizes = {"vocab_size": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    gpt = transformers.GPT2Config(n_embd=64, n_layer=6, n_head=4, n_positions=64, **sizes)
    layers = {f"{stack}_{size}": n for stack in ("encoder", "decoder") for size, n in
              (("layers", 6), ("attention_heads", 4), ("ffn_dim", 128))}  # fmt: skip
    marian = transformers.MarianConfig(
        d_model=64, max_position_embeddings=64, decoder_start_token_id=0, **layers, **sizes
    )
    for n_tokens in (12, 48):
        ids = np.random.default_rng(0).integers(3, 100, (1, n_tokens))
        _, attention = jf.capture(transformers.FlaxGPT2LMHeadModel(gpt, seed=0), input_ids=ids)
        row(f"GPT-2, random, {n_tokens} tokens", attention, 0.5)
        _, attention = jf.capture(transformers.FlaxMarianMTModel(marian, seed=0), input_ids=ids, decoder_input_ids=ids)
        row(f"Marian, random, {n_tokens} + {n_tokens} tokens", attention, 0.5)


def heading(title: str, first: str) -> None:
    print(f"\n### {title}\n")
    print(
        f"| {first} | saturated | at the input | at the output | "
        "contrast: flow | rollout | set-game Shapley |\n|---|---:|---:|---:|---:|---:|---:|"
    )


def row(name: str, attention: jf.Attention, residual: float) -> None:
    capacities = jf.joint_capacities(attention, residual=residual)
    capacities = jax.tree.map(lambda leaf: np.asarray(leaf)[0], jax.device_get(capacities))
    flow = jf.attention_flow(capacities, solver="certified")
    certificate = flow.certificate
    network = jf.flow_network(capacities)
    leaving, entering = np.zeros((2, network.n_nodes))
    np.add.at(leaving, network.senders, network.capacity)
    np.add.at(entering, network.receivers, network.capacity)
    at_input = leaving[network.inputs] < entering[network.outputs][:, None]
    possible = certificate.trivial > 0
    shares = [flow.saturated, flow.saturated & at_input, flow.saturated & ~at_input]
    chosen = np.unique(np.linspace(0, len(flow.positions) - 1, N_OUTPUTS).astype(int))
    contrasts = [
        contrast(certificate.lower, flow.positions, network),
        contrast(jf.attribute.rollout(capacities).scores, flow.positions, network),
    ]
    cells = [f"{share[possible].mean():.1%}" for share in shares] + [f"{number:.3f}" for number in contrasts]
    if len(network.inputs) > MOST_TOKENS:
        cells.append("")
    else:
        shapley = [jf.shapley.sample_set_shapley(network, network.outputs[o], precision=5e-4).values for o in chosen]
        cells.append(f"{contrast(np.stack(shapley), chosen, network):.3f}")
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def contrast(scores: np.ndarray, outputs: np.ndarray, network: jf.FlowNetwork) -> float:
    """Compare the scores that outputs other than itself, which it can reach, give to one input; the median over inputs."""
    n_targets = len(network.outputs)
    own = len(network.inputs) - n_targets + outputs  # the input at the output's own position
    found = []
    for source in range(len(network.inputs)):
        reached = (own != source) & (scores[:, source] > 0)
        if reached.sum() > 1:
            found.append(scores[reached, source].std() / scores[reached, source].mean())
    return float(np.median(found))


if __name__ == "__main__":
    main()
