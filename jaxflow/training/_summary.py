"""flow_summary: what a batch's attention flow is like, in a few numbers that can be followed over a training."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from flax import struct
from jaxtyping import ArrayLike, Float

from jaxflow._attention import Attention
from jaxflow.attribute import Attribution, attention_flow, attribution_scores
from jaxflow.network import Capacities, DecoderLayer, as_capacities, batch_of, flow_network, real_tokens
from jaxflow.solve import cut_layers


@struct.dataclass
class FlowSummary:
    """What the attention flow of a batch is like. Every explained output of every example counts alike.

    A *share* is a part of an output's scores, which are divided by their sum; padded outputs are left out.

    Attributes:
        attribution: the scores that all else is made of.
        bottleneck: `[layer]`, share of the minimum cuts' capacity that lies in each layer (the encoder's, then the
            decoder's), over the cuts between every input and every output, each the one nearest its input. Sums to 1.
        saturation: share in [0, 1] of the scores that equal their trivial bound.
        entropy: of an output's scores, in nats: 0 where one input has all, log(n) where n inputs have as much.
        source_share: share of the encoder's inputs; None unless there are an encoder and a decoder.
        prefix_share: share of the decoder's own inputs, likewise; both sum to 1.
        first_source_share: share of the encoder's first token that is no padding; None without encoder.
        first_prefix_share: share of the decoder's first, where attention that is not needed often goes; None without
            decoder.
    """

    attribution: Attribution
    bottleneck: Float[np.ndarray, " layer"]
    saturation: float
    entropy: float
    source_share: float | None
    prefix_share: float | None
    first_source_share: float | None
    first_prefix_share: float | None

    def scalars(self) -> dict[str, float]:
        """Name the numbers: `bottleneck_layer` (from 1), `cut_share/layer_01` and on, and each of the other fields."""
        n_digits = len(str(len(self.bottleneck)))
        named: dict[str, float | None] = {
            "bottleneck_layer": float(np.argmax(self.bottleneck) + 1),
            **{f"cut_share/layer_{i:0{n_digits}}": float(share) for i, share in enumerate(self.bottleneck, 1)},
            "saturation": self.saturation,
            "entropy": self.entropy,
            "source_share": self.source_share,
            "prefix_share": self.prefix_share,
            "first_source_share": self.first_source_share,
            "first_prefix_share": self.first_prefix_share,
        }
        return {name: value for name, value in named.items() if value is not None}


def flow_summary(
    attention: Attention | Capacities | Float[ArrayLike, "*batch layer head source source"],
    *,
    outputs: int | Sequence[int] | None = None,
    decoder_layer: DecoderLayer = "sublayers",
) -> FlowSummary:
    """Summarise the attention flow of a batch: where it is bounded, how it is spread, how far it is saturated.

    Runs on the host, like `attention_flow`, and takes about twice as long: a minimum cut for each score.

    Args:
        attention: what `attention_flow` takes. Heads, residual and masks other than its defaults are given to
            `joint_capacities`, whose `Capacities` go in here.
        outputs: positions to explain, in the decoder if there is one; None for all. In a causal stack early outputs have
            few inputs, which raises the first one's share: choose later ones to leave that out.
        decoder_layer: as in `flow_network`.

    Returns:
        `FlowSummary`.

    Raises:
        ValueError: as `attention_flow`.

    Example:
        >>> import jax.numpy as jnp
        >>> layer = jnp.array([[0.75, 0.25], [0.5, 0.5]])
        >>> summary = flow_summary(jnp.stack([layer, layer])[:, None])
        >>> summary.saturation, summary.bottleneck.round(3), round(summary.first_source_share, 3)
        (0.5, array([0.81, 0.19]), 0.582)

    Source: scores as Metzger et al. 2022 (2205.15389); cuts nearest the source as Picard & Queyranne 1980.
    """
    capacities = jax.device_get(as_capacities(attention))
    attribution = attention_flow(capacities, outputs=outputs, decoder_layer=decoder_layer)
    scores = attribution_scores(attribution)
    scores = scores[scores.sum(-1) > 0]  # [output, player]: rows of padded outputs are 0
    shares = scores / scores.sum(-1, keepdims=True)
    encoder, decoder = attribution.encoder, attribution.decoder
    n_encoder = 0 if encoder is None else encoder.shape[-1]
    both = encoder is not None and decoder is not None
    source, prefix = (share.sum(-1).mean() for share in (shares[:, :n_encoder], shares[:, n_encoder:]))
    first_source, first_prefix = _first_shares(attribution, capacities)
    return FlowSummary(
        attribution=attribution,
        bottleneck=_bottleneck(capacities, attribution, decoder_layer),
        saturation=float(attribution.saturation or 0.0),
        entropy=float(-np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1)), 0).sum(-1).mean()),
        source_share=float(source) if both else None,
        prefix_share=float(prefix) if both else None,
        first_source_share=first_source,
        first_prefix_share=first_prefix,
    )


def _first_shares(attribution: Attribution, capacities: Capacities) -> tuple[float | None, float | None]:
    """Return the mean share of each stack's first token that is no padding; None for a stack that is not there."""
    total = attribution_scores(attribution).sum(-1)
    shares: list[float | None] = []
    for scores, real in zip((attribution.encoder, attribution.decoder), real_tokens(capacities), strict=True):
        if scores is None:
            shares.append(None)
            continue
        first = np.take_along_axis(np.asarray(scores), real.argmax(-1)[..., None, None], axis=-1)[..., 0]
        shares.append(float((first[total > 0] / total[total > 0]).mean()))
    return shares[0], shares[1]


def _bottleneck(
    capacities: Capacities, attribution: Attribution, decoder_layer: DecoderLayer
) -> Float[np.ndarray, " layer"]:
    """Add up, per layer, the minimum cuts between all pairs of all examples."""
    assert attribution.certificate is not None
    total = np.zeros(1)
    for index in np.ndindex(*batch_of(capacities)):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], capacities)
        network = flow_network(one, decoder_layer=decoder_layer)
        output, player = np.nonzero(attribution.certificate.lower[index] > 0)
        sinks = network.outputs[attribution.outputs[output]]
        total = total + cut_layers(network, network.inputs[player], sinks).sum(0)
    return total / total.sum()
