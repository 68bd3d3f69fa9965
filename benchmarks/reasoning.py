"""Do scores of `ltl` point at the subformulas that matter? As Markdown, for docs/reasoning.md.

    python benchmarks/reasoning.py
    python benchmarks/reasoning.py --formulas 40

Run it from a checkout: it needs zoo/, which is no part of the package. It takes held-out formulas that the model answers right.
Each symbol of a formula begins a subformula, which is replaced by 1, then by 0. If the generated trace satisfies both formulas,
it satisfies those with any other subformula in that place, since formulas are monotone in each of their subformulas: that one
does not *matter* to the answer. Otherwise it does. A second truth is what the model itself does after that change: whether it
*answers otherwise*.

Take two symbols of one formula, one that matters and one that does not. A method points at what matters as often as the first of
these has the higher score (ties count half): 50 % is chance. Scores of a formula are the mean over the steps at which the model
generated a literal. Takes minutes.
"""

import argparse
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # zoo/, which is no part of the package

import jax.numpy as jnp
import numpy as np

import jaxflow as jf
from jaxflow.zoo.logic import TEMPORAL, Formula
from jaxflow.zoo.ltl import LANGUAGE
from zoo.logic import evaluate
from zoo.logic.data import Example, encode, generate

SIZES = range(6, 11)
SEED = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formulas", type=int, default=300, help="how many are drawn (default: %(default)s)")
    arguments = parser.parse_args()
    names = ("jax", "flax", "ortools")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores; ", end="")
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in names))
    model, tokenizer = jf.load_model("ltl")
    module, variables = model.unbind()

    def answer_all(formulas: list[Formula]) -> list[list[str]]:
        return evaluate.answers(module, formulas, tokenizer, params=variables["params"])

    drawn = generate(LANGUAGE, arguments.formulas, sizes=SIZES, held_out=True, seed=SEED)
    answers = answer_all([example.formula for example in drawn])
    right = evaluate.right(LANGUAGE, drawn, answers)
    examples, symbols = [], []
    for example, answer, is_right in zip(drawn, answers, right, strict=True):
        if is_right and any(symbol.strip("!") in LANGUAGE.propositions for symbol in answer):
            examples.append(Example(example.formula, LANGUAGE.read(answer)))
            symbols.append(answer)
    changed = [[put(example.formula, i, constant) for i in range(len(example.formula.symbols())) for constant in "10"]
               for example in examples]  # fmt: skip
    anew = iter(answer_all([formula for row in changed for formula in row]))
    truths: dict[str, list[np.ndarray]] = {"matters": [], "answered otherwise": []}
    for example, answer, row in zip(examples, symbols, changed, strict=True):
        still = [LANGUAGE.is_right(formula, example.answer) for formula in row]
        same = [next(anew) == answer for _ in row]
        for truth, kept in zip(truths.values(), (still, same), strict=True):
            truth.append(~np.reshape(kept, (-1, 2)).all(1))
    scores = all_scores(model, tokenizer, examples)
    kinds: dict[str, Callable[[str], bool]] = {
        "propositions": lambda symbol: symbol in LANGUAGE.propositions,
        "temporal operators": lambda symbol: symbol in TEMPORAL,
        "all symbols": lambda symbol: True,
    }
    print(
        f"\n{len(drawn)} held-out formulas of {SIZES[0]} to {SIZES[-1]} symbols, {right.sum()} of them answered right, ",
        end="",
    )
    print(f"{len(examples)} of these with a literal.\n")
    n_symbols = sum(map(len, truths["matters"]))
    for name, truth in truths.items():
        print(f"{name}: {sum(row.sum() for row in truth) / n_symbols:.1%} of symbols")
    agree = sum((a == b).sum() for a, b in zip(*truths.values(), strict=True)) / n_symbols
    print(f"both or neither: {agree:.1%} of symbols\n")
    for name, truth in truths.items():
        print(f"Points at what {name if name == 'matters' else 'is ' + name}:\n")
        print(f"| method | {' | '.join(kinds)} |\n|---|{'---:|' * len(kinds)}")
        for method, found in scores.items():
            cells = [cell(list(pairs(examples, truth, found, of_kind))) for of_kind in kinds.values()]
            print(f"| {method} | {' | '.join(cells)} |")
        print()


