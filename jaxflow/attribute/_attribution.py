"""Attribution: a score for every explained output and every input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jaxflow import _display
from jaxflow.attribute._certificate import Certificate, join_certificates
from jaxflow.network import Spans


@struct.dataclass
class Attribution:
    """A score for every explained output and every input. A PyTree of arrays, and nothing else.

    Scores of encoder and decoder share one scale.

    Attributes:
        encoder: `[*batch, output, source]`, score of each input token of the encoder, or of each span of them; exactly 0 for
            padding. None without encoder.
        decoder: `[*batch, output, target]`, score of each input token (or span) of the decoder; exactly 0 for padding, for
            tokens after the output and for tokens that are no inputs. None without decoder.
        positions: `[output]`, positions that are explained, of the decoder if there is one; numbers of the sets, where sets of
            positions are explained.
        certificate: what proves the scores; None for methods that have nothing to prove (rollout, gradients).
        standard_error: `[*batch, output, input]`, of sampled scores, 0 where they are exact; None for methods that do not
            sample.
        completeness_gap: `[*batch]` or `[*batch, output]`, by how much scores miss the sum that they approximate; None for
            methods that approximate none.

    Source: Metzger et al. 2022 (2205.15389).
    """

    encoder: Float[Array | np.ndarray, "*batch output source"] | None
    decoder: Float[Array | np.ndarray, "*batch output target"] | None
    positions: Int[np.ndarray, " output"]
    certificate: Certificate | None = None
    standard_error: Float[np.ndarray, "*batch output input"] | None = None
    completeness_gap: Float[Array | np.ndarray, "*batch"] | None = None

    @property
    def scores(self) -> Float[np.ndarray, "*batch output input"]:
        """`[*batch, output, input]`, float64, scores of all inputs: those of the encoder, then those of the decoder."""
        stacks = (self.encoder, self.decoder)
        return np.concatenate([np.asarray(stack, np.float64) for stack in stacks if stack is not None], axis=-1)

    @property
    def saturated(self) -> Bool[np.ndarray, "*batch output input"] | None:
        """Where a score equals its trivial bound, and so says nothing of the layers between; None without certificate."""
        if self.certificate is None:
            return None
        trivial = np.asarray(self.certificate.trivial)
        return (np.asarray(self.certificate.lower) == trivial) & (trivial > 0)

    @property
    def saturation(self) -> float | None:
        """Share in [0, 1] of the scores that are saturated, of those that could be other than 0; None without certificate."""
        saturated = self.saturated
        if self.certificate is None or saturated is None:
            return None
        possible = np.asarray(self.certificate.trivial) > 0
        return float(saturated.sum() / max(possible.sum(), 1))

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        return _display.scores(self, path, subtree_renderer)


def split_scores(
    scores: Float[Array | np.ndarray, "*batch output input"],
    n_encoder: int,
    *,
    positions: Int[np.ndarray, " output"],
    normalise: bool = False,
    certificate: Certificate | None = None,
) -> Attribution:
    """Make an attribution of the scores of all inputs, the encoder's `n_encoder` first; normalised over all of them."""
    if normalise:
        total = scores.sum(-1, keepdims=True)
        scores = scores / (total + (total == 0).astype(total.dtype))  # rows that are all 0 stay 0
    return Attribution(
        encoder=scores[..., :n_encoder] if n_encoder else None,
        decoder=scores[..., n_encoder:] if n_encoder < scores.shape[-1] else None,
        positions=positions,
        certificate=certificate,
    )


def sum_over_spans(attribution: Attribution, spans: Spans) -> Attribution:
    """Add up the scores of each span's tokens, and of each set of positions, where scores are shares.

    The joint score of a flow is no such sum: see `attention_flow`.

    Args:
        attribution: unbatched, of single tokens, and of all positions where sets of them are asked for.
        spans: masks without batch axes.

    Returns:
        `Attribution` with a score for each span.
    """
    if not spans.are_given:
        return attribution
    parts = [
        np.asarray(scores) if masks is None else np.asarray(scores) @ np.asarray(masks).T.astype(scores.dtype)
        for scores, masks in ((attribution.encoder, spans.encoder), (attribution.decoder, spans.decoder))
        if scores is not None
    ]
    scores, positions = np.concatenate(parts, axis=-1), attribution.positions
    if spans.outputs is not None:
        sets = np.asarray(spans.outputs)
        scores, positions = sets.astype(scores.dtype) @ scores, np.arange(len(sets))
    return split_scores(scores, 0 if attribution.encoder is None else parts[0].shape[-1], positions=positions)


def normalised(attribution: Attribution) -> Attribution:
    """Divide the scores of each output by their sum over all inputs; rows that are all 0 stay so."""
    n_encoder = 0 if attribution.encoder is None else attribution.encoder.shape[-1]
    return split_scores(attribution.scores, n_encoder, positions=attribution.positions, normalise=True)


def repeated(attribution: Attribution, positions: Sequence[int] | None) -> Attribution:
    """Give each position the one row of an attribution; None is one set of positions.

    Args:
        attribution: unbatched, with one output.
        positions: which positions have these scores.
    """
    places = np.asarray([0] if positions is None else positions)

    def rows(array: Any) -> Any:
        return None if array is None else np.broadcast_to(np.asarray(array), (len(places), *np.shape(array)[1:]))

    certificate = attribution.certificate
    if certificate is not None:
        each = {name: rows(getattr(certificate, name)) for name in ("lower", "upper", "trivial", "stage")}
        certificate = Certificate(**each, quantum=certificate.quantum)
    gap = attribution.completeness_gap
    return Attribution(
        encoder=rows(attribution.encoder),
        decoder=rows(attribution.decoder),
        positions=places,
        certificate=certificate,
        standard_error=rows(attribution.standard_error),
        completeness_gap=None if gap is None else np.broadcast_to(np.asarray(gap), len(places)),
    )


def join_outputs_of(found: Sequence[Attribution], positions: Sequence[int]) -> Attribution:
    """Put attributions of one output each below one another, as one attribution of all `positions`."""
    certificates = [each.certificate for each in found if each.certificate is not None]
    gaps = [np.asarray(each.completeness_gap) for each in found if each.completeness_gap is not None]
    return Attribution(
        encoder=_rows([each.encoder for each in found]),
        decoder=_rows([each.decoder for each in found]),
        positions=np.asarray(positions),
        certificate=join_certificates(certificates) if certificates else None,
        standard_error=_rows([each.standard_error for each in found]),
        completeness_gap=np.stack(gaps, axis=-1) if gaps else None,
    )


def _rows(rows: Sequence[Array | np.ndarray | None]) -> np.ndarray | None:
    given = [np.asarray(row) for row in rows if row is not None]
    return np.concatenate(given, axis=-2) if given else None
