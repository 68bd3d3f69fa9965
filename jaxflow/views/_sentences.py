"""The sentences that all views share: what was explained, by which method, and what the scores can tell."""

from __future__ import annotations

import numpy as np

from jaxflow._printable import printable, visible
from jaxflow.explain import Explanation, Prediction
from jaxflow.solve import UNFINISHED
from jaxflow.views._scale import scale_setters

METHOD_NAMES = {
    "flow": "attention flow",
    "contribution_flow": "contribution flow",
    "contributions": "contributions",
    "shapley": "Shapley values of joint attention flow",
    "rollout": "attention rollout",
    "raw": "raw attention",
    "gradient": "gradient norm",
    "input_x_gradient": "input x gradient",
    "integrated_gradients": "integrated gradients",
    "leave_one_out": "leave one out",
    "token_shapley": "Shapley values of tokens",
    "random": "random scores",
}
WEIGHTED = {"gradient": "gradients", "attention_gradient": "attention x gradients"}
UNPROVED = ("shapley",)  # methods that are made of maximum flows, and have no certificate
NO_RESIDUAL = ("raw",)  # methods whose convention on the residual stream changes nothing

NO_PATH, UNKNOWN = "no path", "unknown"
COULD_SEND, DID_GIVE = "could send", "did give"  # attention flow, and contributions
BEYOND = "▶"  # ends a bar that is longer than the scale
GAP, NARROW = 3, 20  # columns between two lists, and of a list that is too narrow to stand beside another
BRIEF, FULL = 3, 6  # digits of a score behind the point
N_PLACES = 3  # where tokens are mixed, that are named
# Methods that ask the model itself, whatever moves its tokens.
BY_THE_MODEL = ("gradient", "input_x_gradient", "integrated_gradients", "leave_one_out", "token_shapley", "random")


def headline(explanation: Explanation) -> str:
    """Say model, method and conventions in one line; a convention that the method has none of is left out."""
    conventions = explanation.conventions
    parts = [f"{visible(explanation.model)}: {METHOD_NAMES.get(explanation.method) or visible(explanation.method)}"]
    target = conventions.get("target")
    if target is not None:
        target = visible(str(target))
        weighted = WEIGHTED.get(conventions.get("weighting", ""))
        parts.append(f"{weighted} of {target}" if weighted else f"target {target}")
    if "heads" in conventions:
        parts.append(_heads(conventions["heads"]))
    if "residual" in conventions and explanation.method not in NO_RESIDUAL:
        parts.append(f"residual {conventions['residual']:g}")
    if "normalise" in conventions:
        parts.append("normalised" if conventions["normalise"] else "not normalised")
    return ", ".join(parts)


def certificate_sentence(explanation: Explanation) -> str:
    """Say what proves the scores."""
    certificate = explanation.attribution.certificate
    if certificate is None:
        return "scores without certificate" if explanation.method in UNPROVED else "no maximum flow involved"
    settled = ", ".join(f"{count} by {stage}" for stage, count in certificate.stages.items() if count)
    exact = (
        "every score exact: a flow and an upper bound of equal value" if certificate.exact.all() else "not all exact"
    )
    solver = explanation.conventions.get("solver")
    saturation = explanation.attribution.saturation
    return (
        f"{'' if solver is None else f'solver {solver}: '}{exact} ({settled}), "
        f"capacities rounded to {float(np.max(certificate.quantum)):.2g}"
        f"{'' if saturation is None else f'; {saturation:.0%} saturated'}"
    )


def joint_positions(explanation: Explanation) -> list[int] | None:
    """Return the positions whose joint scores are explained; None where each output has scores of its own."""
    return explanation.conventions.get("joint")


def output_name(explanation: Explanation, row: int) -> str:
    """Name an explained output by its position and token, or the set of outputs that are explained jointly."""
    joint = joint_positions(explanation)
    if joint is not None:
        return f"outputs {_ranges(joint)} together ({visible(explanation.output_tokens[0])})"
    position = int(explanation.attribution.positions[row])
    return f"output {position} ({visible(explanation.output_tokens[position])})"


