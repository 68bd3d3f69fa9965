"""compare: methods x metrics on a file of texts, ours or not, by what the model does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxflow._progress import no_progress, progress_bar
from jaxflow.attribute import METHODS, Attribution, Evidence, Flow, Method, as_attribution, as_method, method_label
from jaxflow.evaluate._bootstrap import Bootstrap
from jaxflow.evaluate._cases import Case, Hide, ReadText, decide, read_text, replacement_of
from jaxflow.evaluate._comparison import Comparison
from jaxflow.evaluate._compiled import CompiledModel
from jaxflow.evaluate._cuts import N_RANDOM, effect_of
from jaxflow.evaluate._decisions import Decision, default_decision, predicted_label
from jaxflow.evaluate._erasure import BINS
from jaxflow.evaluate._evidence import CompiledRuns, evidence_of, score_text, scores_of
from jaxflow.evaluate._metrics import CUT_METRICS, METRICS, measure
from jaxflow.evaluate._passes import CountedRuns
from jaxflow.evaluate._sanity import randomise
from jaxflow.explain import name_tokens
from jaxflow.models import Model, as_model

# Those two take longer than all others together.
DEFAULT_METHODS = tuple(name for name in METHODS if name not in ("shapley", "token_shapley"))
DEFAULT_BOOTSTRAP = Bootstrap()


def compare(
    model: Any,
    texts: Sequence[str],
    *,
    tokenizer: Any,
    methods: Sequence[Method | str] | Mapping[str, Method | str] | None = None,
    metrics: Sequence[str] | None = None,
    decision: Decision | None = None,
    hide: Hide = "mask",
    bins: Sequence[float] = BINS,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    variables: Mapping | None = None,
) -> Comparison:
    """Score the tokens of texts by several methods, and measure which scores predict what the model does.

    Of each text, the model's own decision is explained: the label that it predicts, or the token that it writes first. Special
    tokens are never hidden and never counted. Nor is the first token that a model with a decoder alone reads, special or not: it
    is an attention sink. Without it such a model makes no sense of the rest, so that every method which happens to rank it first
    would score alike, and random scores would be better than chance. All masks that all methods want go through the model
    together, in one compiled program.

    Args:
        model: what `capture` takes and `input_ids` and `attention_mask` go into: a classifier, a model that generates, or a
            sequence-to-sequence model. Modules have embeddings and parameters; of a function neither is known: choose methods and
            metrics without "gradient", "input_x_gradient", "integrated_gradients" and "sanity".
        texts: one or more, of 2 tokens or more.
        tokenizer: the model's.
        methods: methods or their names, `METHODS`; or a mapping from what they are to be called to them, your own methods among
            them. All but "shapley" and "token_shapley" by default.
        metrics: names from `METRICS`; all by default.
        decision: what is explained, where the default does not fit: a model without a head, several labels at once.
        hide: how tokens are hidden. "mask": by the attention mask, so that nothing attends to them. "replace": another token
            stands in their place, which stays filled, as a model of positions or of a sink may need; that of the tokenizer for
            masks, else for unknown words, padding, or the end of a text; look at which that is, since one that ends a text does
            more to a language model than hide a word. An id: that token does. Where tokens are replaced, a model needs no
            `attention_mask`.
        bins: shares of the tokens that count as best, as in `erase`.
        bootstrap: how intervals are found; its seed shuffles the parameters for "sanity", too.
        variables: those of an unbound linen module.

    Returns:
        `Comparison`.

    Raises:
        TypeError: a model or a method that is none.
        ValueError: no text; a method or metric that does not exist; a text that is empty, too long, or has fewer than 2 tokens
            that can be hidden; a model without a head, or without an `attention_mask` to hide tokens by; nothing to replace them.

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
    named, metrics = _methods(methods), _metrics(metrics)
    if isinstance(texts, str | bytes) or not len(texts):
        raise ValueError(f"texts is {texts!r}; expected one or more texts, in a list.")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{number}] is {type(text).__name__}, {text!r:.60}; expected a text, a str.")
    subject = as_model(model, variables=variables)
    replacement = replacement_of(subject, tokenizer, hide)
    read = _read(subject, tokenizer, texts, needs_mask=replacement is None)
    if decision is None:
        first = CompiledModel(subject, predicted_label())
        decision = default_decision(subject, first.predict(first.parameters, read[0].inputs))
    compiled = CompiledModel(subject, decision, replacement)
    cases = [decide(compiled, decision, each) for each in read]
    shuffled = _shuffled(subject, bootstrap.seed) if "sanity" in metrics else None
    values = np.zeros((len(texts), len(named), len(metrics)))
    passes = np.zeros((len(texts), len(named), 2))
    scores = []
    with progress_bar(len(texts), "texts", unit="text") as bar, no_progress():
        for row, case in enumerate(cases):
            runs = CompiledRuns(compiled, case, compiled.parameters)
            counted = [CountedRuns(runs, int(case.read.candidates.sum())) for _ in named]
            evidence = [evidence_of(runs, seed=0, counted=each) for each in counted]
            found = [as_attribution(m.attribute(its), its) for m, its in zip(named.values(), evidence, strict=True)]
            scored = [scores_of(each) for each in found]
            passes[row] = [each.passes for each in counted]
            randomised = None
            if shuffled is not None:
                others = evidence_of(CompiledRuns(compiled, case, shuffled), seed=1)
                randomised = [score_text(method, others)[0] for method in named.values()]
            rows = [scores for scores, _ in scored]
            measures = measure(runs, rows, randomised, metrics=metrics, bins=bins)
            for number, method in enumerate(named.values()):
                cut = _cut(method, found[number], evidence[number], runs, metrics)
                measured = {**measures[number], "saturation": scored[number][1], **cut}
                values[row, number] = [measured[name] for name in metrics]
            scores.append(np.stack(rows))
            bar.update()
    return Comparison(
        model=subject.name,
        texts=tuple(texts),
        tokens=tuple(each.tokens for each in read),
        decisions=tuple(_name(subject, tokenizer, case) for case in cases),
        methods=tuple(named),
        metrics=tuple(metrics),
        values=values,
        scores=tuple(scores),
        candidates=tuple(each.candidates for each in read),
        bootstrap=bootstrap,
        passes=passes,
    )


