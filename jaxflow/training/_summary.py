"""flow_summary: what a batch's attention flow is like, in a few numbers that can be followed over a training."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from flax import struct
from jaxtyping import ArrayLike, Float

from jaxflow._attention import Attention
from jaxflow.attribute import (
    AttentionFlow,
    Attribution,
    RawAttention,
    Rollout,
    SetShapley,
    as_method,
    method_label,
)
from jaxflow.network import Capacities, Positions, as_capacities, batch_of, flow_network, real_tokens
from jaxflow.solve import cut_capacities, layer_share


@struct.dataclass
class FlowSummary:
    """What the attention flow of a batch is like. Every explained output of every example counts alike.

    A *share* is a part of an output's scores, which are divided by their sum; padded outputs are left out.

    Attributes:
        attribution: the scores that all else is made of.
        bottleneck: `[layer]`, share of the minimum cuts' capacity that lies in each layer (the encoder's, then the
            decoder's), over the cuts between every input and every output, each the one nearest its input. Sums to 1. None for
            methods other than attention flow, like the next.
        saturation: share in [0, 1] of the scores that equal their trivial bound.
        entropy: of an output's scores, in nats: 0 where one input has all, log(n) where n inputs have as much.
        source_share: share of the encoder's inputs; None unless there are an encoder and a decoder.
        prefix_share: share of the decoder's own inputs, likewise; both sum to 1.
        first_source_share: share of the encoder's first token that is no padding; None without encoder.
        first_prefix_share: share of the decoder's first, where attention that is not needed often goes; None without
            decoder.
    """

    attribution: Attribution
    bottleneck: Float[np.ndarray, " layer"] | None
    saturation: float | None
    entropy: float
    source_share: float | None
    prefix_share: float | None
    first_source_share: float | None
    first_prefix_share: float | None

    def scalars(self) -> dict[str, float]:
        """Name the numbers: `bottleneck_layer` (from 1), `cut_share/layer_01` and on, and each of the other fields."""
        named: dict[str, float | None] = {}
        if self.bottleneck is not None:
            n_digits = len(str(len(self.bottleneck)))
            named["bottleneck_layer"] = float(np.argmax(self.bottleneck) + 1)
            named |= {f"cut_share/layer_{i:0{n_digits}}": float(share) for i, share in enumerate(self.bottleneck, 1)}
        named |= {
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
    method: AttentionFlow | SetShapley | Rollout | RawAttention | str = "flow",
    *,
    positions: Positions | None = None,
) -> FlowSummary:
    """Summarise the scores of a batch: where its flow is bounded, how scores are spread, how far they are saturated.

    Runs on the host, like `attention_flow`, and with attention flow takes about twice as long: a minimum cut for each score.

    Args:
        attention: what `attention_flow` takes. Masks are given to `joint_capacities`, whose `Capacities` go in here.
        method: how to score: `AttentionFlow`, `SetShapley`, `Rollout` or `RawAttention`, or the name of one.
        positions: outputs to explain, positions in the decoder if there is one; None for all. In a causal stack early outputs
            have few inputs, which raises the first one's share: choose later ones to leave that out.

    Returns:
        `FlowSummary`.

    Raises:
        ValueError: as `attention_flow`; a method that needs more of a model than its attention.

    Example:
        >>> import jax.numpy as jnp
        >>> layer = jnp.array([[0.75, 0.25], [0.5, 0.5]])
        >>> summary = flow_summary(jnp.stack([layer, layer])[:, None])
        >>> summary.saturation, summary.bottleneck.round(3), round(summary.first_source_share, 3)
        (0.5, array([0.81, 0.19]), 0.582)

    Source: scores as Metzger et al. 2022 (2205.15389); cuts nearest the source as Picard & Queyranne 1980.
    """
    how = check_method(as_method(method))
    making = {} if isinstance(attention, Capacities) else {"heads": how.heads, "residual": how.residual}
    capacities = jax.device_get(as_capacities(attention, **making))
    attribution = jax.device_get(how(capacities, positions=positions))
    scores = attribution.scores
    scores = scores[scores.sum(-1) > 0]  # [output, input]: rows of padded outputs are 0
    shares = scores / scores.sum(-1, keepdims=True)
    encoder, decoder = attribution.encoder, attribution.decoder
    n_encoder = 0 if encoder is None else encoder.shape[-1]
    both = encoder is not None and decoder is not None
    source, prefix = (share.sum(-1).mean() for share in (shares[:, :n_encoder], shares[:, n_encoder:]))
    first_source, first_prefix = _first_shares(attribution, capacities)
    return FlowSummary(
        attribution=attribution,
        bottleneck=_bottleneck(capacities, attribution, how) if isinstance(how, AttentionFlow) else None,
        saturation=attribution.saturation,
        entropy=float(-np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1)), 0).sum(-1).mean()),
        source_share=float(source) if both else None,
        prefix_share=float(prefix) if both else None,
        first_source_share=first_source,
        first_prefix_share=first_prefix,
    )


def check_method(method: Any) -> Any:
    """Return a method that scores arrays of attention.

    Raises:
        ValueError: it needs more of a model than that.
    """
    if not isinstance(method, AttentionFlow | SetShapley | Rollout | RawAttention) or "gradients" in method.needs:
        raise ValueError(
            f"The method {method_label(method)!r} needs more of a model than its attention, and a batch is followed by that "
            "alone: expected AttentionFlow, SetShapley, Rollout or RawAttention with weighting='attention'."
        )
    return method


def _first_shares(attribution: Attribution, capacities: Capacities) -> tuple[float | None, float | None]:
    """Return the mean share of each stack's first token that is no padding; None for a stack that is not there."""
    total = attribution.scores.sum(-1)
    shares: list[float | None] = []
    for scores, real in zip((attribution.encoder, attribution.decoder), real_tokens(capacities), strict=True):
        if scores is None:
            shares.append(None)
            continue
        first = np.take_along_axis(np.asarray(scores), real.argmax(-1)[..., None, None], axis=-1)[..., 0]
        shares.append(float((first[total > 0] / total[total > 0]).mean()))
    return shares[0], shares[1]


def _bottleneck(capacities: Capacities, attribution: Attribution, method: AttentionFlow) -> Float[np.ndarray, " layer"]:
    """Add up, per layer, the minimum cuts between all pairs of all examples."""
    assert attribution.certificate is not None
    found = []
    for index in np.ndindex(*batch_of(capacities)):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], capacities)
        network = flow_network(one, decoder_layer=method.decoder_layer)
        output, source = np.nonzero(attribution.certificate.lower[index] > 0)
        sinks = network.outputs[attribution.positions[output]]
        found.append(cut_capacities(network, network.inputs[source], sinks))
    return layer_share(np.concatenate(found))
