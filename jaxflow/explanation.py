"""Explanation: an attribution with its words and conventions; explain, save, load."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import ArrayLike, Bool, Float

from jaxflow import storage
from jaxflow._version import __version__
from jaxflow.attribution import Attribution, Certificate, attention_flow
from jaxflow.baselines import raw_attention, rollout
from jaxflow.capacities import Capacities, Heads, joint_capacities
from jaxflow.capture import capture
from jaxflow.network import flow_network
from jaxflow.prediction import Prediction, read_predictions
from jaxflow.progress import progress_bar
from jaxflow.solve import cut_layers

Method = Literal["flow", "rollout", "raw"]
METHODS = ("flow", "rollout", "raw")


@dataclasses.dataclass(frozen=True)
class Explanation:
    """One example's attribution, with its words and with the conventions it was made by.

    Shows itself in a notebook and as text; `save` writes a page, JSON or NPZ, and `load` reads the latter two back.

    Attributes:
        tokens: the input's words, `[source]`.
        attribution: unbatched: `encoder [output, source]`.
        predictions: one for the sequence, one per token, or none for a model without a head.
        bottleneck: `[layer]`, share of the minimum cuts' capacity that lies in each layer, over the cuts from every
            token to the first explained output, each the one nearest its token; None for methods without a flow.
        model: the model's class or name.
        method: "flow", "rollout" or "raw".
        conventions: heads, residual and the other choices that the numbers depend on.
        version: the version of jaxflow that made it.
    """

    tokens: tuple[str, ...]
    attribution: Attribution
    predictions: tuple[Prediction, ...]
    bottleneck: Float[np.ndarray, " layer"] | None
    model: str
    method: Method
    conventions: dict[str, Any]
    version: str

    def prediction_of(self, row: int = 0) -> Prediction | None:
        """Return the prediction that belongs to the explained output in `row`: its own, or that of the sequence."""
        if not self.predictions or self.predictions[0].position is None:
            return self.predictions[0] if self.predictions else None
        return self.predictions[int(self.attribution.outputs[row])]

    def save(self, path: str | Path) -> None:
        """Write a page (`.html`), or all there is (`.json`, or `.npz`, which is smaller), by the ending of `path`.

        Raises:
            ValueError: another ending.
        """
        path = Path(path)
        if path.suffix == ".html":
            from jaxflow.views.html import to_page

            storage.write(path, to_page(self).encode())
        else:
            storage.write(path, storage.dump(dataclasses.asdict(self), path.suffix))

    def to_json(self) -> str:
        """Return what `save` writes to a `.json`."""
        return storage.dump(dataclasses.asdict(self), ".json").decode()

    def _repr_html_(self) -> str:
        from jaxflow.views.html import to_html

        return to_html(self)

    def __str__(self) -> str:
        from jaxflow.views.text import to_text

        return to_text(self)


def explain(
    model: Any,
    *args: Any,
    tokens: Sequence[str] | None = None,
    tokenizer: Any = None,
    labels: Sequence[str] | None = None,
    method: Method = "flow",
    outputs: int | Sequence[int] | None = None,
    heads: Heads = "mean",
    residual: float | None = None,
    encoder_mask: Bool[ArrayLike, "*batch source"] | None = None,
    normalise: bool = False,
    progress: bool = False,
    **inputs: Any,
) -> Explanation:
    """Run a model on one example, take its attention, and attribute its outputs to its input tokens.

    `capture`, `joint_capacities` and `attention_flow` in one call, with the words.

    Args:
        model: what `capture` takes.
        *args: the model's inputs; or one text, with `tokenizer`.
        tokens: the input's words, `[source]`; by default the tokenizer's, or positions.
        tokenizer: turns a text into inputs and names tokens; as `load_model` returns it.
        labels: names of the labels that a model's logits stand for; the model's own by default.
        method: "flow", "rollout" or "raw".
        outputs: positions to explain; None for all.
        heads: as in `joint_capacities`.
        residual: as in `joint_capacities`; 0.5 if None. Raw attention has none.
        encoder_mask: `[*batch, source]`, False where padded; the input `attention_mask` by default.
        normalise: divide each output's scores by their sum.
        progress: as in `attention_flow`.
        **inputs: the model's inputs by name, and `variables` of an unbound linen module.

    Returns:
        `Explanation`.

    Raises:
        ValueError: as `capture`, `joint_capacities` and `attention_flow`; a text that is empty or longer than the
            model reads; more than one example; words that do not fit.

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
    text = args[0] if args else None
    if isinstance(text, str):
        args, inputs = args[1:], {**encode(tokenizer, text), **inputs}
    if tokens is None and tokenizer is not None and "input_ids" in inputs:
        tokens = tokenizer.convert_ids_to_tokens(np.ravel(inputs["input_ids"]))
    model_outputs, attention = capture(model, *args, **inputs)
    if attention.encoder is None:
        raise ValueError("explain takes encoder-only models so far; this one has no encoder attention.")
    *batch, n_layers, _, n_tokens, _ = attention.encoder.shape
    if np.prod(batch) != 1:
        raise ValueError(
            f"explain takes one example; got a batch of shape {tuple(batch)}. Loop over its rows, or use attention_flow, which "
            "takes whole batches."
        )
    words = tuple(map(str, range(n_tokens) if tokens is None else tokens))
    if len(words) != n_tokens:
        raise ValueError(f"tokens holds {len(words)} words; the model's attention is over {n_tokens} tokens.")
    mask = encoder_mask if encoder_mask is not None else _padding_mask(model, args, inputs, (*batch, n_tokens))
    residual = (0.0 if method == "raw" else 0.5) if residual is None else residual
    capacities = joint_capacities(attention, heads=heads, residual=residual, encoder_mask=mask)
    capacities = jax.tree.map(lambda leaf: np.asarray(leaf)[(0,) * len(batch)], capacities)
    bottleneck = None
    if method == "flow":
        attribution = attention_flow(capacities, outputs=outputs, normalise=normalise, progress=progress)
        bottleneck = _bottleneck(capacities, int(attribution.outputs[0]), progress)
    else:
        attribute = rollout if method == "rollout" else raw_attention
        attribution = jax.device_get(attribute(capacities, outputs=outputs, normalise=normalise))
    return Explanation(
        tokens=words,
        attribution=attribution,
        predictions=read_predictions(model, model_outputs, batch=tuple(batch), labels=labels, tokenizer=tokenizer),
        bottleneck=bottleneck,
        model=type(model).__name__,
        method=method,
        conventions={"heads": heads, "residual": residual, "normalise": normalise, "n_layers": n_layers},
        version=__version__,
    )


