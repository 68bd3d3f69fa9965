"""Where in a text its tokens come from."""

from __future__ import annotations

from typing import Any


def offsets_of(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Ask a tokenizer for the tokens of a text, and where in it they are.

    Returns:
        Ids, and the first letter and the one after the last of each; `(n, n)` for those that it added.

    Raises:
        ValueError: it does not tell.
    """
    try:
        read = tokenizer([text], return_offsets_mapping=True)
        offsets = read["offset_mapping"][0]
    except (NotImplementedError, TypeError, KeyError, ValueError) as error:
        raise ValueError(
            f"{type(tokenizer).__name__} tells no offsets, so its tokens cannot be grouped by the text. Load the fast tokenizer "
            "of this model (a tokenizer.json in its directory), or give spans as (start, stop) pairs of tokens."
        ) from error
    return [int(number) for number in read.get("input_ids", ((),))[0]], [
        (int(start), int(stop)) for start, stop in offsets
    ]