def put(formula: Formula, place: int, constant: str) -> Formula:
    """Put a constant in place of the subformula that begins at a symbol."""
    if place == 0:
        return Formula(constant)
    parts, start = [], 1
    for part in formula.parts:
        n_symbols = len(part.symbols())
        inside = start <= place < start + n_symbols
        parts.append(put(part, place - start, constant) if inside else part)
        start += n_symbols
    return Formula(formula.symbol, tuple(parts))


def all_scores(model: object, tokenizer: object, examples: list[Example]) -> dict[str, np.ndarray]:
    """Score the symbols of all formulas, `[example, symbol]`, by each method."""
    rows = encode(examples, tokenizer)
    read, generated = rows.input_ids, rows.answers[:, :-1]
    inputs = {
        "input_ids": read, "attention_mask": (read != 0).astype(np.int32),
        "decoder_input_ids": generated, "decoder_attention_mask": (generated != 0).astype(np.int32),
    }  # fmt: skip
    masks = {"encoder_mask": read != 0, "decoder_mask": generated != 0}
    literals = [i for i, token in enumerate(model.labels) if token.strip("!") in tuple(LANGUAGE.propositions)]
    is_literal = np.isin(rows.answers[:, 1:], literals)
    produced = jnp.asarray(rows.answers[:, 1:])

    def target(logits: jnp.ndarray) -> jnp.ndarray:
        likely = jnp.take_along_axis(jnp.log(jnp.maximum(softmax(logits), 1e-30)), produced[..., None], -1)[..., 0]
        return (likely * is_literal).sum(-1)

    def steps(attribution: jf.Attribution) -> np.ndarray:
        found = np.asarray(attribution.encoder, np.float64)
        return (found * is_literal[..., None]).sum(1) / is_literal.sum(1)[:, None]

    def whole(attribution: jf.Attribution) -> np.ndarray:
        return np.asarray(attribution.encoder, np.float64)[:, 0]

    _, attention, gradients = jf.attention_gradients(model, **inputs, target=target)
    weighted = jf.joint_capacities(attention, weighting="attention_gradient", gradients=gradients, **masks)
    flow = jf.attention_flow(attention, **masks)
    greatest = jf.attention_flow(jf.joint_capacities(attention, heads="max", **masks))
    return {
        "attention flow": steps(flow),
        "attention flow, max over heads": steps(greatest),
        "attention flow, attention x gradients": steps(jf.attention_flow(weighted)),
        "attention rollout": steps(jf.attribute.rollout(attention, **masks)),
        "gradient rollout": steps(jf.attribute.rollout(weighted)),
        "raw attention": steps(jf.attribute.raw_attention(attention, **masks)),
        "gradient norm": whole(jf.attribute.gradient_norm(model, **inputs, target=target)),
        "input x gradient": abs(whole(jf.attribute.input_x_gradient(model, **inputs, target=target))),
        "integrated gradients": abs(whole(jf.attribute.integrated_gradients(model, **inputs, target=target, steps=32))),
        "leave one out": whole(jf.attribute.leave_one_out(model, **inputs, target=target)),
        "random": steps(jf.attribute.random_scores(flow, seed=0, **masks)),
    }


def softmax(logits: jnp.ndarray) -> jnp.ndarray:
    exponential = jnp.exp(logits - logits.max(-1, keepdims=True))
    return exponential / exponential.sum(-1, keepdims=True)


def pairs(
    examples: list[Example], truth: list[np.ndarray], scores: np.ndarray, of_kind: Callable[[str], bool]
) -> Iterator[float]:
    """Give, for each formula that has both, the share of pairs whose right one scores higher."""
    for example, is_so, row in zip(examples, truth, scores, strict=True):
        kind = np.array([of_kind(symbol) for symbol in example.formula.symbols()])
        yes, no = row[: len(kind)][kind & is_so], row[: len(kind)][kind & ~is_so]
        if len(yes) and len(no):
            higher = yes[:, None] - no
            yield float(((higher > 0) + 0.5 * (higher == 0)).mean())


def cell(shares: list[float]) -> str:
    return f"{np.mean(shares):.1%} ± {2 * np.std(shares) / np.sqrt(len(shares)):.1%} ({len(shares)})"


if __name__ == "__main__":
    main()
