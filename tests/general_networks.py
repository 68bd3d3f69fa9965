"""Random attention of every architecture, and the cases that networks of it are tested in."""

import numpy as np

N_SOURCE, N_TARGET = 4, 5
LEFT, RIGHT = [False, True, True, True, True], [True, True, True, True, False]


def softmax(rng, *shape, causal=False, mask=None):
    scores = 2.5 * rng.normal(size=shape)
    seen = np.tril(np.ones(shape[-2:], bool)) if causal else np.ones(shape[-2:], bool)
    if mask is not None:
        seen = seen & np.asarray(mask)
    scores = np.where(seen, scores, -np.inf)
    scores[..., ~seen.any(-1), :] = 0.0  # fully masked rows come out uniform, and look ahead
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return (scores / scores.sum(-1, keepdims=True)).astype(np.float32)


def example(architecture, seed=0, *, n_layers=2, source_mask=None, target_mask=None):
    """One example's attention, `[layer, head, query, key]`, as a dict."""
    rng = np.random.default_rng(seed)
    stacks = {}
    if architecture in ("encoder", "encoder-decoder"):
        stacks["encoder"] = softmax(rng, n_layers + 1, 2, N_SOURCE, N_SOURCE, mask=source_mask)
    if architecture != "encoder":
        stacks["decoder"] = softmax(rng, n_layers, 2, N_TARGET, N_TARGET, causal=True, mask=target_mask)
    if architecture in ("encoder-decoder", "decoder with cross-attention"):
        stacks["cross"] = softmax(rng, n_layers, 2, N_TARGET, N_SOURCE, mask=source_mask)
    return stacks


ARCHITECTURES = ("encoder", "decoder", "encoder-decoder", "decoder with cross-attention")
CASES = [
    (architecture, decoder_layer, feedback, residual)
    for architecture in ARCHITECTURES
    for decoder_layer in (("sublayers", "parallel") if "cross" in example(architecture) else ("sublayers",))
    for feedback in (("prefix", "unrolled") if architecture != "encoder" else ("prefix",))
    for residual in (0.0, 0.3, 0.5)
    if not ("cross" in example(architecture) and decoder_layer == "sublayers" and residual == 0)
]
