"""cut_sentence: a minimum cut in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxflow._printable import visible
from jaxflow.solve._cut import CUT_STACKS, MinCut

# Layers with a smaller share of the cut are left out.
WORTH_SAYING = 0.05


def cut_sentence(cut: MinCut, *, encoder_tokens: Sequence[str] = (), decoder_tokens: Sequence[str] = ()) -> str:
    """Say in which layer the bottleneck is, and which position reads most of it or is read most.

    Args:
        cut: what `min_cut` found.
        encoder_tokens: the encoder's tokens; without them positions are named by number alone.
        decoder_tokens: the decoder's tokens, likewise.

    Returns:
        One sentence, and a second where the cut holds all that the source sends or all that the sink takes.

    Example:
        >>> from jaxflow.network import Capacities, flow_network
        >>> from jaxflow.solve import min_cut
        >>> layer = np.array([[0.75, 0.25], [0.5, 0.5]])
        >>> network = flow_network(Capacities(encoder=np.stack([layer, layer])))
        >>> cut = min_cut(network, network.encoder_inputs[1], network.outputs[1])
        >>> print(cut_sentence(cut, encoder_tokens=["the", "keys"]))
        Layer 1 is the bottleneck: all of the cut (0.75), all of it read from position 1 (keys). It is all that the input \
sends: the score says nothing of what happens after.
    """
    if not cut.value:
        return "Nothing flows: no path leads from the inputs to the outputs."

    def place(position: int, *, encoder: bool) -> str:
        tokens = encoder_tokens if encoder else decoder_tokens
        return (
            f"position {position} ({visible(tokens[position])})" if position < len(tokens) else f"position {position}"
        )

    def layer_name(layer: int) -> str:
        if cut.n_encoder in (0, len(cut.share)):
            return f"layer {layer}"
        stack, level = ("encoder", layer) if layer <= cut.n_encoder else ("decoder", layer - cut.n_encoder)
        return f"layer {level} of the {stack}"

    order = np.argsort(-cut.share, kind="stable")
    top = int(order[0]) + 1
    here = cut.layer == top
    stack, query, key, capacity = (values[here] for values in (cut.stack, cut.query, cut.key, cut.capacity))
    # The position that holds most of it: one that reads, by any attention, or one that is read.
    from_encoder = np.isin(stack, [CUT_STACKS.index("encoder"), CUT_STACKS.index("cross")])
    readers = {int(q): capacity[query == q].sum() for q in query}
    read = {
        (int(k), bool(encoder)): capacity[(key == k) & (from_encoder == encoder)].sum()
        for k, encoder in zip(key, from_encoder, strict=True)
    }
    reader, most_read = max(readers, key=readers.__getitem__), max(read, key=read.__getitem__)
    if readers[reader] > read[most_read]:
        held, who = readers[reader], f"by {place(reader, encoder=not stack.any())}"
    else:
        held, who = read[most_read], f"from {place(most_read[0], encoder=most_read[1])}"
    part = held / capacity.sum()
    much = "all of it" if part > 0.995 else "most of it" if part >= 0.5 else f"{part:.0%} of it"
    share = cut.share[top - 1]
    size = f"all of the cut ({cut.value:.2f})" if share > 0.995 else f"{share:.0%} of the cut ({cut.value:.2f})"
    text = f"{layer_name(top)} is the bottleneck: {size}, {much} read {who}"
    others = [
        f"{layer_name(int(layer) + 1)} holds {cut.share[layer]:.0%}"
        for layer in order[1:]
        if cut.share[layer] >= WORTH_SAYING
    ]
    text = "; ".join([text, *others]) + "."
    if cut.is_all_sent:
        text += " It is all that the input sends: the score says nothing of what happens after."
    elif cut.is_all_taken:
        text += " It is all that the output takes: the score says nothing of what happens before."
    return text[0].upper() + text[1:]
