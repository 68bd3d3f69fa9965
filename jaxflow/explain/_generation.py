"""Generate, then attribute every step: one teacher-forced pass over what was generated serves all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from jaxflow.capture import Target, continued, generate, is_encoder_decoder, logit
from jaxflow.explain._explain import explain
from jaxflow.explain._explanation import Explanation, Method
from jaxflow.explain._inputs import encode
from jaxflow.explain._prediction import label_target
from jaxflow.explain._words import Span, Unit, known_words, text_spans, written_spans
from jaxflow.network import DecoderLayer, Feedback, Heads, Weighting
from jaxflow.solve import Solver

# The token that an output wrote, and `position=` of that output -> its target.
TargetOf = Callable[..., Target]


def explain_generation(
    model: Any,
    text: str,
    *,
    tokenizer: Any,
    continuation: str | None = None,
    max_new_tokens: int | None = None,
    num_beams: int = 1,
    sample: bool = False,
    seed: int = 0,
    outputs: int | Sequence[int] | None = None,
    together: bool = False,
    spans: Unit | Sequence[Span] | None = None,
    method: Method = "flow",
    heads: Heads = "mean",
    residual: float | None = None,
    weighting: Weighting = "attention",
    target: TargetOf | str | int | None = None,
    decoder_layer: DecoderLayer = "sublayers",
    feedback: Feedback = "prefix",
    correction: Literal["decay", "uniform"] | None = None,
    normalise: bool = False,
    solver: Solver = "certified",
    tolerance: float = 0.0,
    budget_seconds: float | None = None,
    flow_graph: bool | None = None,
    progress: bool = False,
) -> Explanation:
    """Let a model go on from a text, or read a given continuation, and attribute each token it wrote.

    Attention of a decoder is causal, so one pass over the whole sequence holds the rows of every step. Beam search is
    explained by the sequence it returned.

    Args:
        model: a causal or sequence-to-sequence model of transformers 4 with a language-model head; or any other that says how
            it writes, as `generate` asks for, such as a decoder of the package.
        text: the prompt, or the source.
        tokenizer: the model's. If it has a method `check(text, written) -> sentences`, as those of reasoning models do, the
            explanation's `notes` are what that says of the tokens that were written.
        continuation: explain this continuation (or target) instead of one the model writes.
        max_new_tokens: how many tokens the model writes at most; by default 20 of transformers, and as many as fit of others.
        num_beams: beams of the search; 1 is greedy, and all that models not of transformers take.
        sample: draw tokens instead of taking the likeliest.
        seed: of the draws.
        outputs: positions p of the decoder whose next token, at p + 1, was written; None for all of them.
        together: explain these outputs as one set: what can flow to any of them.
        spans: inputs that count as one: "words", "lines" or "paragraphs" of the text, and of what was written; or pairs, as
            in `explain`.
        method: as in `explain`, like all that follow.
        heads: how heads are reduced.
        residual: the residual stream's share.
        weighting: as in `joint_capacities`. "gradient" and "attention_gradient" explain, at each output, a `target` of its
            own: a backward pass for each, after one forward pass (of outputs together, one for the sum of their targets).
        target: `target(token, position=position)` makes the target of an output of the token that it wrote: `logit` by
            default; `log_probability`; `functools.partial(contrast, other=token)`, why this and not that; or any function
            that returns one of the model's outputs. Or a token, by name or number, whose logit it is at every output.
        decoder_layer: "sublayers" or "parallel".
        feedback: "prefix": tokens written earlier are inputs too. "unrolled": only what was given is an input, and its
            influence passes through what was written.
        correction: None, "decay" or "uniform".
        normalise: let the scores of each output sum to 1.
        solver: as in `max_flow`.
        tolerance: as in `attention_flow`.
        budget_seconds: as in `attention_flow`.
        flow_graph: as in `explain`.
        progress: show a bar.

    Returns:
        `Explanation` whose outputs are the written tokens: `predictions[p]` is the token at p + 1 with its probability.

    Raises:
        ValueError: a model that does not generate; a generation of nothing; an output in the prompt; a target without a
            weighting by gradients; as `explain`.
    """
    if target is not None and weighting == "attention":
        raise ValueError(
            f"target is {_target_name(target)}, but weighting='attention' is the same for all: leave it out, or pass "
            "weighting='gradient' or 'attention_gradient'."
        )
    inputs = encode(tokenizer, text)
    sequence, n_prompt = (
        generate(model, inputs, max_new_tokens=max_new_tokens, num_beams=num_beams, sample=sample, seed=seed)
        if continuation is None
        else continued(model, inputs, tokenizer, continuation)
    )
    written = np.arange(n_prompt - 1, len(sequence) - 1)
    positions = (written if outputs is None else np.atleast_1d(outputs)).tolist()
    for position in positions:
        if position not in written:
            raise ValueError(
                f"Output {position} wrote no token: generated are the tokens after positions {written[0]} to {written[-1]}, "
                f"behind the {n_prompt} that were given."
            )
    wrote = None
    if isinstance(spans, str):
        wrote = written_spans(tokenizer, sequence, spans, start=n_prompt)
        spans = text_spans(tokenizer, text, spans)
    words = known_words(tokenizer, text) if spans is None else None
    if words and not is_encoder_decoder(model) and hasattr(tokenizer, "all_special_ids"):
        words = [*words, *written_spans(tokenizer, sequence, start=n_prompt)]
    if is_encoder_decoder(model):
        whole: dict[str, Any] = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
        whole |= {"decoder_input_ids": sequence[None], "spans": spans, "decoder_spans": wrote}
    else:
        whole = {"input_ids": sequence[None], "spans": spans if wrote is None else [*(spans or ()), *wrote]}
    targets = None
    if weighting != "attention":
        targets = [
            label_target(target, model=model, tokenizer=tokenizer, position=position)
            if isinstance(target, str | int)
            else (target or logit)(int(sequence[position + 1]), position=position)
            for position in positions
        ]
    explanation = explain(
        model,
        tokenizer=tokenizer,
        outputs=positions,
        together=together,
        produced=np.append(sequence[1:], -1),
        method=method,
        heads=heads,
        residual=residual,
        weighting=weighting,
        target=targets,
        decoder_layer=decoder_layer,
        feedback=feedback,
        n_prompt=n_prompt if feedback == "unrolled" else None,
        correction=correction,
        normalise=normalise,
        solver=solver,
        tolerance=tolerance,
        budget_seconds=budget_seconds,
        flow_graph=flow_graph,
        words=words,
        progress=progress,
        **whole,
    )
    if targets is not None:
        explanation.conventions["target"] = _target_name(target)
    if not hasattr(tokenizer, "check"):
        return explanation
    notes = tokenizer.check(text, tokenizer.convert_ids_to_tokens(sequence[n_prompt:]))
    return dataclasses.replace(explanation, notes=tuple(notes))


def _target_name(target: TargetOf | str | int | None) -> str | int:
    if isinstance(target, str | int):
        return target
    return f"each token's {getattr(target or logit, '__name__', 'target')}"
