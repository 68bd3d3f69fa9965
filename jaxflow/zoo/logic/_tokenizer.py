"""The tokenizer of formulas and answers, with the call of a Hugging Face tokenizer; it can also check an answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxflow.zoo.logic._language import END, PAD, START, Language
from jaxflow.zoo.logic._syntax import Formula, parse_with_offsets


class FormulaTokenizer:
    """Splits formulas and answers into their symbols, each one token.

    Args:
        language: Of the formulas.
        model_max_length: The longest formula that the model reads, in symbols.
        max_depth: The deepest nesting that it reads.

    Example:
        >>> from jaxflow.zoo.propositional import LANGUAGE
        >>> tokenizer = FormulaTokenizer(LANGUAGE, model_max_length=32, max_depth=16)
        >>> tokenizer.convert_ids_to_tokens(tokenizer("& a !b")["input_ids"][0])
        ['&', 'a', '!', 'b']
        >>> tokenizer.convert_ids_to_tokens(tokenizer(text_target="a !b")["input_ids"][0])
        ['a', '!b', '[END]']
        >>> tokenizer.check("& a ! b", ["a", "[END]"])[0]
        'Checked: the assignment does not satisfy the formula: not with a b. One that does: a !b.'
    """

    def __init__(self, language: Language, *, model_max_length: int, max_depth: int) -> None:
        """Keep the language; see the class."""
        self.language = language
        self.model_max_length, self.max_depth = model_max_length, max_depth
        self.vocab = {token: i for i, token in enumerate(language.vocabulary)}
        self.pad_token, self.bos_token, self.eos_token = PAD, START, END
        self.all_special_tokens = [PAD, START, END]
        self.all_special_ids = [self.vocab[token] for token in self.all_special_tokens]
        self.pad_token_id, self.bos_token_id, self.eos_token_id = self.all_special_ids

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        *,
        text_target: str | None = None,
        return_offsets_mapping: bool = False,
    ) -> dict[str, np.ndarray]:
        """Convert one formula, several, or an answer to token ids.

        Args:
            text: A formula in prefix notation, or a list of formulas; shorter ones are padded on the right.
            text_target: An answer instead, as the model writes it.
            return_offsets_mapping: Also return where in the text each token is.

        Returns:
            "input_ids" and "attention_mask" (1 for a symbol, 0 for padding), int32 [text, token]; an answer ends with
            [END]. If asked for, "offset_mapping" [text, token, 2]: a token's first character and the one after its last; 0 and 0
            for padding.

        Raises:
            ValueError: for an empty list, a formula that does not parse or is too large, or an answer that does not parse.
        """
        if text_target is not None:
            trace = self.language.read(text_target.split())
            return _padded([[self.vocab[symbol] for symbol in [*self.language.write(trace), END]]])
        texts = [text] if isinstance(text, str) else list(text or ())
        if not texts:
            raise ValueError("There is no formula to read: the list is empty.")
        read = [self._parse(one) for one in texts]
        inputs = _padded([[self.vocab[symbol] for symbol in formula.symbols()] for formula, _ in read])
        if return_offsets_mapping:
            inputs["offset_mapping"] = np.zeros((*inputs["input_ids"].shape, 2), np.int32)
            for row, (_, offsets) in zip(inputs["offset_mapping"], read, strict=True):
                row[: len(offsets)] = [(i, i + 1) for i in offsets]
        return inputs

    def convert_ids_to_tokens(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """Give the token of each id."""
        return [self.language.vocabulary[int(i)] for i in ids]

    def decode(self, ids: Sequence[int] | np.ndarray, *, skip_special_tokens: bool = False) -> str:
        """Give the text of a sequence of token ids, with blanks between tokens."""
        special = self.all_special_tokens if skip_special_tokens else ()
        return " ".join(token for token in self.convert_ids_to_tokens(ids) if token not in special)

    def get_vocab(self) -> dict[str, int]:
        """Give all tokens with their ids."""
        return dict(self.vocab)

    def check(self, text: str, written: Sequence[str]) -> tuple[str, ...]:
        """Check an answer.

        Args:
            text: The formula.
            written: The answer's tokens.

        Returns:
            Sentences: the verdict, and warnings about the formula, if any.
        """
        formula = self._parse(text)[0]
        return self.language.verdict(formula, [token for token in written if token not in self.all_special_tokens])

    def _parse(self, text: str) -> tuple[Formula, list[int]]:
        formula, offsets = parse_with_offsets(
            text, operators=self.language.operators, propositions=self.language.propositions
        )
        if (depth := formula.depth()) > self.max_depth:
            raise ValueError(f"The formula nests {depth} deep; the model reads {self.max_depth} at most: {text!r}.")
        return formula, offsets


def _padded(rows: list[list[int]]) -> dict[str, np.ndarray]:
    ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
    real = np.zeros_like(ids)
    for row, mask, numbers in zip(ids, real, rows, strict=True):
        row[: len(numbers)], mask[: len(numbers)] = numbers, 1
    return {"input_ids": ids, "attention_mask": real}
