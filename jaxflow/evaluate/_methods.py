"""The methods that are compared: what a model answers about a text -> an attribution of its tokens."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from jaxflow._attention import Attention
from jaxflow.attribute import Attribution, attention_flow, gradient_rollout, raw_attention, rollout
from jaxflow.evaluate._compiled import Asked, Model, numbers_of
from jaxflow.network import Weighting, joint_capacities


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """What a model with some parameters answers about one text; each answer is computed when it is first asked for.

    Attributes:
        model: the model, compiled.
        asked: the text, its inputs and the decision.
        parameters: the trained ones, or others.
        seed: of random scores.
    """

    model: Model
    asked: Asked
    parameters: Any
    seed: int = 0

    @functools.cached_property
    def attended(self) -> tuple[Attention, Attention]:
        """Attention, and the gradients of the target by it, `[1, layer, head, query, key]`."""
        return jax.device_get(self.model.attend(self.parameters, self.asked.inputs, self.asked.decision))

    @property
    def masks(self) -> dict[str, Any]:
        """Padding, by the names that `joint_capacities` takes."""
        attention, _ = self.attended
        side = "decoder_mask" if attention.encoder is None else "encoder_mask"
        return {side: np.asarray(self.asked.inputs["attention_mask"], bool)}

    @functools.cached_property
    def numbers(self) -> Callable[[Bool[np.ndarray, "mask token"]], tuple[np.ndarray, np.ndarray]]:
        """A function of which tokens are kept: the value and the target for each mask."""
        return numbers_of(self.model, self.asked, self.parameters)

    @functools.cached_property
    def left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """What value and target lose without each token, `[token]`; 0 for tokens that are never hidden."""
        places = np.flatnonzero(self.asked.candidates)
        masks = np.ones((len(places) + 1, len(self.asked.candidates)), bool)
        masks[np.arange(len(places)) + 1, places] = False
        lost = []
        for number in self.numbers(masks):
            scores = np.zeros(masks.shape[1])
            scores[places] = number[0] - number[1:]
            lost.append(scores)
        return lost[0], lost[1]

    @functools.cached_property
    def gradient(self) -> Attribution:
        """Scores of `gradient_norm`."""
        return self.model.gradient(self.parameters, self.asked.inputs, self.asked.decision)


Method = Callable[[Answers], Any]


def score(method: Method, answers: Answers) -> tuple[Float[np.ndarray, " token"], float]:
    """Return a method's scores of a text's tokens, padding included, and the share of them that is saturated.

    Scores of several explained outputs are averaged. The share is NaN for methods that have no bound.

    Raises:
        ValueError: scores that are no row, or of another number of tokens.
    """
    found = method(answers)
    n_tokens, n_padded = len(answers.asked.tokens), len(answers.asked.candidates)
    saturation = float("nan")
    if isinstance(found, Attribution):
        saturation = float("nan") if found.saturation is None else found.saturation
        stacks = [np.asarray(stack) for stack in (found.encoder, found.decoder) if stack is not None]
        found = stacks[0].reshape(-1, stacks[0].shape[-1]).mean(0)
    row = np.asarray(found, np.float64)
    if row.shape not in ((n_tokens,), (n_padded,)):
        raise ValueError(
            f"A method returned scores of shape {row.shape} for {n_tokens} tokens; expected one for each, or an Attribution."
        )
    return np.pad(row, (0, n_padded - len(row))), saturation


def _flow(answers: Answers, weighting: Weighting = "attention") -> Attribution:
    attention, gradients = answers.attended
    needed = None if weighting == "attention" else gradients
    capacities = joint_capacities(attention, weighting=weighting, gradients=needed, **answers.masks)
    return attention_flow(capacities, outputs=answers.asked.outputs)


def _gradient_rollout(answers: Answers) -> Attribution:
    return gradient_rollout(*answers.attended, outputs=answers.asked.outputs, **answers.masks)


def _random(answers: Answers) -> np.ndarray:
    rng = np.random.default_rng([answers.seed, zlib.crc32(answers.asked.text.encode())])
    return rng.random(len(answers.asked.tokens))


METHODS: Mapping[str, Method] = {
    "flow": _flow,
    "flow_gradient": functools.partial(_flow, weighting="gradient"),
    "flow_attention_gradient": functools.partial(_flow, weighting="attention_gradient"),
    "rollout": lambda a: rollout(a.attended[0], outputs=a.asked.outputs, **a.masks),
    "raw": lambda a: raw_attention(a.attended[0], outputs=a.asked.outputs, **a.masks),
    "gradient_rollout": _gradient_rollout,
    "gradient": lambda a: a.gradient,
    "input_x_gradient": lambda a: a.model.input_x_gradient(a.parameters, a.asked.inputs, a.asked.decision),
    "integrated_gradients": lambda a: a.model.integrated_gradients(a.parameters, a.asked.inputs, a.asked.decision),
    "leave_one_out": lambda a: a.left_out[1],
    "random": _random,
}
