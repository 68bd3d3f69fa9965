"""Words to numbers, called as a tokenizer of Hugging Face is, without one."""

import difflib
import re
from collections.abc import Sequence

import numpy as np

from jaxflow.zoo.agreement import lexicon

PAD, CLS = "[PAD]", "[CLS]"
VOCABULARY = (PAD, CLS, *lexicon.WORDS)

# A word; the possessive mark, a token of its own; any other sign.
_PIECES = re.compile(r"'s\b|\w+(?:-\w+)*|[^\w\s]")


class WordTokenizer:
    """Splits sentences into the words of a fixed vocabulary, each one token, after a leading [CLS].

    Letter case is ignored. Unlike most tokenizers it has no token for what it does not know: that is an
    error, as is a text longer than the model reads, which is never cut.

    Args:
        vocabulary: The tokens; a token's number is its place. Has "[PAD]" and "[CLS]".
        model_max_length: The longest sequence the model reads, with [CLS].

    Example:
        >>> tokenizer = WordTokenizer(VOCABULARY, model_max_length=25)
        >>> ids = tokenizer("The guards' keys")["input_ids"]
        >>> tokenizer.convert_ids_to_tokens(ids[0])
        ['[CLS]', 'the', 'guards', "'", 'keys']
    """

    def __init__(self, vocabulary: Sequence[str], *, model_max_length: int) -> None:
        """Keep the vocabulary; see the class."""
        self.vocab = {token: i for i, token in enumerate(vocabulary)}
        self.model_max_length = model_max_length
        self.pad_token, self.cls_token = PAD, CLS
        self.pad_token_id, self.cls_token_id = self.vocab[PAD], self.vocab[CLS]
        self.all_special_tokens = [PAD, CLS]
        self.all_special_ids = [self.pad_token_id, self.cls_token_id]
        self._tokens = tuple(vocabulary)

    def __call__(self, text: str | Sequence[str], *, return_offsets_mapping: bool = False) -> dict[str, np.ndarray]:
        """Number the words of one text or of several.

        Args:
            text: A text, or a list of them; shorter ones are filled up with [PAD], on the right.
            return_offsets_mapping: Also say where in the text each token is.

        Returns:
            "input_ids" and "attention_mask" (1 for a token, 0 for padding), both int32 [text, token]; one
            text is a batch of one. If asked for, "offset_mapping" [text, token, 2]: the token's first
            character and the one after its last; 0 and 0 for [CLS] and [PAD].

        Raises:
            ValueError: for no text, an empty text, an unknown word or a text longer than the model reads.
        """
        texts = [text] if isinstance(text, str) else list(text)
        if not texts:
            raise ValueError("there is no text to read: the list is empty")
        pieces = [self._pieces(one) for one in texts]
        rows = [[self.cls_token_id, *(self.vocab[piece.group()] for piece in row)] for row in pieces]
        lengths = [len(row) for row in rows]
        input_ids = np.full((len(rows), max(lengths)), self.pad_token_id, np.int32)
        for row, numbers in zip(input_ids, rows, strict=True):
            row[: len(numbers)] = numbers
        real = np.arange(max(lengths)) < np.asarray(lengths)[:, None]
        inputs = {"input_ids": input_ids, "attention_mask": real.astype(np.int32)}
        if return_offsets_mapping:
            inputs["offset_mapping"] = np.zeros((*input_ids.shape, 2), np.int32)
            for row, found in zip(inputs["offset_mapping"], pieces, strict=True):
                row[1 : len(found) + 1] = [piece.span() for piece in found]
        return inputs

    def convert_ids_to_tokens(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """Give the token of each number in a sequence of them."""
        return [self._tokens[int(i)] for i in ids]

    def get_vocab(self) -> dict[str, int]:
        """Give all tokens with their numbers."""
        return dict(self.vocab)

    def _pieces(self, text: str) -> list[re.Match[str]]:
        # Also written with the typographic apostrophe.
        pieces = list(_PIECES.finditer(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")))
        if not pieces:
            raise ValueError(f"the text is empty: {text!r}; expected the words of a sentence")
        unknown = [word for word in dict.fromkeys(piece.group() for piece in pieces) if word not in self.vocab]
        if unknown:
            raise ValueError(f"the text {text!r} has {self._complaint(unknown)}")
        if len(pieces) + 1 > self.model_max_length:
            raise ValueError(
                f"the text has {len(pieces)} words and signs; with {CLS} the model reads at most "
                f"{self.model_max_length} tokens, so leave out {len(pieces) + 1 - self.model_max_length}"
            )
        return pieces

    def _complaint(self, unknown: list[str]) -> str:
        words = [token for token in self._tokens if token not in self.all_special_tokens]
        hints = []
        for piece in unknown:
            near = difflib.get_close_matches(piece, words, n=3)
            hints.append(f"{piece!r} (did you mean {', '.join(near)}?)" if near else repr(piece))
        return (
            f"words that this model does not know: {', '.join(hints)}. It knows {len(words)} words, such as "
            '"the keys to the old cabinet near the doors"; sorted(tokenizer.get_vocab()) lists them'
        )