def _cut(
    method: Method, found: Attribution, evidence: Evidence, runs: CompiledRuns, metrics: Sequence[str]
) -> dict[str, float]:
    """Say by how much more the target falls without the arcs of a minimum cut than without others; NaN without a network.

    The cut is that of the candidate that scores best for the first output.
    """
    if not isinstance(method, Flow) or not CUT_METRICS & set(metrics):
        return dict.fromkeys(CUT_METRICS, float("nan"))
    known = runs.case.read.candidates
    best = int(np.where(known, found.scores[0, : len(known)], -np.inf).argmax())
    effect = effect_of(method, evidence, runs.without_arcs, source=best, n_random=N_RANDOM, seed=0)
    return {"cut_by_capacity": effect.over_equal_capacity, "cut_by_layer": effect.over_equal_layer}


def _methods(methods: Sequence[Method | str] | Mapping[str, Method | str] | None) -> dict[str, Method]:
    """Return methods by what they are called."""
    if isinstance(methods, Mapping):
        named = {name: as_method(method) for name, method in methods.items()}
    else:
        found = [as_method(method) for method in (DEFAULT_METHODS if methods is None else methods)]
        labels = [method_label(method) for method in found]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(
                f"Several methods are called {twice[0]!r}: pass a mapping from names of your own to methods."
            )
        named = dict(zip(labels, found, strict=True))
    if not named:
        raise ValueError(f"No method is to be compared; expected some of {', '.join(METHODS)}.")
    return named


def _metrics(metrics: Sequence[str] | None) -> list[str]:
    wanted = list(METRICS if metrics is None else metrics)
    for name in wanted:
        if name not in METRICS:
            raise ValueError(f"{name!r} is no metric; expected some of {', '.join(METRICS)}.")
    return wanted


def _read(model: Model, tokenizer: Any, texts: Sequence[str], *, needs_mask: bool) -> list[ReadText]:
    """Read every text; say which one cannot be read."""
    read = []
    for number, text in enumerate(texts, start=1):
        try:
            read.append(read_text(model, tokenizer, text, needs_mask=needs_mask))
        except ValueError as error:
            raise ValueError(f"Text {number} of {len(texts)}, {text!r}: {error}") from error
    return read


def _shuffled(model: Model, seed: int) -> Any:
    """Shuffle a model's parameters."""
    if not jax.tree.leaves(model.parameters):
        raise ValueError(
            f"{model.name} holds its parameters itself, so they cannot be shuffled: choose metrics without 'sanity', or pass the "
            "module that computes it."
        )
    return randomise(model.parameters, seed=seed)


def _name(model: Model, tokenizer: Any, case: Case) -> str:
    """Name what a model decided, where that is a label or a token."""
    number = np.ravel(np.asarray(case.decided[0] if isinstance(case.decided, tuple) else case.decided))
    if number.size != 1 or not np.issubdtype(number.dtype, np.integer):
        return "—"
    label, labels = int(number[0]), model.facts.labels
    if isinstance(case.decided, tuple) and (labels is None or label >= len(labels) or model.facts.n_words is not None):
        return name_tokens(tokenizer, number)[0].name
    return str(labels[label]) if labels is not None and label < len(labels) else str(label)
