"""explain: a model and an example in, their Explanation out: capture, attribution and the words in one call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Int

from jaxflow._version import __version__
from jaxflow.attribute import (
    Attribution,
    add_up,
    attention_flow,
    attribute_each,
    attribution_scores,
    name_of,
    raw_attention,
    rollout,
    sum_of,
)
from jaxflow.attribute.shapley import shapley_flow
from jaxflow.capture import Target, arguments, model_name, pull_gradients
from jaxflow.explain._bottleneck import find_bottleneck
from jaxflow.explain._explanation import Explanation, Method
from jaxflow.explain._flow_graph import FlowGraph
from jaxflow.explain._image import as_read
from jaxflow.explain._inputs import encode, name_patches, name_tokens, padding_mask, patch_grid, reads
from jaxflow.explain._prediction import label_target, read_predictions
from jaxflow.explain._word_scores import score_words
from jaxflow.explain._words import Span, Unit, cover, known_words, short, spans_by_side
from jaxflow.network import (
    Capacities,
    DecoderLayer,
    Feedback,
    Heads,
    Weighting,
    capture_fused,
    check_outputs,
    flow_network,
    fused_capacities,
    joint_capacities,
    select,
    span_masks,
)
from jaxflow.solve import Solver

METHODS = ("flow", "shapley", "rollout", "raw")
# Defaults of what only some methods take.
STRUCTURE = {"decoder_layer": "sublayers", "feedback": "prefix", "n_prompt": None}
SOLVING = {"solver": "certified", "tolerance": 0.0, "budget_seconds": None, "correction": None}


def explain(
    model: Any,
    *args: Any,
    tokens: Sequence[str] | None = None,
    decoder_tokens: Sequence[str] | None = None,
    tokenizer: Any = None,
    labels: Sequence[str] | None = None,
    produced: Int[np.ndarray, " target"] | None = None,
    method: Method = "flow",
    outputs: int | Sequence[int] | None = None,
    together: bool = False,
    spans: Unit | Sequence[Span] | None = None,
    decoder_spans: Sequence[Span] | None = None,
    heads: Heads = "mean",
    residual: float | None = None,
    weighting: Weighting = "attention",
    target: Target | str | int | Sequence[Target] | None = None,
    encoder_mask: Bool[ArrayLike, "*batch source"] | None = None,
    decoder_mask: Bool[ArrayLike, "*batch target"] | None = None,
    decoder_layer: DecoderLayer = "sublayers",
    feedback: Feedback = "prefix",
    n_prompt: int | None = None,
    correction: Literal["decay", "uniform"] | None = None,
    normalise: bool = False,
    solver: Solver = "certified",
    tolerance: float = 0.0,
    budget_seconds: float | None = None,
    flow_graph: bool | None = None,
    words: Sequence[Span] | None = None,
    progress: bool = False,
    **inputs: Any,
) -> Explanation:
    """Run a model on one example, take its attention, and attribute its outputs to its input tokens.

    `capture_capacities` and `attention_flow` in one call, with the words.

    Args:
        model: what `capture` takes.
        *args: the model's inputs; or one text, with `tokenizer`.
        tokens: the input's words: the encoder's, or those of a decoder without encoder; by default the tokenizer's,
            row and column of the patches of an image, or positions.
        decoder_tokens: the decoder's words, likewise.
        tokenizer: turns a text into inputs and names tokens; as `load_model` returns it.
        labels: names of the labels that a model's logits stand for; the model's own by default.
        produced: `[target]`, the token that each position of a decoder produced; the likeliest by default.
        method: "flow", "shapley" (`shapley_flow`), "rollout" or "raw".
        outputs: positions to explain; None for all.
        together: explain these outputs as one set: what can flow to any of them.
        spans: inputs that count as one, by the joint flow of their tokens: "words", "lines" or "paragraphs" of the text
            (the tokenizer must tell offsets); or `(start, stop)` or `(start, stop, name)` each, counted in tokens of the
            encoder, or of a decoder without encoder. Tokens in none stay inputs of their own. Rollout and raw
            attention, being shares, are added up.
        decoder_spans: likewise in the tokens of a decoder that has an encoder.
        heads: as in `joint_capacities`.
        residual: as in `joint_capacities`; 0.5 if None. Raw attention has none.
        weighting: as in `joint_capacities`; "gradient" and "attention_gradient" explain `target`.
        target: a function as in `attention_gradients`; or a label or token, by name or number, whose logit it is. Of a model
            with logits for each position, at the one position in `outputs`. Or a function for each of `outputs`, which is
            attributed by its own: a backward pass for each (of outputs together, one for their sum).
        encoder_mask: `[*batch, source]`, False where padded; the input `attention_mask` by default.
        decoder_mask: `[*batch, target]`, likewise; the input `decoder_attention_mask` by default.
        decoder_layer: as in `attention_flow`, like the next three; for the methods "flow" and "shapley" alone.
        feedback: "prefix" or "unrolled".
        n_prompt: how many of the decoder's first tokens were not generated.
        correction: None, "decay" or "uniform"; for the method "flow" alone.
        normalise: divide each output's scores by their sum.
        solver: as in `max_flow`.
        tolerance: as in `attention_flow`.
        budget_seconds: as in `attention_flow`; minimum cuts and flow graphs are left out when it runs out.
        flow_graph: whether to find how the flow runs, which the page draws; for the method "flow" alone. True: to each explained
            output. None: to each where that is cheap (outputs x arcs of the network at most 2^19), else to the first where one
            is, else to none. Costs about 4 us per output and arc.
        words: spans that are words, in tokens as `spans`, which a page shows beside the tokens, each by its joint flow; by
            default those of the text. Where tokens are inputs; not for Shapley values, nor for corrected or normalised flow.
        progress: as in `attention_flow`.
        **inputs: the model's inputs by name, and `variables` of an unbound linen module.

    Returns:
        `Explanation`.

    Raises:
        ValueError: as `capture`, `joint_capacities` and `attention_flow`; a text that is empty or longer than the
            model reads; more than one example; words that do not fit; spans that overlap or leave the text; a
            tokenizer without offsets where words are asked for.

    Example:
        >>> from jaxflow import explain, load_model
        >>> model, tokenizer = load_model("agreement")
        >>> explanation = explain(model, "the keys to the cabinet", tokenizer=tokenizer, outputs=0)
        >>> explanation.tokens, explanation.predictions[0].label
        (('[CLS]', 'the', 'keys', 'to', 'the', 'cabinet'), 'plural')
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(map(repr, METHODS))}.")
    if method == "raw" and residual is not None:
        raise ValueError(
            "residual is given, but raw attention has no residual stream: leave it out, or use rollout or flow."
        )
    structure: dict[str, Any] = {"decoder_layer": decoder_layer, "feedback": feedback, "n_prompt": n_prompt}
    solving: dict[str, Any] = {"solver": solver, "tolerance": tolerance, "budget_seconds": budget_seconds}
    if method != "flow" and {**solving, "correction": correction} != SOLVING:
        raise ValueError(f"{', '.join(SOLVING)} are for method='flow'; method is {method!r}.")
    if method not in ("flow", "shapley") and structure != STRUCTURE:
        raise ValueError(f"{', '.join(STRUCTURE)} are for the methods 'flow' and 'shapley'; method is {method!r}.")
    if flow_graph and method != "flow":
        raise ValueError(f"flow_graph is for method='flow'; method is {method!r}, whose numbers are no flow.")
    if (target is None) != (weighting == "attention"):
        raise ValueError(
            f"weighting is {weighting!r} and target is {target!r}; expected a target for the weightings 'gradient' and "
            "'attention_gradient', and none for 'attention', which is the same for all."
        )
    text = args[0] if args else None
    if isinstance(text, str):
        args, inputs = args[1:], {**encode(tokenizer, text), **inputs}
    said = {name: inputs[name] for name in ("variables", "sown", "roles") if name in inputs}
    read = {name: value for name, value in inputs.items() if name not in said}
    pull: Any = None
    if target is None:
        model_outputs, attention = capture_fused(model, args, read, heads=heads, **said)
    else:
        if isinstance(target, str | int):
            position = outputs if isinstance(outputs, int) else None
            targets = [label_target(target, model=model, labels=labels, tokenizer=tokenizer, position=position)]
        else:
            targets = [target] if callable(target) else [sum_of(target)] if together else list(target)
        model_outputs, attention, pull = pull_gradients(model, args, read, targets=targets, **said)
    stack = attention.decoder if attention.decoder is not None else attention.encoder
    assert stack is not None  # or capture would have raised
    batch = stack.shape[:-4]
    if np.prod(batch) != 1:
        raise ValueError(
            f"explain takes one example; got a batch of shape {tuple(batch)}. Loop over its rows, or use attention_flow, which "
            "takes whole batches."
        )
    given_inputs = arguments(model, args, inputs)
    tokens_of: dict[str, tuple[str, ...]] = {"encoder": (), "decoder": ()}
    masks = {"encoder": encoder_mask, "decoder": decoder_mask}
    given = {"encoder": tokens, "decoder": decoder_tokens}
    sides = reads(attention)
    if "encoder" not in sides and decoder_tokens is None:
        given["decoder"] = tokens
    for side, (n_tokens, ids_name, mask_name) in sides.items():
        tokens_of[side] = name_tokens(given[side], tokenizer, given_inputs.get(ids_name), n_tokens)
        if masks[side] is None:
            masks[side] = padding_mask(given_inputs.get(mask_name), mask_name, side, (*batch, n_tokens))
    patches = patch_grid(model, len(tokens_of["encoder"])) if tokenizer is tokens is spans is None else None
    if patches is not None:
        tokens_of["encoder"] = name_patches(patches, len(tokens_of["encoder"]))
    names, spans_of = dict(tokens_of), dict[str, Any]()
    for side, grouped in spans_by_side(spans, decoder_spans, sides, tokenizer, text).items():
        covering = cover(grouped, tokens_of[side])
        names[side] = tuple(name for _, _, name in covering)
        spans_of[f"{side}_spans"] = span_masks([(start, stop) for start, stop, _ in covering], len(tokens_of[side]))
    output_tokens = tokens_of["decoder"] or tokens_of["encoder"]
    joined = None
    if together:
        joined = check_outputs(outputs, np.ones(len(output_tokens), bool)).tolist()
        spans_of["output_spans"] = np.isin(np.arange(len(output_tokens)), joined)[None]
        step = 0 if produced is None else 1  # what a decoder read, or what it wrote after that
        output_tokens = (short(" ".join(output_tokens[position + step] for position in joined)),)
        outputs = None
    residual = (0.0 if method == "raw" else 0.5) if residual is None else residual
    reducing: dict[str, Any] = {
        "heads": heads, "residual": residual, "encoder_mask": masks["encoder"], "decoder_mask": masks["decoder"],
    }  # fmt: skip

    def capacities_of(row: int = 0) -> Capacities:
        if pull is None:
            capacities = fused_capacities(attention, **reducing)
        else:
            capacities = joint_capacities(attention, weighting=weighting, gradients=pull(row), **reducing)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[(0,) * len(batch)], capacities)

    if words is None:
        words = known_words(tokenizer, text)
    is_plain = correction is None and not normalise and budget_seconds is None
    spelling: dict[str, Sequence[Span]] = {}
    if words and spans is None and decoder_spans is None and (is_plain if method == "flow" else method != "shapley"):
        spelling = {"encoder" if "encoder" in sides else "decoder": words}
    spelt: list[tuple[tuple[tuple[int, int, str], ...], Float[np.ndarray, "output word"]]] = []

    def attribute(capacities: Capacities, outputs: int | Sequence[int] | None, progress: bool) -> Attribution:
        chosen = {"outputs": outputs, **spans_of}
        if method == "flow":
            asked = {**chosen, **structure, **solving, "correction": correction, "normalise": normalise}
            attribution = attention_flow(capacities, progress=progress, **asked)
        elif method == "shapley":
            attribution = shapley_flow(capacities, normalise=normalise, progress=progress, **chosen, **structure)
        else:
            find = rollout if method == "rollout" else raw_attention
            attribution = add_up(jax.device_get(find(capacities, outputs=outputs)), normalise=normalise, **spans_of)
        if spelling:
            asked = {**chosen, **structure, "solver": solver, "tolerance": tolerance}
            spelt.append(score_words(spelling, names, attribution, capacities, method=method, **asked))
        return attribution

    capacities = capacities_of()
    if pull is None or len(targets) == 1:
        attribution = attribute(capacities, outputs, progress)
    else:
        positions = check_outputs(outputs, np.ones(len(output_tokens), bool)).tolist()
        if len(positions) != len(targets):
            raise ValueError(f"{len(targets)} targets are given for {len(positions)} outputs; expected one for each.")
        deadline = None if budget_seconds is None else time.monotonic() + budget_seconds

        def attribute_one(row: int, output: int) -> Attribution:
            if deadline is not None:
                solving["budget_seconds"] = max(deadline - time.monotonic(), 0.0)
            return attribute(capacities_of(row) if row else capacities, [output], False)

        attribution = attribute_each(positions, attribute_one, progress=progress)
    bottleneck: Float[np.ndarray, " layer"] | None = None
    graphs: tuple[FlowGraph, ...] = ()
    if method == "flow" and not np.isnan(attribution_scores(attribution)).any():
        networks = [(capacities, outputs)]
        if pull is not None and len(targets) > 1:  # each has a network of its own: unasked, the first alone is drawn
            rows = positions if flow_graph else positions[:1]
            networks = [(capacities_of(row), [output]) for row, output in enumerate(rows)]
        found = [
            find_bottleneck(
                flow_network(each, **structure),
                select(each, outputs=some, **spans_of, n_prompt=None if n_prompt is None else np.asarray(n_prompt)),
                graphs=flow_graph,
                solver=solver,
                progress=progress,
            )
            for each, some in networks
        ]
        graphs, bottleneck = tuple(graph for some, _ in found for graph in some), found[0][1]
    return Explanation(
        encoder_tokens=names["encoder"],
        decoder_tokens=names["decoder"],
        output_tokens=output_tokens,
        attribution=attribution,
        predictions=read_predictions(
            model, model_outputs, batch=tuple(batch), labels=labels, tokenizer=tokenizer, produced=produced
        ),
        bottleneck=bottleneck,
        model=model_name(model),
        method=method,
        conventions={
            "heads": heads,
            "residual": residual,
            "weighting": weighting,
            "target": target if target is None or isinstance(target, str | int) else name_of(target),
            "decoder_layer": decoder_layer,
            "feedback": feedback,
            "n_prompt": n_prompt,
            "correction": correction,
            "normalise": normalise,
            "solver": solver,
            "tolerance": tolerance,
            "together": joined,
        },
        version=__version__,
        flow_graphs=graphs,
        words=spelt[0][0] if spelt else (),
        word_scores=np.concatenate([rows for _, rows in spelt]) if spelt else None,
        patches=patches,
        image=None if patches is None else as_read(given_inputs.get("pixel_values")),
    )
