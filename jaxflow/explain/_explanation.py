"""Explanation: an attribution with its words and conventions; save, load."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from jaxflow import _display
from jaxflow._printable import visible
from jaxflow.attribute import Attribution, Certificate
from jaxflow.explain import _storage as storage
from jaxflow.explain._check_saved import check_shapes, check_values
from jaxflow.explain._flow_graph import FlowGraph
from jaxflow.explain._picture import Picture, known_picture, record_of
from jaxflow.explain._prediction import Prediction
from jaxflow.explain._token_names import Kind, plain_names


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """One example's attribution, with its words and with the conventions it was made by.

    Shows itself in a notebook and as text; `save` writes a page, JSON or NPZ, and `load` reads the latter two back. Flow graphs,
    bottleneck and scores of words are computed when they are first looked at.

    Attributes:
        encoder_tokens: names of the encoder's inputs, tokens or spans of them, `[source]`; empty without encoder.
        decoder_tokens: names of the decoder's inputs, likewise, `[target]`; empty without decoder.
        output_tokens: names of the positions that can be explained, of the decoder if there is one; of the one set of
            positions, where they are explained jointly.
        attribution: unbatched: `encoder [output, source]`, `decoder [output, target]`.
        predictions: one for the sequence, one per position, or none for a model without a head. What a position of a
            decoder predicts is the token after it.
        model: the model's class or name.
        method: the method's name, such as "flow".
        conventions: the method's options, and `target`, `n_prompt` and `joint`: all that the numbers depend on.
        version: the version of jaxflow that made it.
        picture: what is computed when it is looked at.
        patches: how many patches of an image, down and across, the last inputs are; None for other inputs.
        image: `[height, width]`, uint8: the brightness of that image as the model read it, from its darkest to its brightest
            point; None for other inputs.
        notes: what the model's own checker says of what it wrote, in sentences: whether it is right, and what speaks against
            trusting it. Empty for models without one.
        token_kinds: how each input stands in the text: "word", "part" (it goes on with the word before it) or "special", as
            `TokenName.kind` has it. By default what the names alone tell.
        mixing: what else moves information from token to token in the model, which no score by attention accounts for, as in
            `Attention.mixing`. All views say it.
    """

    encoder_tokens: tuple[str, ...]
    decoder_tokens: tuple[str, ...]
    output_tokens: tuple[str, ...]
    attribution: Attribution
    predictions: tuple[Prediction, ...]
    model: str
    method: str
    conventions: dict[str, Any]
    version: str
    picture: Picture = dataclasses.field(default_factory=known_picture)
    patches: tuple[int, int] | None = None
    image: UInt8[np.ndarray, "height width"] | None = None
    notes: tuple[str, ...] = ()
    token_kinds: tuple[Kind, ...] = ()
    mixing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Tell kinds of tokens by their names where nothing else does.

        Raises:
            ValueError: more or fewer kinds than inputs.
        """
        if not self.token_kinds:
            object.__setattr__(self, "token_kinds", tuple(token.kind for token in plain_names(self.tokens)))
        if len(self.token_kinds) != len(self.tokens):
            raise ValueError(
                f"token_kinds holds {len(self.token_kinds)} kinds; expected {len(self.tokens)}, one of each input. Of other "
                "names than before leave it out: dataclasses.replace(explanation, encoder_tokens=names, token_kinds=())."
            )

    @property
    def tokens(self) -> tuple[str, ...]:
        """The names of all inputs: those of the encoder, then those of the decoder."""
        return self.encoder_tokens + self.decoder_tokens

    @property
    def scores(self) -> Float[np.ndarray, "output input"]:
        """`[output, input]`, the scores of all inputs in the order of `tokens`."""
        return self.attribution.scores

    @property
    def bottleneck(self) -> Float[np.ndarray, " layer"] | None:
        """`[layer]`, share of the minimum cuts' capacity that lies in each layer (the encoder's, then the decoder's).

        Over the cuts from every input to the first explained output, each the one nearest its input; None for methods
        without flow, and where time ran out.
        """
        return self.picture.bottleneck

    @property
    def flow_graphs(self) -> tuple[FlowGraph, ...]:
        """How the joint flow of all inputs runs to the explained outputs: to each where that is cheap, or the first, or none."""
        return self.picture.flow_graphs

    def flow_graph(self, row: int = 0) -> FlowGraph:
        """Return how the joint flow of all inputs runs to the explained output in `row`, whatever that costs.

        Raises:
            ValueError: a method without flow; a row that does not exist.
        """
        return self.picture.flow_graph(row)

    @property
    def words(self) -> tuple[tuple[int, int, str], ...]:
        """The words that inputs are tokens of, `(start, stop, word)` in the order of `tokens`; empty where that is not known."""
        return () if self.picture.words is None else self.picture.words[0]

    @property
    def word_scores(self) -> Float[np.ndarray, "output word"] | None:
        """`[output, word]`, the score of each word: the joint flow of its tokens, or of shares their sum; None without words."""
        return None if self.picture.words is None else self.picture.words[1]

    @property
    def contributions(self) -> Explanation | None:
        """What each token did give to what the model chose, row by row as here, in logits and signed: by `ContributionScores`.

        None where another method was asked for, where the model predicts nothing, and where it cannot be told
        (`contributions_refused` says why).
        """
        found = self.picture.contributions
        return found if isinstance(found, Explanation) else None

    @property
    def contributions_refused(self) -> str | None:
        """Why it cannot be told what each token did give; None where it can, or is not asked for."""
        found = self.picture.contributions
        return found if isinstance(found, str) else None

    def prediction_of(self, row: int = 0) -> Prediction | None:
        """Return the prediction that belongs to the explained output in `row`: its own, or that of the sequence.

        None for several outputs that have one each.
        """
        if not self.predictions or self.predictions[0].position is None:
            return self.predictions[0] if self.predictions else None
        if self.conventions.get("joint") is not None:
            return None
        return self.predictions[int(self.attribution.positions[row])]

    def save(self, path: str | Path) -> None:
        """Write a page (`.html`), or all there is (`.json`, or `.npz`, which is smaller), by the ending of `path`.

        Raises:
            ValueError: another ending.
        """
        path = Path(path)
        if path.suffix == ".html":
            storage.write(path, _display.page(self).encode())
        else:
            storage.write(path, storage.dump(self._record(), path.suffix))

    def to_json(self) -> str:
        """Return what `save` writes to a `.json`."""
        return storage.dump(self._record(), ".json").decode()

    def _record(self) -> dict[str, Any]:
        """Return everything as plain values and arrays, the picture too."""
        names = [
            field.name
            for field in dataclasses.fields(self)
            if field.name not in ("picture", "attribution", "predictions")
        ]
        return {
            **{name: getattr(self, name) for name in names},
            "conventions": {name: _plain(value) for name, value in self.conventions.items()},
            "attribution": dataclasses.asdict(self.attribution),
            "predictions": [dataclasses.asdict(prediction) for prediction in self.predictions],
            **record_of(self.picture),
            "contributions": self.contributions_refused if self.contributions is None else self.contributions._record(),
        }

    def __repr__(self) -> str:
        n_outputs, n_inputs = self.scores.shape
        beside = ", tokens mixed outside of attention" if self.mixing else ""
        name = visible(self.model)
        return f"Explanation({name}, method={self.method!r}, {n_outputs} outputs x {n_inputs} inputs{beside})"

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
        ValueError: a file that is damaged, no explanation, of another format version, or holds Python objects; one whose parts
            do not fit each other, or hold what no explanation holds.
    """
    saved = storage.open_saved(Path(path))
    try:
        check_shapes(_restored(saved.outline))  # before memory is taken for arrays
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged: a part of the explanation is missing or does not fit ({error})."
        ) from error
    explanation = _restored(saved.fill())
    try:
        check_values(explanation)
    except ValueError as error:
        raise ValueError(f"{path} holds values that no explanation has ({error}).") from error
    return explanation


def _restored(record: dict[str, Any], *, is_inner: bool = False) -> Explanation:
    """Make an explanation of a record.

    Raises:
        ValueError: a part is missing, or one too many.
    """
    try:
        contributions = record.pop("contributions")
        if is_inner and isinstance(contributions, dict):
            raise TypeError("contributions have no contributions of their own")
        attribution = dict(record.pop("attribution"))
        certificate = attribution.pop("certificate")
        words, scores = record.pop("words"), record.pop("word_scores")
        return Explanation(
            attribution=Attribution(
                certificate=None if certificate is None else Certificate(**certificate), **attribution
            ),
            predictions=tuple(Prediction(**prediction) for prediction in record.pop("predictions")),
            picture=known_picture(
                tuple(FlowGraph(**graph) for graph in record.pop("flow_graphs")),
                record.pop("bottleneck"),
                None if scores is None else (words, scores),
                _restored(contributions, is_inner=True) if isinstance(contributions, dict) else contributions,
            ),
            **record,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _plain(value: Any) -> Any:
    """Return an option as a file can hold it: what is neither a plain value nor an array is written as text."""
    is_array = hasattr(value, "dtype") and hasattr(value, "shape")
    return (
        value if value is None or is_array or isinstance(value, bool | int | float | str | list | tuple) else str(value)
    )
