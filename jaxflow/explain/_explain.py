"""explain: a model and an example in, their Explanation out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np

from jaxflow._attention import on_host
from jaxflow._progress import progress_bar
from jaxflow._version import __version__
from jaxflow.attribute import (
    AttributesEach,
    Attribution,
    ContributionScores,
    Evidence,
    Method,
    as_attribution,
    as_method,
    method_name,
    method_options,
    needs_target,
)
from jaxflow.capture import LabelTarget, evaluate_target
from jaxflow.explain._chat import is_chat, turn_spans
from jaxflow.explain._explanation import Explanation
from jaxflow.explain._generate import Generate, go_on, written_positions
from jaxflow.explain._image import as_read
from jaxflow.explain._picture import picture_of
from jaxflow.explain._positions import count_positions
from jaxflow.explain._prediction import Prediction, read_predictions
from jaxflow.explain._reading import Names, Reading, name, read
from jaxflow.explain._runs import ModelRuns, run_together
from jaxflow.explain._targets import NO_TARGETS, PREDICTED, TargetChoice, Targets, choose_targets
from jaxflow.explain._token_names import Kind, TokenName, join_names
from jaxflow.explain._words import Span, Unit, cover, short, spans_by_side
from jaxflow.models import Model, as_model, check_token_ids
from jaxflow.network import Positions, Spans, check_positions, span_masks

T = TypeVar("T")


def explain(
    model: Any,
    inputs: Any,
    method: Method | str | None = None,
    *,
    tokenizer: Any = None,
    target: TargetChoice | None = None,
    generate: Generate | None = None,
    positions: Positions | str | Sequence[str] | None = None,
    spans: Unit | Literal["turns"] | Sequence[Span] | Mapping[str, Sequence[Span]] | None = None,
    joint: bool = False,
    variables: Mapping | None = None,
) -> Any:
    """Run a model on one example, and attribute its outputs to its input tokens.

    It reads the inputs, captures the model's attention, attributes, and puts words to the numbers. By default it answers two
    questions: what each token *could* send to an output, by attention flow, and what it *did* give to what the model chose, by
    contributions.

    Args:
        model: what `capture` takes; or `as_model(...)` of it, which says more: roles of stacks, labels, a sown name.
        inputs: a text (with a tokenizer), a chat (a list of messages with "role" and "content"; with a tokenizer that has a chat
            template), a mapping of the model's own inputs by name, an array, or a tuple of them by position: one example. An
            `Example` says more of them: names of tokens, padding, words. A list of these gives a list, and is faster than one
            after the other: texts of similar length go through the model together.
        method: how to score, such as `AttentionFlow(residual=0.3)` or `Rollout()`; or a name, for the default options. None:
            attention flow, and beside it `Explanation.contributions` for a model that predicts something.
        tokenizer: turns a text into inputs and names tokens; as `load_model` returns it.
        target: what is explained, for methods that depend on it (contributions, those by gradients, leave-one-out): a label or
            token, by name or number, whose logit it is; a pair of them, `("plural", "singular")`, for the logit of the first less
            that of the second, where None is what the model predicts or wrote; a function of the model's outputs, as `logit`
            makes them; or one for each position. By default what the model predicts or wrote. Of tokens that it wrote, also a
            function such as `log_probability`, which makes the target of each token.
        generate: let the model go on from the inputs first, and explain each token that it writes. None: explain one pass.
        positions: outputs to explain, by number or by the name of their token, such as "[MASK]"; negative ones count from the
            end; None for all. With `generate`, positions p whose next token, at p + 1, was written.
        spans: inputs that count as one, by the joint flow of their tokens, or by the sum of scores that are shares: "words",
            "lines" or "paragraphs" of the text, or "turns" of a chat (the tokenizer must tell offsets); or `(start, stop)` or
            `(start, stop, name)` each, in tokens of the encoder, or of a decoder without encoder. A mapping says it for each
            stack, `{"encoder": ..., "decoder": ...}`. Tokens in none stay inputs of their own.
        joint: explain the positions as one set: what can flow to any of them.
        variables: those of an unbound linen module.

    Returns:
        `Explanation`; a list of them for a list.

    Raises:
        ValueError: as `capture`, `joint_capacities` and the method; a text that is empty or longer than the model reads; more
            than one example; names that do not fit; spans that overlap or leave the text; a target for a method that has none.
        TypeError: a model, inputs or a method that are none.

    Example:
        >>> from jaxflow import explain, load_model
        >>> model, tokenizer = load_model("agreement")
        >>> explanation = explain(model, "the keys to the cabinet", tokenizer=tokenizer, positions=0)
        >>> explanation.tokens, explanation.predictions[0].label
        (('[CLS]', 'the', 'keys', 'to', 'the', 'cabinet'), 'plural')
    """
    subject, how = _as_it_is(as_model(model, variables=variables)), as_method("flow" if method is None else method)
    if target is not None and method is not None and not needs_target(how):
        raise ValueError(
            f"target is given, but the method {method_name(how)!r} is the same for every target: leave it out, or use one that "
            "depends on it, such as AttentionFlow(weighting='attention_gradient')."
        )
    prepare = functools.partial(
        _prepare, subject, tokenizer=tokenizer, generate=generate, positions=positions, spans=spans
    )
    gather = functools.partial(
        _gather, subject, how, target=target, spans=spans, joint=joint, is_default=method is None
    )
    if not isinstance(inputs, list) or is_chat(inputs):
        evidence, finish = gather(*prepare(inputs))
        return finish(as_attribution(how.attribute(evidence), evidence))
    prepared = [_of_many(prepare, number, each) for number, each in enumerate(inputs)]
    run_together([runs for _, runs, _ in prepared], getattr(how, "heads", None))
    gathered = [_of_many(gather, number, *each) for number, each in enumerate(prepared)]
    found = []
    with progress_bar(len(gathered), "explain", unit="example") as bar:
        attributions = _attribute_each(how, [evidence for evidence, _ in gathered])
        for number, ((_, finish), attribution) in enumerate(zip(gathered, attributions, strict=True)):
            found.append(_of_many(finish, number, attribution))
            bar.update()
    return found


def _attribute_each(how: Method, evidences: Sequence[Evidence]) -> Iterable[Attribution]:
    """Attribute examples: at once, where the method can do so."""
    if isinstance(how, AttributesEach):
        try:
            found = how.attribute_each(evidences)
            return [as_attribution(each, evidence) for each, evidence in zip(found, evidences, strict=True)]
        except ValueError:  # one by one, the error says which example it is
            pass
    return (
        _of_many(lambda each: as_attribution(how.attribute(each), each), number, evidence)
        for number, evidence in enumerate(evidences)
    )


def _as_it_is(model: Model) -> Model:
    """Return a model that holds the arrays that it has now, also if the user's object is trained on."""
    split = model.split() if model.is_live else None
    return model if split is None else model.merge(split[1])


