"""Functions with annotations, for type_checked.py to call with what they are not, and with what they are."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int


def matrix(scores: Float[np.ndarray, "output input"]) -> None:
    pass


def numbers(nodes: Int[np.ndarray, " node"]) -> None:
    pass


def alike(senders: Int[np.ndarray, " arc"], capacity: Float[np.ndarray, " arc"]) -> None:
    pass


def on_device(scores: Float[Array, " token"]) -> None:
    pass


def one(node: int) -> None:
    pass


def row(scores: Float[np.ndarray, "*batch token"]) -> Float[np.ndarray, " token"]:
    return scores


class Holder(NamedTuple):
    scores: Float[np.ndarray, " token"]

    @property
    def best(self) -> int:
        return self.scores.argmax()

    def score_of(self, node: int) -> int:
        return self.scores[node]


def with_helper() -> None:
    def helper(node: int) -> None:
        pass

    helper(0.5)


def with_another_error() -> None:
    try:
        one("0")
    except TypeError as error:
        raise RuntimeError("something else") from error
