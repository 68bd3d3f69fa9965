"""Attention: the PyTree every model is turned into, and what it must satisfy to be one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from jaxflow import _display

STACKS = ("encoder", "decoder", "cross")
SMALL = 2**20  # values that NumPy handles before a program would be compiled for their shape
AnyArray = Array | np.ndarray  # on a device, or on the host
AnyInt = int | np.integer  # Python's, or an element of an array
# False, or 0 as tokenizers write it, where padded.
_Lists = Sequence[int] | Sequence[Sequence[int]]
SourceMask = Bool[ArrayLike, "*batch source"] | Real[ArrayLike, "*batch source"] | _Lists
TargetMask = Bool[ArrayLike, "*batch target"] | Real[ArrayLike, "*batch target"] | _Lists
Mask = Bool[ArrayLike, "*batch _token"] | Real[ArrayLike, "*batch _token"] | _Lists
T = TypeVar("T")
SameArray = TypeVar("SameArray", Array, np.ndarray)  # what comes in on the host stays there


@dataclasses.dataclass(frozen=True, eq=False)
class Provenance:
    """Where attention was taken from, and what it leaves out: remarks that make no difference.

    They are no leaves, and any two are equal, so attention from different backends has one PyTree structure: `jax.tree.map` takes
    both, and `jax.jit` compiles once for both. The price: what passes through a function that was compiled
    before has the remark of the first that did.
    """

    backend: str | None = None
    mixing: tuple[str, ...] = ()
    reads_only: bool = False  # whether the decoder's queries read another sequence and never each other

    def __eq__(self, other: object) -> bool:
        """All are equal."""
        return isinstance(other, Provenance)

    def __hash__(self) -> int:
        """All are equal."""
        return 0


@struct.dataclass
class Attention:
    """Attention probabilities of all layers: after the softmax, before dropout.

    Rows are queries, and a row sums to 1 over the keys it sees. An encoder-only model has `encoder` alone, a
    decoder-only one `decoder` alone, an encoder-decoder all three. Any of float64, float32, float16 and bfloat16
    will do; what is computed from it is computed in float32 at least.

    Attributes:
        encoder: `[*batch, layer, head, source, source]`.
        decoder: `[*batch, layer, head, target, target]`.
        cross: `[*batch, layer, head, target, source]`.
        provenance: see `backend` and `mixing`.

    Source: Metzger et al. 2022 (2205.15389); for the encoder also Abnar & Zuidema 2020 (2005.00928).
    """

    encoder: Float[AnyArray, "*batch _layer _head source source"] | None = None
    decoder: Float[AnyArray, "*batch layer head target target"] | None = None
    cross: Float[AnyArray, "*batch layer _head target source"] | None = None
    provenance: Provenance = struct.field(pytree_node=False, default=Provenance(), repr=False)

    @property
    def backend(self) -> str | None:
        """The backend of `capture` that served: "transformers", "linen", "nnx" or "traced"; None of arrays made by hand."""
        return self.provenance.backend

    @property
    def mixing(self) -> tuple[str, ...]:
        """What else moves information from token to token in the model, which no attention shows: a sentence for each place.

        Empty where there is nothing, and for arrays made by hand. See `mixing=` of `as_model`.
        """
        return self.provenance.mixing

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        return _display.arrays(self, path, subtree_renderer, axes=("layer", "head", "query", "key"))


def check_attention(
    attention: Attention,
    *,
    encoder_mask: SourceMask | None = None,
    decoder_mask: TargetMask | None = None,
) -> None:
    """Raise if `attention` is not what `Attention` promises.

    Ranks, lengths and types are checked always; values (finite, not negative, rows that sum to 1 to the precision
    of their type) only outside `jit`, where there are values. Rows of masked queries may hold anything.

    Args:
        attention: what to check.
        encoder_mask: `[*batch, source]`, False where padded.
        decoder_mask: `[*batch, target]`, False where padded.

    Raises:
        ValueError: says what was got, what was expected and what to do.
    """
    check_structure(attention, encoder_mask=encoder_mask, decoder_mask=decoder_mask)
    masks = {"encoder": encoder_mask, "decoder": decoder_mask, "cross": decoder_mask}
    for name in STACKS:
        if getattr(attention, name) is not None:
            check_rows(name, getattr(attention, name), masks[name])


def check_structure(
    attention: Attention,
    *,
    encoder_mask: SourceMask | None = None,
    decoder_mask: TargetMask | None = None,
) -> None:
    """Raise unless ranks, lengths, types and masks are those of one model's attention, whatever its values."""
    stacks = {name: getattr(attention, name) for name in STACKS if getattr(attention, name) is not None}
    if not stacks:
        raise ValueError(
            "Attention holds no stack: encoder, decoder and cross are all None. "
            "Give at least one, [*batch, layer, head, query, key]."
        )
    for name, weights in stacks.items():
        check_shape(name, weights)
    check_architecture("Attention", {name: weights.shape for name, weights in stacks.items()}, n_axes=4)
    for name, mask, sides in (
        ("encoder_mask", encoder_mask, (("encoder", -1), ("cross", -1))),
        ("decoder_mask", decoder_mask, (("decoder", -1), ("cross", -2))),
    ):
        shapes = {(stack, axis): stacks[stack].shape for stack, axis in sides if stack in stacks}
        check_mask(name, mask, {stack: (*shape[:-4], shape[axis]) for (stack, axis), shape in shapes.items()})


