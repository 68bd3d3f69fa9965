"""Scores of every architecture by networkx, on graphs built here with loops, node by named node; nothing of jaxflow."""

import itertools

import networkx as nx
import numpy as np


def graph(encoder, decoder, cross, *, residual, source_mask, target_mask, decoder_layer, feedback, n_prompt):
    """Build one example's graph from its attention `[layer, head, query, key]`; mean over heads.

    Nodes are ("e", level, position), ("d", level, position), and in the middle of a decoder layer ("m", level, position).
    """
    network = nx.DiGraph()
    n_encoder = 0 if encoder is None else len(encoder)

    def self_attention(weights, mask, sender, receiver):
        n_layers, n_heads, n_tokens, _ = weights.shape
        for layer, q, k in itertools.product(range(n_layers), range(n_tokens), range(n_tokens)):
            if mask[q] and mask[k]:
                mean = sum(float(weights[layer, head, q, k]) for head in range(n_heads)) / n_heads
                capacity = (1 - residual) * mean + residual * (q == k)
                if capacity > 0:
                    network.add_edge((sender, layer, k), (receiver, layer + 1, q), capacity=capacity)

    if encoder is not None:
        self_attention(encoder, source_mask, "e", "e")
    if decoder is None:
        return network
    middle = cross is not None and decoder_layer == "sublayers"
    self_attention(decoder, target_mask, "d", "m" if middle else "d")
    n_layers, _, n_target, _ = decoder.shape
    if cross is not None:
        n_heads = cross.shape[1]
        for layer, q in itertools.product(range(n_layers), range(n_target)):
            if not target_mask[q]:
                continue
            if middle:
                network.add_edge(("m", layer + 1, q), ("d", layer + 1, q), capacity=residual)
            for k in range(cross.shape[-1]):
                mean = sum(float(cross[layer, head, q, k]) for head in range(n_heads)) / n_heads
                if source_mask[k] and (1 - residual) * mean > 0:
                    network.add_edge(("e", n_encoder, k), ("d", layer + 1, q), capacity=(1 - residual) * mean)
    if feedback == "unrolled":
        for p in range(n_prompt - 1, n_target - 1):
            network.add_edge(("d", n_layers, p), ("d", 0, p + 1))  # no capacity: unlimited, for networkx
    return network


def scores(encoder=None, decoder=None, cross=None, *, n_prompt=None, feedback="prefix", **options):
    """Return `[output, source]` and `[output, target]`, None for what is not there."""
    network = graph(encoder, decoder, cross, n_prompt=n_prompt, feedback=feedback, **options)
    n_source = cross.shape[-1] if cross is not None else 0 if encoder is None else encoder.shape[-1]
    n_target = 0 if decoder is None else decoder.shape[-1]
    last, n_outputs = (("d", len(decoder)), n_target) if n_target else (("e", len(encoder)), n_source)
    played = n_target if feedback == "prefix" else n_prompt

    def value(player, output):
        if player not in network or output not in network:
            return 0.0
        return nx.maximum_flow_value(network, player, output)

    outputs = [(*last, position) for position in range(n_outputs)]
    source = np.array([[value(("e", 0, k), output) for k in range(n_source)] for output in outputs])
    target = np.zeros((n_outputs, n_target))
    for (row, output), k in itertools.product(enumerate(outputs), range(played if n_target else 0)):
        target[row, k] = value(("d", 0, k), output)
    return source if n_source else None, target if n_target else None
