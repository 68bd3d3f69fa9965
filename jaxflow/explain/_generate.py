"""How a model goes on from its inputs, and what is explained of that: one teacher-forced pass serves all steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxflow.explain._positions import count_positions
from jaxflow.explain._reading import Reading
from jaxflow.explain._token_names import name_tokens
from jaxflow.explain._words import Unit, known_words, written_spans
from jaxflow.models import Model, continued, generate


@dataclasses.dataclass(frozen=True)
class Generate:
    """How a model goes on from the inputs, for `explain(generate=)`: it writes tokens, and each of them is explained.

    Attention of a decoder is causal, so one pass over the whole sequence holds the rows of every step. Beam search is explained
    by the sequence that it returned.

    Attributes:
        max_new_tokens: how many tokens are written at most; None for as many as fit of a model of the package, and 20 of others.
        continuation: explain this text, instead of what the model writes.
        num_beams: beams of the search; 1 is greedy, and all that models not of transformers take.
        sample: draw tokens instead of taking the likeliest.
        seed: of the draws.
    """

    max_new_tokens: int | None = None
    continuation: str | None = None
    num_beams: int = 1
    sample: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse to write nothing."""
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; expected 1 or more.")


def go_on(model: Model, reading: Reading, how: Generate, *, tokenizer: Any, spans: Unit | None) -> Reading:
    """Let a model go on from what it has read, and read the whole again, as its decoder does in one pass.

    Args:
        model: what generates.
        reading: inputs by name, `input_ids` among them.
        how: how it goes on.
        tokenizer: the model's.
        spans: a unit of text that is asked of `explain`: it is looked for in what is written too.

    Raises:
        ValueError: inputs without tokens; a model that does not generate; a generation of nothing.
    """
    inputs = {**reading.kwargs, **model.arguments(reading.args, reading.kwargs)}
    if "input_ids" not in inputs:
        raise ValueError(
            f"{model.name} is to go on from its inputs, and these are {', '.join(inputs) or 'none by name'}; expected input_ids."
        )
    ids = inputs["input_ids"]
    if "input_ids" not in model.arguments((), {"input_ids": ids}):
        raise ValueError(
            f"{model.name} takes no input_ids: what generates is called with input_ids, [1, token], and with all that it has "
            "written so far. Wrap it in a function or a module that takes them by that name, with eos_token_id and max_length."
        )
    if how.continuation is None:
        sequence, n_prompt = generate(
            model,
            inputs,
            max_new_tokens=how.max_new_tokens,
            num_beams=how.num_beams,
            sample=how.sample,
            seed=how.seed,
        )
    else:
        sequence, n_prompt = continued(model, inputs, tokenizer, how.continuation, text=reading.text)
    assert model.facts.generation is not None  # or both would have raised
    has_encoder = model.facts.generation.has_encoder
    whole: dict[str, Any] = {"input_ids": sequence[None]}
    if has_encoder:
        whole = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
        whole["decoder_input_ids"] = sequence[None]
    words = reading.example.words
    if words is None and spans is None:
        words = known_words(tokenizer, reading.text)
        if words and not has_encoder and hasattr(tokenizer, "all_special_ids"):
            words = [*words, *written_spans(tokenizer, sequence, start=n_prompt)]
    produced = np.append(sequence[1:], -1)
    return dataclasses.replace(
        reading,
        args=(),
        kwargs=whole,
        example=dataclasses.replace(reading.example, words=words, produced=produced),
        n_prompt=n_prompt,
        sequence=sequence,
        written_spans=written_spans(tokenizer, sequence, spans, start=n_prompt) if spans else None,
    )


def written_positions(reading: Reading, positions: Any, tokenizer: Any) -> list[int]:
    """Return the positions that are explained: those after which a token was written, or the chosen ones of them.

    Args:
        reading: what was read and written.
        positions: as in `explain`.
        tokenizer: names tokens.

    Raises:
        ValueError: a position of what was given.
    """
    assert reading.sequence is not None
    assert reading.n_prompt is not None
    written = range(reading.n_prompt - 1, len(reading.sequence) - 1)
    has_names = isinstance(positions, str) or (
        isinstance(positions, Sequence) and any(isinstance(p, str) for p in positions)
    )
    names = [token.name for token in name_tokens(tokenizer, reading.sequence)] if has_names else []
    counted = count_positions(positions, names, written)
    chosen = list(written) if counted is None else np.atleast_1d(np.asarray(counted)).tolist()
    for position in chosen:
        if position not in written:
            raise ValueError(
                f"Output {position} wrote no token: generated are the tokens after positions {written[0]} to {written[-1]}, "
                f"behind the {reading.n_prompt} that were given."
            )
    return chosen
