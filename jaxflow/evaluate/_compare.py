"""Compare attribution methods, ours or not, by what the model does: methods x metrics on a file of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxflow._progress import progress_bar
from jaxflow.capture import model_name
from jaxflow.evaluate._comparison import Comparison
from jaxflow.evaluate._compiled import Asked, Model, ask, compile_model, read_text
from jaxflow.evaluate._decisions import Question, next_token, predicted_label, question_of
from jaxflow.evaluate._erasure import BINS
from jaxflow.evaluate._methods import METHODS, Answers, Method, score
from jaxflow.evaluate._metrics import METRICS, measure
from jaxflow.evaluate._sanity import randomise
from jaxflow.explain import words_of

__all__ = ["METHODS", "METRICS", "Answers", "Comparison", "Question", "compare", "next_token", "predicted_label"]


def compare(
    model: Any,
    texts: Sequence[str],
    *,
    tokenizer: Any,
    methods: Sequence[str] | None = None,
    more: Mapping[str, Method] | None = None,
    metrics: Sequence[str] | None = None,
    question: Question | None = None,
    variables: Mapping | None = None,
    bins: Sequence[float] = BINS,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> Comparison:
    """Score the tokens of texts by several methods, and measure which scores predict what the model does.

    Of each text, the model's own decision is explained: the label that it predicts, or the token that it writes first. Tokens
    are hidden by the attention mask; special ones are never hidden, and never counted. All masks that all methods want go
    through the model together, in one compiled program.

    Args:
        model: what `capture` takes and `input_ids` and `attention_mask` go into: a classifier, a model that writes on, or a
            sequence-to-sequence model. Modules have embeddings and parameters; of a function neither is known: choose methods and
            metrics without "gradient", "input_x_gradient", "integrated_gradients" and "sanity".
        texts: one or more, of 2 tokens or more.
        tokenizer: the model's.
        methods: names from `METHODS`; all by default.
        more: other methods by name: a function of `Answers` that returns a score for each token, or an `Attribution`.
        metrics: names from `METRICS`; all by default.
        question: what is explained, where the default does not fit: a model without a head, several labels at once.
        variables: those of an unbound linen module.
        bins: shares of the tokens that count as best, as in `erase`.
        level: of the intervals.
        n_resamples: of the bootstrap.
        seed: of the bootstrap, of random scores and of the parameters that are shuffled for "sanity".
        progress: show a bar.

    Returns:
        `Comparison`.

    Raises:
        TypeError: a model that is not supported here.
        ValueError: no text; a method or metric that does not exist; a text that is empty, too long, or has fewer than 2 tokens
            that can be hidden; a model without a head.

    Cost: for each text a forward and a backward pass for gradients, 16 for integrated gradients, about 2 forward passes for each
    token and method (fewer where methods agree); all twice for "sanity". Programs are compiled for each length, in steps of 8.

    Example:
        >>> from jaxflow import load_model
        >>> model, tokenizer = load_model("agreement")
        >>> compared = compare(
        ...     model, ["the keys to the cabinet"], tokenizer=tokenizer, methods=["rollout", "random"], metrics=["deletion"]
        ... )
        >>> compared.values.shape, compared.decisions
        ((1, 2, 1), ('plural',))
    """
    methods, metrics, functions = _check(texts, methods, more, metrics, level, n_resamples)
    read = _read(model, tokenizer, texts)
    asked, compiled = _ask(model, texts, read, question, variables)
    shuffled = _shuffled(model, compiled, seed) if "sanity" in metrics else None
    values = np.zeros((len(texts), len(methods), len(metrics)))
    scores = []
    with progress_bar(len(texts), "texts", unit="text", shown=progress) as bar:
        for row, each in enumerate(asked):
            answers = Answers(compiled, each, compiled.parameters, seed)
            scored = [score(function, answers) for function in functions]
            randomised = None
            if shuffled is not None:
                others = Answers(compiled, each, shuffled, seed + (1 if "random" in methods else 0))
                randomised = [score(function, others)[0] for function in functions]
            rows = [found for found, _ in scored]
            for number, found in enumerate(measure(answers, rows, randomised, metrics=metrics, bins=bins)):
                measured = {**found, "saturation": scored[number][1]}
                values[row, number] = [measured[name] for name in metrics]
            scores.append(np.stack(rows)[:, : len(each.tokens)])
            bar.update()
    return Comparison(
        model=model_name(model),
        texts=tuple(texts),
        tokens=tuple(each.tokens for each in asked),
        decisions=tuple(_name(model, tokenizer, each) for each in asked),
        methods=tuple(methods),
        metrics=tuple(metrics),
        values=values,
        scores=tuple(scores),
        candidates=tuple(each.candidates[: len(each.tokens)] for each in asked),
        level=level,
        n_resamples=n_resamples,
        seed=seed,
    )


def _check(
    texts: Sequence[str],
    methods: Sequence[str] | None,
    more: Mapping[str, Method] | None,
    metrics: Sequence[str] | None,
    level: float,
    n_resamples: int,
) -> tuple[list[str], list[str], list[Method]]:
    if isinstance(texts, str) or not len(texts):
        raise ValueError(f"texts is {texts!r}; expected one or more texts, in a list.")
    known = {**METHODS, **(more or {})}
    names = list(METHODS if methods is None else methods)
    for name in names:
        if name not in METHODS:
            raise ValueError(f"{name!r} is no method; expected some of {', '.join(METHODS)}.")
    names += [name for name in more or {} if name not in names]
    if not names:
        raise ValueError(f"No method is to be compared; expected some of {', '.join(METHODS)}.")
    wanted = list(METRICS if metrics is None else metrics)
    for name in wanted:
        if name not in METRICS:
            raise ValueError(f"{name!r} is no metric; expected some of {', '.join(METRICS)}.")
    if not 0 < level < 1 or n_resamples < 1:
        raise ValueError(f"level is {level} and n_resamples {n_resamples}; expected a share in (0, 1), and 1 or more.")
    return names, wanted, [known[name] for name in names]


def _read(model: Any, tokenizer: Any, texts: Sequence[str]) -> list:
    """Read every text; say which one cannot be read."""
    read = []
    for number, text in enumerate(texts, start=1):
        try:
            read.append(read_text(model, tokenizer, text))
        except ValueError as error:
            raise ValueError(f"Text {number} of {len(texts)}, {text!r}: {error}") from error
    return read


def _ask(model: Any, texts: Sequence[str], read: list, question: Question | None, variables: Mapping | None) -> tuple:
    """Compile the model, and let it decide on every text."""
    if question is None:
        probe = compile_model(model, predicted_label(), variables)
        question = question_of(model, probe.predict(probe.parameters, read[0][0]))
    compiled = compile_model(model, question, variables)
    return [ask(compiled, question, text, each) for text, each in zip(texts, read, strict=True)], compiled


def _shuffled(model: Any, compiled: Model, seed: int) -> Any:
    """Shuffle a model's parameters."""
    if not jax.tree.leaves(compiled.parameters):
        raise ValueError(
            f"{model_name(model)} holds its parameters itself, so they cannot be shuffled: choose metrics without 'sanity', or "
            "pass the module that computes it."
        )
    return randomise(compiled.parameters, seed=seed)


def _name(model: Any, tokenizer: Any, asked: Asked) -> str:
    """Name what a model decided, where that is a label or a token."""
    number = np.ravel(np.asarray(asked.decision[0] if isinstance(asked.decision, tuple) else asked.decision))
    if number.size != 1 or not np.issubdtype(number.dtype, np.integer):
        return "—"
    labels = getattr(model, "labels", None)
    if labels is not None:
        return str(labels[int(number[0])])
    if isinstance(asked.decision, tuple):
        return words_of(tokenizer, number)[0]
    names = getattr(getattr(model, "config", None), "id2label", None) or {}
    return str(names.get(int(number[0]), int(number[0])))
