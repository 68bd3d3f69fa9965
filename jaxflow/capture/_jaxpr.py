"""Capture from any JAX function: trace it, find softmax(q k) v, and run it again keeping the weights."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxflow._attention import Attention, Provenance, at_least_float32, is_traced
from jaxflow.capture._marks import Perturbable
from jaxflow.capture._ordering import stack
from jaxflow.capture._roles import Role
from jaxflow.capture._sown import Layer, Sown
from jaxflow.capture._tracing.adding import Adder, Place, place_of
from jaxflow.capture._tracing.program import Scope, equations, read, run
from jaxflow.capture._tracing.sites import Findings, Site, find
from jaxflow.capture._tracing.stacks import traced_roles
from jaxflow.capture._tracing.weights import Keeper, laid_out

KERNELS = (
    "pallas",
    "attention",
    "flash",
    "cudnn",
    "triton",
    "mosaic",
    "ffi_call",
    "custom_call",
    "custom_partitioning",
    "callback",
)


def capture_traced(
    function: Callable,
    args: tuple,
    kwargs: dict,
    *,
    roles: Mapping[str, Role] | None,
) -> tuple[Any, Attention]:
    """Trace a function, find its attention, and run it.

    Args:
        function: any function that JAX can trace. Arrays among its arguments are traced, all else is passed as it is.
        args: what it is called with.
        kwargs: what it is called with.
        roles: the stack of attention whose tokens tell it wrongly or not: fragment of the path -> stack. The path of an attention
            is made of the named scopes (`jax.named_scope`) and jitted functions around it, and of its number in the order
            of execution: `/decoder/layer_0/3/`.

    Returns:
        What the function returns, and its attention.

    Raises:
        ValueError: no attention; attention that cannot be taken; stacks that cannot be told.
    """
    return perturbable_traced(function, args, kwargs, roles=roles).run({})


def perturbable_traced(
    function: Callable, args: tuple, kwargs: dict, *, roles: Mapping[str, Role] | None
) -> Perturbable:
    """Do what `capture_traced` does as a function of what is added to the weights; arguments and errors as there."""
    name = model_name(function)
    traced = trace(function, args, kwargs)
    refuse(traced, name)
    return perturbable_found(traced, name, roles)


def perturbable_found(traced: Traced, name: str, roles: Mapping[str, Role] | None) -> Perturbable:
    """Make of a traced function one of what is added to the weights that were found in it, which returns them too."""
    sites = traced.findings.sites
    stacks = traced_roles(name, traced.program, sites, roles)

    @functools.cache
    def places() -> dict[str, Place]:
        return {str(number): place_of(site, sites) for number, site in enumerate(sites)}

    def join(layers: list[Layer]) -> Attention:
        by_role = {
            role: stack([layer for layer, r in zip(layers, stacks, strict=True) if r == role]) for role in set(stacks)
        }
        return Attention(**by_role, provenance=Provenance("traced"))

    def run(added: Mapping[str, Any]) -> tuple[Any, Attention]:
        outputs, kept = traced.run(Keeper(sites), Adder(places(), added) if added else None)
        layers = [_layer(site, number, kept[number]) for number, site in enumerate(sites)]
        _check_rows(layers)
        return outputs, join(layers)

    def join_gradients(gradients: Mapping[str, Any]) -> Attention:
        layers = []
        for number, site in enumerate(sites):
            value = places()[str(number)].value
            lay_out = functools.reduce(lambda f, _: jax.vmap(f), site.loops, functools.partial(laid_out, site, value))
            layers.append(_layer(site, number, lay_out(gradients[str(number)])))
        return join(layers)

    return Perturbable(lambda: {key: place.shape for key, place in places().items()}, run, join_gradients)


@dataclasses.dataclass(frozen=True)
class Traced:
    """A function's program, and the arrays to run it with.

    Attributes:
        closed: the jaxpr.
        program: the same, with its calls inlined.
        findings: the attention in it.
        arrays: what it is run with.
        restore: makes of the arrays that it returns what the function returns.
    """

    closed: Any
    program: Scope
    findings: Findings
    arrays: Sequence[Any]
    restore: Callable[[Sequence[Any]], Any]

    def run(self, keeper: Keeper, adder: Adder | None = None) -> tuple[Any, dict[int, Any]]:
        """Return what the function returns, and what `keeper` keeps; `adder` changes weights on the way."""
        results, kept = run(self.program, self.arrays, keeper, adder)
        return self.restore(results), kept


def trace(function: Callable, args: tuple, kwargs: dict) -> Traced:
    """Trace a function: the arrays among its arguments are traced, all else is passed as it is."""
    given, arrays = take_arrays((args, kwargs))
    returned: dict[str, Callable] = {}

    def flat(*arrays: jax.Array) -> list[jax.Array]:
        args, kwargs = given(arrays)
        returned["restore"], results = take_arrays(function(*args, **kwargs))
        return results

    closed = jax.make_jaxpr(flat)(*arrays)
    program = read(closed)
    return Traced(closed, program, find(program), arrays, returned["restore"])


def take_arrays(tree: Any) -> tuple[Callable[[Sequence[Any]], Any], list[Any]]:
    """Take the arrays out of a tree, and return what puts others in their place."""
    leaves, structure = jax.tree.flatten(tree)
    is_array = [isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in leaves]

    def restore(arrays: Sequence[Any]) -> Any:
        those = iter(arrays)
        filled = [next(those) if array else leaf for leaf, array in zip(leaves, is_array, strict=True)]
        return jax.tree.unflatten(structure, filled)

    return restore, [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]


def model_name(model: Any) -> str:
    """Name a model by its class, or by its own name if it is a function."""
    while isinstance(model, functools.partial):
        model = model.func
    owner = model.__self__ if inspect.ismethod(model) else model
    return getattr(owner, "__name__", None) or type(owner).__name__


def _layer(site: Site, number: int, weights: jax.Array) -> Layer:
    """Bring loops that are no layers to the batch or the heads: `[*layer loops, *batch, head, query, key]`."""
    layers = [i for i, kind in enumerate(site.layers) if kind == "layer"]
    batch = [i for i, kind in enumerate(site.layers) if kind == "batch"]
    heads = [i for i, kind in enumerate(site.layers) if kind == "head"]
    n_axes, n_loops = weights.ndim, len(site.layers)
    order = (*layers, *batch, *range(n_loops, n_axes - 3), *heads, *range(n_axes - 3, n_axes))
    weights = weights.transpose(order)
    shape = weights.shape[: n_axes - 3 - len(heads)]
    weights = weights.reshape(*shape, -1, *weights.shape[-2:])
    scans = tuple(id(site.loops[i]) for i in layers)
    return Sown((*site.path.strip("/").split("/"),), number, scans, 0), weights


def refuse(traced: Traced, name: str) -> None:
    """Raise unless all attention was found, and there is some."""
    findings, kernels = traced.findings, _kernels(traced.closed)
    fused = [
        kernel for kernel in kernels if any(word in kernel.lower() for word in ("attention", "flash", "attn", "mha"))
    ]
    refused = findings.refused + [
        f"{kernel}: fused attention, whose weights never exist. {_UNFUSE}" for kernel in fused
    ]
    if refused:
        n_found = f" ({len(findings.sites)} others were found)" if findings.sites else ""
        raise ValueError(
            f"{len(refused)} attentions of {name} cannot be taken{n_found}, and the network must not lack layers:\n"
            + "\n".join(f"  {reason}" for reason in dict.fromkeys(refused))
        )
    if findings.sites:
        return
    seen = [f"  - {reason}" for reason in dict.fromkeys(findings.other)]
    seen += [
        f"  - {kernel}: a kernel, into which no trace looks. If it computes attention: {_UNFUSE}" for kernel in kernels
    ]
    raise ValueError(
        f"No attention was found in {name}: nowhere in it does a softmax of queries times keys weigh values.\n"
        + ("Seen were:\n" + "\n".join(seen) + "\n" if seen else "")
        + "Linear attention and recurrences have no such weights. Attention that you have as arrays needs no capture: "
        "Attention(encoder=array)."
    )


_UNFUSE = (
    "Switch the kernel off for the capture: implementation='xla' of jax.nn.dot_product_attention, "
    "attention='dot_product' or use_flash_attention=False in a model's config. Or compute the weights from queries "
    "and keys: jaxflow.attention_weights(query, key)."
)


def _kernels(closed: Any) -> Sequence[str]:
    """Name the operations that hide what they compute."""
    names: dict[str, None] = {}
    for eqn in equations(closed):
        primitive = eqn.primitive.name
        if any(word in primitive for word in KERNELS):
            known = [
                eqn.params.get(key)
                for key in ("name", "name_and_src_info", "target_name", "call_target_name", "callback")
            ]
            inside = getattr(getattr(eqn.params.get("jaxpr"), "debug_info", None), "func_src_info", None)
            label = next((str(value).split(" at ")[0] for value in (*known, inside) if value), "")
            names[f"{primitive} {label}".strip()] = None
    return list(names)


def _check_rows(layers: Sequence[Layer]) -> None:
    """Raise if what was taken cannot be a softmax, which would be a fault of ours; only where there are values."""
    for sown, weights in layers:
        if is_traced(weights) or not weights.size:
            continue
        total = at_least_float32(weights).sum(-1)
        excess = float(jax.numpy.nanmax(total)) - 1
        if excess > 0.05:  # bfloat16 sums to 1 within a hundredth
            raise ValueError(
                f"{sown}: what was taken for attention has rows that sum to {1 + excess:.6g}, so it is none, or it "
                "is scaled after the softmax. Build Attention(encoder=...) of what you mean by it."
            )
