"""Explanation: an attribution with its words and conventions; save, load."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from jaxflow import _display
from jaxflow.attribute import Attribution, Certificate, attribution_scores
from jaxflow.explain import _storage as storage
from jaxflow.explain._flow_graph import FlowGraph
from jaxflow.explain._prediction import Prediction

Method = Literal["flow", "shapley", "rollout", "raw"]


@dataclasses.dataclass(frozen=True)
class Explanation:
    """One example's attribution, with its words and with the conventions it was made by.

    Shows itself in a notebook and as text; `save` writes a page, JSON or NPZ, and `load` reads the latter two back.

    Attributes:
        encoder_tokens: names of the encoder's inputs, tokens or spans of them, `[source]`; empty without encoder.
        decoder_tokens: names of the decoder's inputs, likewise, `[target]`; empty without decoder.
        output_tokens: names of the positions that can be explained, of the decoder if there is one; of the one set of
            outputs, where they are explained together.
        attribution: unbatched: `encoder [output, source]`, `decoder [output, target]`.
        predictions: one for the sequence, one per position, or none for a model without a head. What a position of a
            decoder predicts is the token after it.
        bottleneck: `[layer]`, share of the minimum cuts' capacity that lies in each layer (the encoder's, then the
            decoder's), over the cuts from every token to the first explained output, each the one nearest its token;
            None for other methods, and where time ran out.
        model: the model's class or name.
        method: "flow", "shapley", "rollout" or "raw".
        conventions: heads, residual and the other choices that the numbers depend on.
        version: the version of jaxflow that made it.
        flow_graphs: how the joint flow of all inputs runs to an output, for a picture: one for each explained output, or for
            the first alone, or none.
        words: the words of the text that inputs are tokens of, in the order of `tokens`: `(start, stop, word)`, and inputs of no
            word alone; empty where that is not known.
        word_scores: `[output, word]`, the score of each word: the joint flow of its tokens, or of shares their sum; None
            where there are no words.
        patches: how many patches of an image, down and across, the last inputs are; None for other inputs.
        image: `[height, width]`, uint8: the brightness of that image as the model read it, from its darkest to its brightest
            point; None for other inputs.
        notes: what the model's own checker says of what it wrote, in sentences: whether it is right, and what speaks against
            trusting it. Empty for models without one.
    """

    encoder_tokens: tuple[str, ...]
    decoder_tokens: tuple[str, ...]
    output_tokens: tuple[str, ...]
    attribution: Attribution
    predictions: tuple[Prediction, ...]
    bottleneck: Float[np.ndarray, " layer"] | None
    model: str
    method: Method
    conventions: dict[str, Any]
    version: str
    flow_graphs: tuple[FlowGraph, ...] = ()
    words: tuple[tuple[int, int, str], ...] = ()
    word_scores: Float[np.ndarray, "output word"] | None = None
    patches: tuple[int, int] | None = None
    image: UInt8[np.ndarray, "height width"] | None = None
    notes: tuple[str, ...] = ()

    @property
    def tokens(self) -> tuple[str, ...]:
        """The names of all inputs: those of the encoder, then those of the decoder."""
        return self.encoder_tokens + self.decoder_tokens

    @property
    def scores(self) -> Float[np.ndarray, "output player"]:
        """`[output, player]`, the scores of all inputs in the order of `tokens`."""
        return attribution_scores(self.attribution)

    def prediction_of(self, row: int = 0) -> Prediction | None:
        """Return the prediction that belongs to the explained output in `row`: its own, or that of the sequence.

        None for several outputs that have one each.
        """
        if not self.predictions or self.predictions[0].position is None:
            return self.predictions[0] if self.predictions else None
        if self.conventions["together"] is not None:
            return None
        return self.predictions[int(self.attribution.outputs[row])]

    def save(self, path: str | Path) -> None:
        """Write a page (`.html`), or all there is (`.json`, or `.npz`, which is smaller), by the ending of `path`.

        Raises:
            ValueError: another ending.
        """
        path = Path(path)
        if path.suffix == ".html":
            storage.write(path, _display.page(self).encode())
        else:
            storage.write(path, storage.dump(dataclasses.asdict(self), path.suffix))

    def to_json(self) -> str:
        """Return what `save` writes to a `.json`."""
        return storage.dump(dataclasses.asdict(self), ".json").decode()

    def _repr_html_(self) -> str:
        return _display.cell(self)

    def __rich__(self) -> Any:
        return _display.coloured(self)

    def __str__(self) -> str:
        return _display.plain(self)


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
            flow_graphs=tuple(FlowGraph(**graph) for graph in record.pop("flow_graphs", ())),
            **record,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged: a part of the explanation is missing or does not fit ({error})."
        ) from error