def _of_many(do: Callable[..., T], number: int, *arguments: Any) -> T:
    """Do something for one example of many, and say which it is if that fails."""
    try:
        return do(*arguments)
    except (ValueError, TypeError) as error:
        raise type(error)(f"inputs[{number}]: {error}") from error


def _prepare(
    model: Model,
    inputs: Any,
    *,
    tokenizer: Any,
    generate: Generate | None,
    positions: Any,
    spans: Any,
) -> tuple[Reading, ModelRuns, Any]:
    """Read one example, and let the model go on from it if that is asked for; return also which positions are explained."""
    reading = read(inputs, tokenizer)
    if reading.text is not None:  # a tokenizer may return more than its model takes, such as token_type_ids
        taken = model.arguments((), reading.kwargs)
        own = {name: value for name, value in reading.kwargs.items() if name in taken}
        reading = dataclasses.replace(reading, kwargs=own if "input_ids" in own else reading.kwargs)
    check_token_ids(model, reading.args, reading.kwargs)
    if generate is not None:
        unit: Any = spans if isinstance(spans, str) and spans != "turns" else None
        reading = go_on(model, reading, generate, tokenizer=reading.tokenizer, spans=unit)
        positions = written_positions(reading, positions, reading.tokenizer)
    return reading, ModelRuns(model, reading.args, reading.kwargs), positions


