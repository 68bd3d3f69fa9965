"""What a view shows: scores with the names of their inputs and outputs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Real

from jaxflow._printable import visible
from jaxflow.attribute import Attribution
from jaxflow.explain import Explanation, Prediction
from jaxflow.views._scale import end_of_scale, largest_score, scale_shares
from jaxflow.views._sentences import joint_positions, output_name
from jaxflow.views._tokens import visible_names

Scores = Real[ArrayLike, " input"] | Real[ArrayLike, "_output input"] | Sequence[float] | Sequence[Sequence[float]]
Given = Explanation | Attribution | Scores
LONGEST = 24  # letters of a token; a longer one is cut


@dataclasses.dataclass(frozen=True)
class NamedScores:
    """Scores as they are shown.

    Attributes:
        scores: `[output, input]`, NaN where unknown.
        reachable: `[output, input]`, False where no path leads, for causality or padding.
        errors: `[output, input]`, standard errors of sampled scores; None where none are sampled.
        inputs: names of the inputs, those of the encoder first.
        outputs: names of the outputs.
        titles: what each output is and what was predicted for it.
        positions: position of each output in its stack.
        n_encoder: how many of the inputs are the encoder's.
        explanation: what it comes from, if from one.
    """

    scores: Float[np.ndarray, "output input"]
    reachable: Bool[np.ndarray, "output input"]
    errors: Float[np.ndarray, "output input"] | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    titles: tuple[str, ...]
    positions: tuple[int, ...]
    n_encoder: int
    explanation: Explanation | None

    @functools.cached_property
    def largest(self) -> float:
        """The largest absolute score of all outputs, which has the fullest colour; 0 where none is known.

        Of contributions, those of special tokens and of a decoder's first one aside.
        """
        return largest_score(self.scores) if self.explanation is None else end_of_scale(self.explanation, self.scores)

    @functools.cached_property
    def shares(self) -> Float[np.ndarray, "output input"]:
        """`[output, input]` in [-1, 1], what share of the scale each score has; 0 where unknown."""
        return scale_shares(self.scores, self.largest)

    @functools.cached_property
    def has_negative(self) -> bool:
        """Whether a score is below 0, as those of gradients and of leave-one-out may be."""
        return bool((self.shares < 0).any())


def read_scores(
    given: Given, *, tokens: Sequence[str] | None = None, output_tokens: Sequence[str] | None = None
) -> NamedScores:
    """Read scores and names off an explanation, an attribution or an array.

    Raises:
        ValueError: a batch, an array of another rank, more or fewer names than scores.
    """
    explanation = given if isinstance(given, Explanation) else None
    attribution = given.attribution if isinstance(given, Explanation) else given
    if isinstance(attribution, Attribution):
        scores = attribution.scores
        n_encoder = 0 if attribution.encoder is None else np.shape(attribution.encoder)[-1]
        errors = attribution.standard_error
        positions = np.asarray(attribution.positions)
    else:
        scores = np.atleast_2d(np.asarray(attribution, np.float64))
        n_encoder, errors, positions = scores.shape[-1], None, np.arange(len(scores))
    if scores.ndim != 2 or not scores.size:
        raise ValueError(
            f"The scores have shape {scores.shape}; a view shows one example, [output, input] or [input]. Take one "
            "of a batch: attribution.replace(encoder=attribution.encoder[0], ...), or give its scores alone."
        )
    if tokens is None:
        tokens = explanation.tokens if explanation else [str(i) for i in range(scores.shape[1])]
    inputs = visible_names(tokens)
    if output_tokens is not None:
        outputs = visible_names(output_tokens)
    elif explanation:
        outputs = name_outputs(explanation)
    else:
        own = inputs[n_encoder:] or inputs  # those of the decoder, if there is one
        outputs = [own[position] if position < len(own) else str(position) for position in positions.tolist()]
    for name, names, n_expected in (("tokens", inputs, scores.shape[1]), ("output_tokens", outputs, len(scores))):
        if len(names) != n_expected:
            raise ValueError(
                f"{name} holds {len(names)} names; expected {n_expected}, for scores [output, input] of shape {scores.shape}."
            )
    return NamedScores(
        scores=scores,
        reachable=_reachable(attribution, scores, n_encoder),
        errors=None if errors is None or not np.any(errors) else np.asarray(errors),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        titles=tuple(_title(explanation, row, int(positions[row]), name) for row, name in enumerate(outputs)),
        positions=tuple(positions.tolist()),
        n_encoder=n_encoder,
        explanation=explanation,
    )


def check_row(shown: NamedScores, row: int) -> int:
    """Return the number of a row of the scores, or raise if there is none."""
    if not 0 <= row < len(shown.scores):
        raise ValueError(
            f"row is {row}; expected 0 to {len(shown.scores) - 1}, which of the {len(shown.scores)} explained outputs is shown."
        )
    return row


def check_grid(shown: NamedScores, grid: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return how many patches there are, down and across: as given, or as the explanation says; None where neither does.

    Raises:
        ValueError: more patches than inputs, or none.
    """
    if grid is None and shown.explanation is not None:
        grid = shown.explanation.patches
    if grid is None:
        return None
    down, across = grid
    n_inputs = shown.scores.shape[1]
    if not (down > 0 and across > 0 and down * across <= n_inputs):
        raise ValueError(f"grid is {grid}; expected (down, across), at most {n_inputs} patches, for as many inputs.")
    return down, across


def cut(name: str, *, longest: int = LONGEST) -> str:
    """Cut a name that is too long for its place."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def name_outputs(explanation: Explanation) -> list[str]:
    """Name explained outputs by their tokens, with an arrow to what each predicted or generated, if it did."""
    own = [own_prediction(explanation, row) for row in range(len(explanation.attribution.positions))]
    words = visible_names(explanation.output_tokens)
    return [
        words[position] if one is None else f"{words[position]} → {visible(one.label)}"
        for position, one in zip(explanation.attribution.positions.tolist(), own, strict=True)
    ]


def own_prediction(explanation: Explanation, row: int) -> Prediction | None:
    """Return what an output itself predicted or generated; None if the prediction is the sequence's, or there is none."""
    prediction = explanation.prediction_of(row)
    return None if prediction is None or prediction.position is None else prediction


def _title(explanation: Explanation | None, row: int, position: int, name: str) -> str:
    if explanation is None:
        return f"output {position}" if name == str(position) else f"output {position} ({name})"
    if joint_positions(explanation) is not None:
        return output_name(explanation, row)
    own = own_prediction(explanation, row)
    return f"output {position} ({name})" if own is None else f"output {position} ({name}, {own.probability:.1%})"


def _reachable(attribution: object, scores: np.ndarray, n_encoder: int) -> np.ndarray:
    """Tell where a path leads: as the certificate says, or else as the zeros of a causal stack do."""
    certificate = attribution.certificate if isinstance(attribution, Attribution) else None
    if certificate is not None:
        return np.asarray(certificate.trivial) > 0
    reachable = np.ones(scores.shape, bool)
    # Nothing reaches an output from behind it: of the decoder's inputs, those after the last that scores.
    behind = np.cumsum((scores != 0)[:, n_encoder:][:, ::-1], axis=1)[:, ::-1] == 0
    reachable[:, n_encoder:] = ~behind
    return reachable
