"""A tokenizer of a fixed vocabulary, with the call of a Hugging Face tokenizer and without that library."""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

PAD = "[PAD]"

Split = Callable[[str], list[re.Match[str]]]
"""From a text to its tokens, spelled as in the vocabulary, as matches with their places in the text."""


class WordTokenizer:
    """Splits texts into the tokens of a fixed vocabulary, and joins tokens to a text.

    There is no token for unknown words: an unknown word is an error. So is a text that is longer than the model reads; no
    text is truncated.

    Args:
        vocabulary: The tokens; a token's id is its index. The first is "[PAD]".
        model_max_length: The longest sequence that the model reads, with added tokens.
        split: Finds the tokens of a text; may raise a `ValueError` of its own.
        start: A token that is added before every text, if any.
        join: Joins tokens to a text.
        example: A text that the model knows, for error messages.
        purpose: What the model is for, to finish "This model ...", for error messages.

    Example:
        >>> words = ("[PAD]", "[CLS]", "a", "key")
        >>> split = lambda text: list(re.finditer("[a-z]+", text))
        >>> tokenizer = WordTokenizer(words, model_max_length=9, split=split, start="[CLS]", example="a key")
        >>> ids = tokenizer("a key")["input_ids"]
        >>> ids.tolist(), tokenizer.decode(ids[0], skip_special_tokens=True)
        ([[1, 2, 3]], 'a key')
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        model_max_length: int,
        split: Split,
        example: str,
        purpose: str = "is small",
        start: str | None = None,
        join: Callable[[Iterable[str]], str] = " ".join,
    ) -> None:
        """Keep the vocabulary; see the class."""
        self.vocab = {token: i for i, token in enumerate(vocabulary)}
        self.model_max_length = model_max_length
        self.pad_token, self.pad_token_id = PAD, self.vocab[PAD]
        self.all_special_tokens = [token for token in vocabulary if token.startswith("[")]
        self.all_special_ids = [self.vocab[token] for token in self.all_special_tokens]
        self._tokens = tuple(vocabulary)
        self._split, self._join, self._start = split, join, start
        self._example, self._purpose = example, purpose

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        add_special_tokens: bool = True,
        return_offsets_mapping: bool = False,
    ) -> dict[str, np.ndarray]:
        """Convert one text, or several, to token ids.

        Args:
            text: A text, or a list of texts; shorter ones are padded on the right.
            add_special_tokens: Add the start token before each text.
            return_offsets_mapping: Also return where in the text each token is.

        Returns:
            "input_ids" and "attention_mask" (1 for a token, 0 for padding), both int32 [text, token]; one
            text is a batch of one. If asked for, "offset_mapping" [text, token, 2]: the token's first
            character and the one after its last; 0 and 0 for added tokens.

        Raises:
            ValueError: for an empty list, an empty text, an unknown word, or a text that is too long.
        """
        texts = [text] if isinstance(text, str) else list(text)
        if not texts:
            raise ValueError("there is no text to read: the list is empty")
        before = [self._start] if self._start and add_special_tokens else []
        pieces = [self._pieces(one, added=before) for one in texts]
        rows = [[self.vocab[token] for token in (*before, *(piece.group() for piece in row))] for row in pieces]
        lengths = [len(row) for row in rows]
        input_ids = np.full((len(rows), max(lengths)), self.pad_token_id, np.int32)
        for row, numbers in zip(input_ids, rows, strict=True):
            row[: len(numbers)] = numbers
        real = np.arange(max(lengths)) < np.asarray(lengths)[:, None]
        inputs = {"input_ids": input_ids, "attention_mask": real.astype(np.int32)}
        if return_offsets_mapping:
            inputs["offset_mapping"] = np.zeros((*input_ids.shape, 2), np.int32)
            for row, found in zip(inputs["offset_mapping"], pieces, strict=True):
                row[len(before) : len(before) + len(found)] = [piece.span() for piece in found]
        return inputs

    def convert_ids_to_tokens(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """Give the token of each id."""
        return [self._tokens[int(i)] for i in ids]

    def decode(self, ids: Sequence[int] | np.ndarray, *, skip_special_tokens: bool = False) -> str:
        """Give the text of a sequence of token ids."""
        tokens = self.convert_ids_to_tokens(ids)
        return self._join(t for t in tokens if not (skip_special_tokens and t in self.all_special_tokens))

    def get_vocab(self) -> dict[str, int]:
        """Give all tokens with their ids."""
        return dict(self.vocab)

    def _pieces(self, text: str, *, added: list[str]) -> list[re.Match[str]]:
        pieces = self._split(text)
        if not pieces:
            raise ValueError(f"the text is empty: {text!r}; expected one such as {self._example!r}")
        unknown = [word for word in dict.fromkeys(piece.group() for piece in pieces) if word not in self.vocab]
        if unknown:
            raise ValueError(f"the text {text!r} has {self._complaint(unknown)}")
        if (n_tokens := len(pieces) + len(added)) > self.model_max_length:
            raise ValueError(
                f"the text has {len(pieces)} words and signs; with {added[0] if added else 'nothing'} added the model reads at "
                f"most {self.model_max_length} tokens, so leave out {n_tokens - self.model_max_length}"
            )
        return pieces

    def _complaint(self, unknown: list[str]) -> str:
        words = [token for token in self._tokens if token not in self.all_special_tokens]
        hints = []
        for piece in unknown:
            near = difflib.get_close_matches(piece, words, n=3)
            hints.append(f"{piece!r} (did you mean {', '.join(near)}?)" if near else repr(piece))
        return (
            f"words that this model does not know: {', '.join(hints)}. This model {self._purpose}: it knows {len(words)} words, "
            f'such as "{self._example}"; sorted(tokenizer.get_vocab()) lists them. For other texts load another model: '
            "load_model(directory), or --model DIR on the command line"
        )