def check_architecture(kind: str, shapes: dict[str, tuple[int, ...]], *, n_axes: int) -> None:
    """Raise unless the stacks are those of one model: an encoder, a decoder, or both joined by cross-attention.

    Args:
        kind: the type that holds them, for the message.
        shapes: shape of each stack that is there: `[*batch, layer, ..., query, key]`.
        n_axes: number of axes behind those of the batch.
    """
    if "cross" in shapes and "decoder" not in shapes:
        raise ValueError(f"{kind} has cross-attention without a decoder: give `decoder`, the stack that it belongs to.")
    if {"encoder", "decoder"} <= set(shapes) and "cross" not in shapes:
        raise ValueError(
            f"{kind} has an encoder and a decoder, and nothing that joins them: give `cross`, or explain each by itself."
        )
    batches = {name: shape[:-n_axes] for name, shape in shapes.items()}
    if len(set(batches.values())) > 1:
        raise ValueError(f"{kind} has stacks of different batch axes: {batches}; expected the same for all.")
    if "cross" not in shapes:
        return
    *_, n_target, n_source = cross = shapes["cross"]
    if n_target != shapes["decoder"][-1] or ("encoder" in shapes and n_source != shapes["encoder"][-1]):
        encoder = f" and {shapes['encoder'][-1]} tokens of the encoder" if "encoder" in shapes else ""
        raise ValueError(
            f"{kind}.cross has {n_target} queries and {n_source} keys, which do not fit the {shapes['decoder'][-1]} tokens of "
            f"the decoder{encoder}; expected [*batch, layer, ..., target, source]. Is it transposed?"
        )
    if cross[-n_axes] != shapes["decoder"][-n_axes]:
        raise ValueError(
            f"{kind}.cross has {cross[-n_axes]} layers and the decoder has {shapes['decoder'][-n_axes]}; expected as many."
        )


def is_traced(*trees: Any) -> bool:
    """Whether some leaf has no value yet: inside `jit`, `vmap` or `grad`."""
    if all(tree is None or isinstance(tree, np.ndarray) for tree in trees):  # nearly always, where it matters
        return False
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def numpy_of(*trees: Any) -> Any:
    """Return NumPy where all arrays are on the host, else jax.numpy: what is on the host needs no program for its shape."""
    return (
        np if all(isinstance(leaf, np.ndarray | np.generic | float | int) for leaf in jax.tree.leaves(trees)) else jnp
    )


def on_host(tree: T) -> T:
    """Return a tree with its arrays on the host; what is there already costs nothing."""
    return jax.device_get(tree) if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(tree)) else tree


def at_least_float32(values: Float[SameArray, "*shape"]) -> Float[SameArray, "*shape"]:
    """Widen float16 and bfloat16 to float32; `promote_types` would refuse to under strict dtype promotion."""
    return values.astype(jnp.float32) if jnp.finfo(values.dtype).bits < 32 else values


def check_shape(name: str, weights: Any) -> None:
    """Raise unless `weights` are those of one stack: an array of probabilities, [*batch, layer, head, query, key]."""
    if not hasattr(weights, "dtype"):
        raise ValueError(
            f"Attention.{name} is a {type(weights).__name__}; expected one array, [*batch, layer, head, query, key]. A tuple "
            "of layers, [*batch, head, query, key] each, becomes one by jnp.stack(layers, axis=-4); or pass iter(layers) in the "
            "attention's place."
        )
    shape = tuple(jnp.shape(weights))
    if len(shape) < 4:
        raise ValueError(
            f"Attention.{name} has shape {shape}, which is rank {len(shape)}; expected at least rank 4, [*batch, layer, "
            "head, query, key]. Did you forget vmap, or drop an axis? One layer is `weights[None]`; attention whose heads "
            f"are already reduced is `Capacities({name}=weights)`."
        )
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        raise ValueError(f"Attention.{name} has dtype {weights.dtype}; expected floating-point probabilities.")
    parts = zip(("layers", "heads", "queries (tokens)", "keys (tokens)"), shape[-4:], strict=True)
    for what, size in (("examples", np.prod(shape[:-4])), *parts):
        if size == 0:
            raise ValueError(
                f"Attention.{name} has no {what}: its shape is {shape}, [*batch, layer, head, query, key]."
            )
    if name != "cross" and shape[-1] != shape[-2]:
        raise ValueError(
            f"Attention.{name} has {shape[-2]} queries and {shape[-1]} keys; self-attention has as many of each. "
            "Attention from one sequence to another belongs in `cross`."
        )