def _gather(
    model: Model,
    how: Method,
    reading: Reading,
    runs: ModelRuns,
    positions: Any,
    *,
    target: TargetChoice | None,
    spans: Any,
    joint: bool,
    is_default: bool,
) -> tuple[Evidence, Callable[[Attribution], Explanation]]:
    """Run the model on one example that was read; return the evidence, and what puts words to what a method makes of it."""
    tokenizer = reading.tokenizer
    outputs, attention = runs.forward(getattr(how, "heads", None))
    batch = _check_one_example(attention)
    names = name(model, reading, attention, tokenizer)
    grouped = _group(names, reading, spans, tokenizer)
    read_at = _output_tokens(names)
    chosen = count_positions(positions, [token.name for token in read_at], range(len(read_at)))
    explained = check_positions(chosen, np.ones(len(read_at), bool)).tolist()
    choose = functools.partial(
        choose_targets, target, model=model, reading=reading, tokenizer=tokenizer, positions=explained, joint=joint,
        outputs=outputs,
    )  # fmt: skip
    targets = choose() if needs_target(how) else NO_TARGETS
    if len(targets.functions) not in (1, len(explained)):
        raise ValueError(
            f"{len(targets.functions)} targets are given for {len(explained)} outputs; expected one for each."
        )
    evidence = Evidence(
        runs.with_targets(targets.functions),
        tokens={side: tuple(token.name for token in tokens) for side, tokens in names.tokens.items()},
        positions=explained,
        joint=joint,
        masks={
            side: None if mask is None else np.asarray(mask)[(0,) * len(batch)] for side, mask in names.masks.items()
        },
        spans=_masks(grouped, names, explained if joint else None),
        n_prompt=reading.n_prompt,
    )
    predictions = read_predictions(
        model,
        outputs,
        batch=batch,
        tokenizer=tokenizer,
        produced=None if reading.example.produced is None else np.asarray(reading.example.produced),
    )
    explanation = functools.partial(
        _explanation, model, reading=reading, tokenizer=tokenizer, names=names, grouped=grouped, predictions=predictions,
        has_spans=spans is not None, mixing=attention.mixing,
    )  # fmt: skip
    if not is_default or not predictions:
        return evidence, lambda attribution: explanation(how, evidence, attribution, targets)
    if target is not None:
        for function in choose().functions:  # what is wrong with it is said now
            if not isinstance(function, LabelTarget):
                evaluate_target(function, outputs, batch)

    def contributions() -> Explanation | str:
        try:
            own = choose()
            given = evidence.with_runs(runs.with_targets(own.functions))
            return explanation(ContributionScores(), given, ContributionScores().attribute(given), own)
        except ValueError as error:
            return str(error)

    return evidence, lambda found: explanation(how, evidence, found, targets, contributions=contributions)


def _explanation(
    model: Model,
    how: Method,
    evidence: Evidence,
    attribution: Attribution,
    targets: Targets,
    *,
    reading: Reading,
    tokenizer: Any,
    names: Names,
    grouped: Mapping[str, Sequence[tuple[int, int, str]]],
    predictions: tuple[Prediction, ...],
    has_spans: bool,
    mixing: tuple[str, ...],
    contributions: Callable[[], Explanation | str] | None = None,
) -> Explanation:
    """Put words to what a method found."""
    conventions = {**method_options(how), "target": _target_name(targets, predictions) if needs_target(how) else None}
    inputs = {side: _input_names(spans, names.tokens[side], are_spans=has_spans) for side, spans in grouped.items()}
    return Explanation(
        encoder_tokens=tuple(token.name for token in inputs["encoder"]),
        decoder_tokens=tuple(token.name for token in inputs["decoder"]),
        output_tokens=_output_names(names, evidence, reading),
        attribution=on_host(attribution),
        predictions=predictions,
        model=model.name,
        method=method_name(how),
        conventions={
            **conventions,
            "n_prompt": evidence.n_prompt if conventions.get("feedback") == "unrolled" else None,
            "joint": list(evidence.positions) if evidence.joint else None,
        },
        version=__version__,
        picture=picture_of(
            how,
            evidence,
            attribution,
            names=inputs,
            words=None if has_spans else (reading.example.words, tokenizer, reading.text),
            contributions=contributions,
        ),
        patches=names.patches,
        image=None if names.patches is None else as_read(_pixels(model, reading)),
        notes=_notes(reading, tokenizer),
        token_kinds=tuple(token.kind for side in ("encoder", "decoder") for token in inputs[side]),
        mixing=mixing,
    )


