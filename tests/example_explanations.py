"""Explanations of attention that no model had, of every architecture, for views."""

import jax
import numpy as np

from jaxflow import Attention, AttentionFlow, Explanation
from jaxflow.attribute import Evidence, as_method, method_options
from jaxflow.capture import reduce_heads
from jaxflow.explain import Prediction, known_picture, plain_names
from jaxflow.explain._picture import picture_of

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "&amp;", "日本", "שלום", "' onmouseover='x")
SOURCE = ("Das", "alte", "Haus", "</s>")
TARGET = ("<pad>", "The", "old", "house", "stands")


def attention(rng, n_layers, n_queries, n_keys, *, causal=False):
    logits = 2 * rng.normal(size=(n_layers, 1, n_queries, n_keys))
    if causal:
        logits = np.where(np.tri(n_queries, dtype=bool), logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


class Attended:
    """Runs of a model that has this attention, for methods that need no more."""

    n_targets = 1

    def __init__(self, attention):
        self._attention = attention

    def attention(self, heads):
        return self._attention if heads is None else reduce_heads(self._attention, heads)


def explained(
    source=(),
    target=(),
    *,
    n_layers=3,
    positions=None,
    predictions=(),
    model="Model",
    feedback=None,
    method="flow",
    graphs=None,
):
    """Explain random attention over the words that an encoder reads, a decoder, or both."""
    rng, n, m = np.random.default_rng(0), len(source), len(target)
    stacks = {"encoder": attention(rng, n_layers, n, n)} if n else {}
    if m:
        stacks["decoder"] = attention(rng, n_layers, m, m, causal=True)
    if n and m:
        stacks["cross"] = attention(rng, n_layers, m, n)
    how = (
        AttentionFlow(feedback="prefix" if feedback is None else "unrolled") if method == "flow" else as_method(method)
    )
    tokens = {"encoder": tuple(source), "decoder": tuple(target)}
    evidence = Evidence(
        Attended(Attention(**stacks)),
        tokens=tokens,
        positions=range(m or n) if positions is None else np.atleast_1d(positions).tolist(),
        n_prompt=feedback,
    )
    attribution = jax.device_get(how.attribute(evidence))
    names = {side: plain_names(words) for side, words in tokens.items()}
    picture = picture_of(how, evidence, attribution, names=names, words=None)
    if graphs is not None:  # all of them, or none, whatever they cost
        rows = range(len(attribution.positions)) if graphs else ()
        picture = known_picture([picture.flow_graph(row) for row in rows], picture.bottleneck)
    return Explanation(
        encoder_tokens=tuple(source),
        decoder_tokens=tuple(target),
        output_tokens=tuple(target or source),
        attribution=attribution,
        predictions=tuple(predictions),
        model=model,
        method=method,
        conventions={**method_options(how), "target": None, "n_prompt": feedback, "joint": None},
        version="0",
        picture=picture,
    )


def translation(**options):
    predictions = [Prediction(word, 0.5, i) for i, word in enumerate([*TARGET[1:], "</s>"])]
    return explained(SOURCE, TARGET, predictions=predictions, **options)