def check_rows(name: str, weights: AnyArray, mask: Mask | None, *, computed_in: DTypeLike | None = None) -> None:
    """Raise unless rows of queries that `mask` leaves are finite, not negative and sum to 1, where there are values.

    They must sum to 1 to the precision of the type that they were computed in, their own by default.
    """
    if is_traced(weights, mask):
        return
    if isinstance(weights, np.ndarray) and weights.size <= SMALL:  # where compiling for each shape would take longer
        non_finite, smallest, deviation, where = _row_facts(weights, mask, numpy=np)
    else:
        with jax.ensure_compile_time_eval():  # weights that a traced function closes over have values too
            known = None if mask is None else jnp.asarray(mask)
            found = _compiled_row_facts(jnp.asarray(weights), known)
            non_finite, smallest, deviation, where = jax.device_get(found)
    if non_finite:
        raise ValueError(
            f"Attention.{name} holds {non_finite} values that are NaN or infinite in rows that are no padding. Token ids "
            "beyond the vocabulary give NaN, as does a softmax over a row whose keys are all masked: look at the ids, pass the "
            "padding mask, or repair the model."
        )
    if smallest < 0:
        raise ValueError(
            f"Attention.{name} holds {smallest:.3g}; expected probabilities >= 0. Are these the scores before the softmax?"
        )
    # Softmax in a narrow type rounds each weight once and its denominator once.
    computed_in = weights.dtype if computed_in is None else jnp.dtype(computed_in)
    tolerance = max(1e-4, 4 * float(jnp.finfo(computed_in).eps))
    if deviation > tolerance:
        index = tuple(int(i) for i in np.unravel_index(where, jnp.shape(weights)[:-1]))
        total = float(np.asarray(weights)[index].astype(np.float64).sum())
        raise ValueError(
            f"Attention.{name}: row {list(index)} ([*batch, layer, head, query]) sums to {total:.6g}; expected 1 within "
            f"{tolerance:.2g} ({computed_in}). Take the probabilities after the softmax and before dropout or head masks; "
            "capacities that do not sum to 1 are `Capacities`."
        )


def _row_facts(
    weights: Float[AnyArray, "*batch layer head query key"], mask: Mask | None, *, numpy: Any = jnp
) -> tuple[Any, Any, Any, Any]:
    """Count what is not finite, and find the smallest weight and the row sum farthest from 1; masked rows excepted.

    By `numpy`, which is jax.numpy or NumPy.
    """
    weights = at_least_float32(numpy.asarray(weights))
    real = (
        numpy.ones((1,) * (weights.ndim - 1), bool) if mask is None else numpy.asarray(mask, bool)[..., None, None, :]
    )
    non_finite = (~numpy.isfinite(weights) & real[..., None]).sum()
    smallest = numpy.where(real[..., None], weights, 1).min()
    deviation = numpy.where(real, numpy.abs(weights.sum(-1) - 1), 0)
    return non_finite, smallest, deviation.max(), deviation.argmax()


_compiled_row_facts = jax.jit(_row_facts)


def check_mask(name: str, mask: Mask | None, expected: dict[str, tuple[int, ...]]) -> None:
    """Raise unless `mask` is None, or fits the tokens of each stack: `expected` holds their shapes."""
    if mask is None:
        return
    if not expected:
        raise ValueError(f"{name} is given, but there is no stack that it could mask.")
    for stack, shape in expected.items():
        if np.shape(mask) != shape:
            raise ValueError(
                f"{name} has shape {np.shape(mask)}; expected {shape} to fit the {stack} stack: [*batch, token], True where "
                "there is a token and False where there is padding."
            )
    if is_traced(mask):
        return
    values = np.asarray(mask)
    if not ((values == 0) | (values == 1)).all():
        raise ValueError(
            f"{name} holds {np.setdiff1d(values, (0, 1))[0]}; expected True or False (1 or 0) for each token."
        )
    if not values.any(-1).all():
        row = [int(i) for i in np.argwhere(~values.any(-1))[0]]
        raise ValueError(f"{name} is all padding{f' in row {row}' if row else ''}: there is no token to explain.")