def _check_one_example(attention: Any) -> tuple[int, ...]:
    """Return the shape of the batch axes, each of length 1."""
    stack = attention.decoder if attention.decoder is not None else attention.encoder
    batch = stack.shape[:-4]
    if np.prod(batch) != 1:
        raise ValueError(
            f"explain takes one example; got a batch of shape {tuple(batch)}. Pass a list of examples, or use attention_flow, "
            "which takes whole batches."
        )
    return tuple(batch)


def _output_tokens(names: Names) -> tuple[TokenName, ...]:
    return names.tokens["decoder"] or names.tokens["encoder"]


def _input_names(
    spans: Sequence[tuple[int, int, str]], tokens: Sequence[TokenName], *, are_spans: bool
) -> list[TokenName]:
    """Name inputs, each a token or a span of them; a span is a word of its own."""

    def kind(start: int, stop: int) -> Kind:
        own = tokens[start].kind if stop - start == 1 else "word"
        return "word" if are_spans and own == "part" else own

    return [TokenName(name, kind(start, stop)) for start, stop, name in spans]


def _group(names: Names, reading: Reading, spans: Any, tokenizer: Any) -> dict[str, list[tuple[int, int, str]]]:
    """Return the inputs of each stack, `(start, stop, name)` in its tokens: spans, and tokens that are in none."""
    sides = [side for side in ("encoder", "decoder") if names.tokens[side]]
    if isinstance(spans, str) and spans == "turns":
        if reading.messages is None or reading.text is None:
            raise ValueError("spans='turns' are of a chat; expected inputs that are a list of messages.")
        spans = turn_spans(tokenizer, reading.text, reading.messages)
    chosen = spans_by_side(spans, sides, tokenizer=tokenizer, text=reading.text, written=reading.written_spans)
    return {side: cover(chosen.get(side, ()), names.tokens[side]) for side in ("encoder", "decoder")}


def _masks(
    grouped: Mapping[str, Sequence[tuple[int, int, str]]],
    names: Names,
    together: Sequence[int] | None,
) -> Spans:
    """Return masks of the spans of each stack that has some, and of the one set of positions, if they are explained as one."""
    masks: dict[str, Any] = {}
    for side, spans in grouped.items():
        tokens = names.tokens[side]
        if any(stop - start > 1 for start, stop, _ in spans) or len(spans) != len(tokens):
            masks[side] = span_masks([(start, stop) for start, stop, _ in spans], len(tokens))
    if together is not None:
        masks["outputs"] = np.isin(np.arange(len(_output_tokens(names))), together)[None]
    return Spans(**masks)


def _output_names(names: Names, evidence: Evidence, reading: Reading) -> tuple[str, ...]:
    """Name positions; one set of them by what a decoder wrote there, or by what was read there."""
    tokens = _output_tokens(names)
    if not evidence.joint:
        return tuple(token.name for token in tokens)
    step = 0 if reading.example.produced is None else 1
    return (short(join_names([tokens[position + step] for position in evidence.positions])),)


def _target_name(targets: Targets, predictions: Sequence[Prediction]) -> str | int:
    """Name what is explained; by default what the model predicts."""
    name = PREDICTED if targets.name is None else targets.name
    if isinstance(name, str) and predictions and predictions[0].position is None:
        return name.replace(PREDICTED, predictions[0].label)
    return name


def _pixels(model: Model, reading: Reading) -> Any:
    return model.arguments(reading.args, reading.kwargs).get("pixel_values")


def _notes(reading: Reading, tokenizer: Any) -> tuple[str, ...]:
    """Ask the checker of a model that comes with one, whether what was written is right."""
    if reading.sequence is None or not hasattr(tokenizer, "check"):
        return ()
    written = tokenizer.convert_ids_to_tokens(reading.sequence[reading.n_prompt :])
    return tuple(tokenizer.check(reading.text, written))
