"""Explanations of attention that no model had, of every architecture, for views."""

import jax
import numpy as np

from jaxflow import Attention, Explanation, Prediction, attention_flow, flow_network, joint_capacities, rollout
from jaxflow.explain._bottleneck import find_bottleneck
from jaxflow.network._selection import select

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "&amp;", "日本", "שלום", "' onmouseover='x")
SOURCE = ("▁Das", "▁alte", "▁Haus", "</s>")
TARGET = ("<pad>", "▁The", "▁old", "▁house", "▁stands")


def attention(rng, n_layers, n_queries, n_keys, *, causal=False):
    logits = 2 * rng.normal(size=(n_layers, 1, n_queries, n_keys))
    if causal:
        logits = np.where(np.tri(n_queries, dtype=bool), logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def explained(
    source=(),
    target=(),
    *,
    n_layers=3,
    outputs=None,
    graphs=None,
    predictions=(),
    model="Model",
    feedback=None,
    method="flow",
):
    """Explain random attention over the words that an encoder reads, a decoder, or both."""
    rng, n, m = np.random.default_rng(0), len(source), len(target)
    stacks = {"encoder": attention(rng, n_layers, n, n)} if n else {}
    if m:
        stacks["decoder"] = attention(rng, n_layers, m, m, causal=True)
    if n and m:
        stacks["cross"] = attention(rng, n_layers, m, n)
    capacities = joint_capacities(Attention(**stacks))
    shared = {
        "encoder_tokens": tuple(source),
        "decoder_tokens": tuple(target),
        "output_tokens": tuple(target or source),
        "predictions": tuple(predictions),
        "model": model,
        "method": method,
        "version": "0",
    }
    conventions = {"heads": "mean", "residual": 0.5, "normalise": False, "together": None, "solver": "certified"}
    if method == "rollout":
        attribution = jax.device_get(rollout(capacities, outputs=outputs))
        return Explanation(attribution=attribution, bottleneck=None, conventions=conventions, **shared)
    structure = {} if feedback is None else {"feedback": "unrolled", "n_prompt": feedback}
    flow_graphs, bottleneck = find_bottleneck(
        flow_network(capacities, **structure),
        select(capacities, outputs=outputs, n_prompt=None if feedback is None else np.asarray(feedback)),
        graphs=graphs, solver="certified", progress=False,
    )  # fmt: skip
    return Explanation(
        attribution=attention_flow(capacities, outputs=outputs, **structure),
        bottleneck=bottleneck,
        conventions=conventions,
        flow_graphs=flow_graphs,
        **shared,
    )


def translation(**options):
    predictions = [Prediction(word, 0.5, i) for i, word in enumerate([*TARGET[1:], "</s>"])]
    return explained(SOURCE, TARGET, predictions=predictions, **options)
