"""Generate, then attribute every step: one teacher-forced pass over what was generated serves all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from jaxflow.capacities import Heads
from jaxflow.explaining import explain
from jaxflow.explanation import Explanation, Method
from jaxflow.inputs import encode
from jaxflow.network import DecoderLayer, Feedback
from jaxflow.solve import Solver
from jaxflow.words import Span, Unit, known_words, text_spans, written_spans
from jaxflow.writing import continued, generate, is_encoder_decoder


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
        tokenizer: the model's.
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
        ValueError: a model that does not generate; a generation of nothing; an output in the prompt; as `explain`.
    """
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
    return explain(
        model,
        tokenizer=tokenizer,
        outputs=positions,
        together=together,
        produced=np.append(sequence[1:], -1),
        method=method,
        heads=heads,
        residual=residual,
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