def prediction_sentence(explanation: Explanation) -> str | None:
    """Say what was predicted for the whole sequence; None where every token has a prediction of its own."""
    if not explanation.predictions:
        return (
            "Predicted: nothing that is known to be logits (where a model returns an array of them, name them by "
            "as_model(model, labels=[...]))."
        )
    prediction = explanation.predictions[0]
    return None if prediction.position is not None else f"Predicted: {_prediction(prediction)}."


def output_sentence(explanation: Explanation, row: int) -> str:
    """Say which output this is, and what was predicted for its token."""
    prediction = explanation.prediction_of(row)
    name = output_name(explanation, row)
    return name if prediction is None or prediction.position is None else f"{name}: {_prediction(prediction)}"


def score_text(score: float, digits: int = BRIEF) -> str:
    """Write a score; "unknown" where time ran out."""
    return UNKNOWN if np.isnan(score) else f"{score:.{digits}f}"


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
    parts += [f"{'the others are' if parts else 'scores are'} proved to within {gap:.2g}"] if gap > 0 else []
    if not parts:  # bounds that differ by less than rounding
        return None
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
    if explanation.method == "contribution_flow":
        return f"{sentence}: all that speaks for the target in those tokens reaches it."
    return f"{sentence}; those say what a token sends or an output takes, not what happens between."


def given_sentence(explanation: Explanation, row: int) -> str | None:
    """Say what the contributions to an output are together, and how much of it special and first tokens hold.

    None where there are no contributions; where it cannot be told what tokens gave, why.
    """
    if explanation.contributions_refused is not None:
        return f"What tokens did give is not known. {printable(explanation.contributions_refused)}"
    given = explanation if explanation.method == "contributions" else explanation.contributions
    if given is None:
        return None
    scores = given.scores[row]
    sentence = (
        f"Did give: contributions to {visible(str(given.conventions['target']))}, {scores.sum():.{BRIEF}f} together"
    )
    aside = ~scale_setters(given)
    held = scores[aside]
    if not aside.any() or not held.any():
        return f"{sentence}."
    names = dict.fromkeys(visible(token) for token, is_aside in zip(given.tokens, aside, strict=True) if is_aside)
    return (
        f"{sentence}, of which {held.sum():.{BRIEF}f} is parked on {', '.join(names)}: what many texts have in common. No scale "
        "depends on it."
    )


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
    return [f" ±{2 * one:.{BRIEF}f}" for one in error[row]]


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
    """Say whether the model's own checker found its output right, and what the scores leave out; None if there is neither."""
    return printable(" ".join((*explanation.notes, *_left_out(explanation)))) or None


def _left_out(explanation: Explanation) -> list[str]:
    """Say what else moves information between tokens; not of methods that ask the model itself."""
    if not explanation.mixing or explanation.method in BY_THE_MODEL:
        return []
    *others, last = explanation.mixing[:N_PLACES]
    more = len(explanation.mixing) - N_PLACES
    places = "; ".join((*others, last, *([f"and {more} more"] if more > 0 else [])))
    return [f"Left out of all scores by attention: tokens are mixed by something else too ({places})."]


def _heads(heads: object) -> str:
    """Say how heads are reduced: by name, one of them, or weighted."""
    return (
        f"{heads} over heads"
        if isinstance(heads, str)
        else f"head {heads}"
        if isinstance(heads, int)
        else "weighted heads"
    )


def _ranges(positions: list[int]) -> str:
    """Write positions in order, runs by their ends: 2, 4 to 7."""
    runs: list[list[int]] = []
    for position in sorted(positions):
        if runs and position == runs[-1][-1] + 1:
            runs[-1].append(position)
        else:
            runs.append([position])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _prediction(prediction: Prediction) -> str:
    return f"{visible(prediction.label)}, {prediction.probability:.1%}"