def load(path: str | Path) -> Explanation:
    """Read an explanation back from the `.json` or `.npz` that `Explanation.save` wrote, exactly as it was.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged, no explanation, of another format version, or holds Python objects.
    """
    record = storage.load(Path(path))
    try:
        attribution = dict(record.pop("attribution"))
        certificate = attribution.pop("certificate")
        return Explanation(
            attribution=Attribution(
                certificate=None if certificate is None else Certificate(**certificate), **attribution
            ),
            predictions=tuple(Prediction(**prediction) for prediction in record.pop("predictions")),
            **record,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged: a part of the explanation is missing or does not fit ({error})."
        ) from error


def encode(tokenizer: Any, text: str) -> dict[str, np.ndarray]:
    """Turn one text into a model's inputs, `[1, token]` each.

    Raises:
        ValueError: no tokenizer, an empty text, or one longer than the tokenizer says the model reads; never cut.
    """
    if tokenizer is None:
        raise ValueError(
            f"A text is given ({text[:40]!r}), but no tokenizer: pass tokenizer=, as load_model returns it."
        )
    if not text.strip():
        raise ValueError("The text is empty: there is no token to explain.")
    inputs = {name: np.asarray(values) for name, values in tokenizer([text]).items()}
    n_tokens, limit = inputs["input_ids"].shape[-1], tokenizer.model_max_length
    if n_tokens > limit:
        raise ValueError(
            f"The text is {n_tokens} tokens long; the model reads {limit} at most. It is not cut, since that would explain "
            "another text: shorten or split it."
        )
    return inputs


def _padding_mask(
    model: Any, args: tuple[Any, ...], inputs: dict[str, Any], shape: tuple[int, ...]
) -> Bool[np.ndarray, "*batch source"] | None:
    """Find the `attention_mask` among a model's inputs, however it was passed."""
    call = inspect.signature(model.__call__)
    names = {name: value for name, value in inputs.items() if name in call.parameters}
    mask = call.bind_partial(*args, **names).arguments.get("attention_mask")
    if mask is None:
        return None
    mask = np.asarray(mask)
    if mask.shape != shape:
        raise ValueError(
            f"attention_mask has shape {mask.shape}, which does not say for each of the {shape[-1]} tokens whether it is "
            f"padding: pass encoder_mask of shape {shape}."
        )
    return mask.astype(bool)


def _bottleneck(capacities: Capacities, output: int, progress: bool) -> Float[np.ndarray, " layer"]:
    network = flow_network(Capacities(encoder=capacities.encoder))
    players = (
        network.encoder_players if capacities.encoder_mask is None else network.encoder_players[capacities.encoder_mask]
    )
    with progress_bar(len(players), "min-cut", shown=progress) as bar:
        capacity = cut_layers(network, players, network.outputs[output], on_solved=bar.update).sum(0)
    return capacity / max(capacity.sum(), np.finfo(np.float64).tiny)
