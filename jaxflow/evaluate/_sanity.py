"""Do scores depend on what the model has learned? If not, they cannot explain it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from flax import struct
from jaxtyping import Float

from jaxflow.evaluate._ranks import Row, rank_correlation

Params = TypeVar("Params")
INPUTS = re.compile(r"embed|wte|wpe|tokens|positions|shared|patch", re.IGNORECASE)


@struct.dataclass
class SanityCheck:
    """How alike scores stay while parameters are randomised.

    Attributes:
        correlations: `[step]`, rank correlation of the scores with those of the trained model. Nearer to 0 is better: 1 says that
            what was learned makes no difference to them. NaN where one of the two orders nothing.
        randomised: `[step]`, what was randomised at each step; the last is all.
    """

    correlations: Float[np.ndarray, " step"]
    randomised: tuple[tuple[str, ...], ...] = struct.field(pytree_node=False)


def sanity_check(
    score: Callable[[Params], Row],
    params: Params,
    *,
    cascade: Sequence[str] | None = None,
    seed: int = 0,
) -> SanityCheck:
    """Compare the scores of a trained model with those of the same model, its parameters randomised.

    Args:
        score: scores of one output, of the model with these parameters; by the absolute value, where signs mean nothing.
        params: of the trained model, a PyTree.
        cascade: parts that are randomised one after the other, and stay so: fragments of the parameters' paths, `/` at both ends,
            from the output on (`layer_groups` lists them). None: all at once.
        seed: of the randomisation.

    Returns:
        `SanityCheck`, a step for each part.

    Raises:
        ValueError: a fragment that fits no parameter; scores that are no row, or are of another length.

    Example:
        >>> params = {"weights": np.array([1.0, 2.0, 3.0, 4.0])}
        >>> sanity_check(lambda params: [4, 3, 2, 1], params).correlations  # never looks at them
        array([1.])

    Source: Adebayo et al. 2018 (1810.03292), sections 3.1 and 3.2.
    """
    trained = np.asarray(score(params))
    steps = [("",)] if cascade is None else [tuple(cascade[: i + 1]) for i in range(len(cascade))]
    found = [rank_correlation(trained, np.asarray(score(randomise(params, parts=parts, seed=seed)))) for parts in steps]
    return SanityCheck(correlations=np.array(found), randomised=tuple(steps))


def randomise(params: Params, *, parts: Sequence[str] = ("",), seed: int = 0) -> Params:
    """Shuffle the entries of each array of parameters: same values, so same scale, and nothing that was learned.

    Args:
        params: a PyTree of arrays.
        parts: fragments of paths, `/` at both ends, such as `/layer_3/`; all by default.
        seed: same seed, same shuffle of an array, whatever else is shuffled.

    Returns:
        The same PyTree, in NumPy arrays where something was shuffled.

    Raises:
        ValueError: a fragment that fits no parameter.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    paths = [f"/{jax.tree_util.keystr(path, simple=True, separator='/')}/" for path, _ in leaves]
    for part in parts:
        if not any(part in path for path in paths):
            raise ValueError(f"No parameter's path holds {part!r}: they are such as {', '.join(paths[:3])}.")
    shuffled = []
    for number, (path, (_, leaf)) in enumerate(zip(paths, leaves, strict=True)):
        if any(part in path for part in parts) and np.size(leaf) > 1:
            values = np.random.default_rng([seed, number]).permutation(np.ravel(leaf))
            leaf = values.reshape(np.shape(leaf))
        shuffled.append(leaf)
    return jax.tree.unflatten(structure, shuffled)


def layer_groups(params: Any) -> tuple[str, ...]:
    """List the parts of a model from its output to its input, for `cascade`, by the names and numbers in the parameters' paths.

    What has no number and does not look like an embedding counts as the output; layers follow, those of a decoder first, the
    last one first; embeddings come last.

    Example:
        >>> layer_groups({"head": {"w": 1}, "layer_0": {"w": 1}, "layer_10": {"w": 1}, "layer_2": {"w": 1}, "tokens": {"w": 1}})
        ('/head/', '/layer_10/', '/layer_2/', '/layer_0/', '/tokens/')
    """
    groups: dict[str, tuple] = {}
    for path, _ in jax.tree_util.tree_leaves_with_path(params):
        names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        numbered = next((i for i, name in enumerate(names) if re.search(r"\d+$", name)), None)
        if numbered is not None:
            number = re.search(r"\d+$", names[numbered])
            assert number is not None
            rank: tuple = (1, "encoder" in names[:numbered], -int(number.group()))
            groups.setdefault(f"/{'/'.join(names[: numbered + 1])}/", rank)
        else:
            part = f"/{'/'.join(names[:-1] or names)}/"
            groups.setdefault(part, (2 if INPUTS.search(part) else 0, False, 0))
    return tuple(sorted(groups, key=lambda group: groups[group]))
