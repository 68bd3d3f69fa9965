"""The sentences that all views share: what was explained, how, and what to make of it."""

from __future__ import annotations

import numpy as np

from jaxflow.explain import Explanation, Prediction
from jaxflow.solve import UNFINISHED

METHOD_NAMES = {
    "flow": "attention flow",
    "shapley": "Shapley values of joint attention flow",
    "rollout": "attention rollout",
    "raw": "raw attention",
}

WEIGHTED = {"gradient": "gradients", "attention_gradient": "attention x gradients"}


def headline(explanation: Explanation) -> str:
    """Say model, method and conventions in one line."""
    conventions = explanation.conventions
    heads = conventions["heads"]
    parts = [
        f"{explanation.model}: {METHOD_NAMES[explanation.method]}",
        f"{heads} over heads"
        if isinstance(heads, str)
        else f"head {heads}"
        if isinstance(heads, int)
        else "weighted heads",
    ]
    if conventions.get("target") is not None:
        parts.insert(1, f"{WEIGHTED[conventions['weighting']]} of {conventions['target']}")
    if explanation.method != "raw":
        parts.append(f"residual {conventions['residual']:g}")
    parts.append("normalised" if conventions["normalise"] else "not normalised")
    return ", ".join(parts)


def output_name(explanation: Explanation, row: int) -> str:
    """Name an explained output by its position and word, or the set of them that is explained together."""
    together = explanation.conventions["together"]
    if together is not None:
        return f"outputs {_ranges(together)} together ({explanation.output_tokens[0]})"
    position = int(explanation.attribution.outputs[row])
    return f"output {position} ({explanation.output_tokens[position]})"


def prediction_sentence(explanation: Explanation) -> str | None:
    """Say what was predicted for the whole sequence; None where every token has a prediction of its own."""
    if not explanation.predictions:
        return "Predicted: nothing, the model has no classification head."
    prediction = explanation.predictions[0]
    return None if prediction.position is not None else f"Predicted: {_prediction(prediction)}."


def output_sentence(explanation: Explanation, row: int) -> str:
    """Say which output this is, and what was predicted for its token."""
    prediction = explanation.prediction_of(row)
    name = output_name(explanation, row)
    return name if prediction is None or prediction.position is None else f"{name}: {_prediction(prediction)}"


def score_text(score: float) -> str:
    """Write a score; "unknown" where time ran out."""
    return "unknown" if np.isnan(score) else f"{score:.3f}"


def proof_sentence(explanation: Explanation) -> str | None:
    """Say how far scores are proved, where it is not to the last digit; None where it is, or there is nothing to prove."""
    certificate = explanation.attribution.certificate
    if certificate is None or certificate.exact.all():
        return None
    possible = certificate.trivial > 0
    unknown = (np.asarray(certificate.stage) == UNFINISHED) & possible
    gap = float(np.max(np.where(unknown, 0, certificate.upper - certificate.lower)))
    parts = (
        [f"{unknown.sum() / possible.sum():.0%} of these scores are unknown, since time ran out"]
        if unknown.any()
        else []
    )
    parts += [f"{'the others are' if parts else 'scores are'} proved to within {gap:.2g}"] if gap else []
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}. The certificate holds a lower and an upper bound for each."


def saturation_sentence(explanation: Explanation) -> str | None:
    """Say what share of the scores is saturated, and what that means; None for methods without certificate."""
    saturation = explanation.attribution.saturation
    if saturation is None:
        return None
    sentence = f"Saturated: {saturation:.0%} of these scores equal their trivial bound"
    if saturation == 0:
        return f"{sentence}."
    return f"{sentence}; those say what a token sends or an output takes, not what happens between."


def error_sentence(explanation: Explanation) -> str | None:
    """Say how far sampled scores may be off; None for methods that do not sample."""
    error = explanation.attribution.standard_error
    if error is None:
        return None
    if not np.any(error):
        return "Exact: every coalition of tokens was tried."
    return (
        f"Sampled: ± is twice the standard error, at most {2 * np.max(error):.4f}; about 19 of 20 scores are that near."
    )


def error_bars(explanation: Explanation, row: int) -> list[str]:
    """Write what a score may be off by, twice its standard error, for each input; nothing where no score is sampled."""
    error = explanation.attribution.standard_error
    if error is None or not np.any(error):
        return [""] * len(explanation.tokens)
    return [f" ±{2 * one:.3f}" for one in error[row]]


def bottleneck_sentence(explanation: Explanation) -> str | None:
    """Say which layers bound the flow to the first explained output; None where there is no flow."""
    share = explanation.bottleneck
    if share is None or not share.any():
        return None
    layers = [
        f"layer {layer + 1} holds {share[layer]:.0%}"
        for layer in np.argsort(-share, kind="stable")
        if share[layer] >= 0.005
    ]
    return f"Bottleneck: of the minimum cuts to {output_name(explanation, 0)}, {', '.join(layers)}."


def notes_sentence(explanation: Explanation) -> str | None:
    """Say what the model's checker found: whether what was written is right; None for models without one."""
    return " ".join(explanation.notes) or None


def _ranges(positions: list[int]) -> str:
    """Write positions as a person would: 2, 4 to 7."""
    runs: list[list[int]] = []
    for position in sorted(positions):
        if runs and position == runs[-1][-1] + 1:
            runs[-1].append(position)
        else:
            runs.append([position])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _prediction(prediction: Prediction) -> str:
    return f"{prediction.label}, {prediction.probability:.1%}"
