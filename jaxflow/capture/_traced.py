"""Capture from a model that is traced: find its attention in the program, and run the program again, keeping the weights."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow._attention import STACKS, Attention, Provenance, at_least_float32, is_traced
from jaxflow.capture._differentiable import Differentiable
from jaxflow.capture._frozen import FrozenModel
from jaxflow.capture._missing import refuse_missing
from jaxflow.capture._mixing import mixing_of, remarked
from jaxflow.capture._ordering import stack
from jaxflow.capture._trace import Traced, trace
from jaxflow.capture._traced_sown import of_sown
from jaxflow.capture._tracing import axes as ax
from jaxflow.capture._tracing.additions import Adder, Place, place_of
from jaxflow.capture._tracing.caches import ReadsCacheError
from jaxflow.capture._tracing.crossings import Queries, ending_in_output
from jaxflow.capture._tracing.scores import Part
from jaxflow.capture._tracing.sites import Findings, Site, find
from jaxflow.capture._tracing.stacks import traced_roles
from jaxflow.capture._tracing.weights import Keeper, laid_out
from jaxflow.models import Layer, LayerPlace, Model, Role, UnclearRolesError


def trace_model(model: Model, args: tuple, kwargs: Mapping[str, Any]) -> Differentiable:
    """Trace a model, and take the attention that it sows if it is all that the trace shows, else that of the trace.

    Args:
        model: the model. Of attention that is found in the trace, the path that `model.roles` speaks of is made of the named
            scopes (`jax.named_scope`) and jitted functions around it, and of its number in order of execution:
            `/decoder/layer_0/3/`. Of attention that is sown, it is the path of the module.
        args: what it is called with.
        kwargs: what it is called with.

    Raises:
        ValueError: no attention; attention that cannot be taken; stacks that cannot be told.
    """
    traced = trace(lambda *args, **kwargs: model.sow(args, kwargs), args, kwargs)
    findings = find(traced.program)
    _, sown = traced.restore(traced.program.outs)
    n_sown = sum(map(len, sown.values()))
    if n_sown and n_sown >= len(findings.sites) + len(findings.refused):
        shows_all = len(findings.sites) == n_sown
        if shows_all and model.roles is None and any(v.shape[-1:] != v.shape[-2:-1] for v in jax.tree.leaves(sown)):
            return _of_findings(
                model, traced, findings
            )  # the modules' paths do not tell which queries read another sequence
        weights = () if shows_all else {value for value in jax.tree.leaves(sown) if len(value.shape) >= 3}
        mixing = mixing_of(model, traced.program, findings.sites, weights)
        return with_remark(of_sown(model, traced, sown), mixing)
    try:
        refuse_missing(model.name, traced.closed, findings)
    except ValueError as error:
        if not n_sown:
            raise
        message = f"{model.name} sows {n_sown} weights as {model.sown!r}, and computes more attention.\n{error}"
        raise ValueError(message) from None
    return _of_findings(model, traced, findings)


def trace_unrecorded(model: Model, args: tuple, kwargs: Mapping[str, Any], error: ValueError | None) -> Differentiable:
    """Trace a model that was to record its attention, and did not record all of it: because of `error`, where it told.

    Raises:
        ValueError: as `trace_model`, with what the model told.
    """
    try:
        found = trace_model(model, args, kwargs)
        if isinstance(error, UnclearRolesError):
            _, attention = jax.eval_shape(lambda: found.run({}))
            if not attention.provenance.reads_only:
                raise error  # the trace tells only which queries are nobody's tokens
    except ValueError as refused:
        if error is None:
            raise
        if isinstance(refused, ReadsCacheError):
            raise
        if isinstance(error, UnclearRolesError):
            raise error from None
        raise ValueError(
            f"{refused}\nIt was traced, because its modules did not hand over all attention: {error}"
        ) from None
    return found


def with_remark(differentiable: Differentiable, mixing: tuple[str, ...]) -> Differentiable:
    """Let the attention of a model say what else mixes tokens."""
    if not mixing:
        return differentiable

    def run(added: Mapping[str, Any], by: type[Adder] = Adder) -> tuple[Any, Attention]:
        outputs, attention = differentiable.run(added, by)
        return outputs, remarked(attention, mixing)

    return dataclasses.replace(differentiable, run=run, mixing=mixing)


def _of_findings(model: Model, traced: Traced, findings: Findings) -> Differentiable:
    """Take the attention that was found in the trace."""
    sites = findings.sites
    roles = traced_roles(model.name, traced.program, sites, model.roles)

    @functools.cache
    def places() -> dict[str, Place]:
        return {str(number): place_of(site, sites) for number, site in enumerate(sites)}

    def run(added: Mapping[str, Any], by: type[Adder] = Adder) -> tuple[Any, Attention]:
        (outputs, _), kept = traced.run(Keeper(sites), places() if added else None, added, by)
        layers = [_layer(site, number, kept[number]) for number, site in enumerate(sites)]
        _check_rows(layers)
        return outputs, _stacked(layers, roles)

    def arrange(gradients: Mapping[str, Any]) -> Attention:
        layers = []
        for number, site in enumerate(sites):
            value, gradient = places()[str(number)].value, gradients[str(number)]
            backwards = [axis for axis, loop in enumerate(site.loops) if loop.params["reverse"]]
            lay_out = functools.reduce(lambda f, _: jax.vmap(f), site.loops, functools.partial(laid_out, site, value))
            layers.append(_layer(site, number, lay_out(jax.numpy.flip(gradient, backwards))))
        return _stacked(layers, roles, to_itself=0)

    def freeze() -> FrozenModel:
        top = ending_in_output(roles)
        return FrozenModel.of(
            traced,
            places(),
            keeper=Keeper(sites),
            attend=lambda _, kept: _stacked([_layer(site, i, kept[i]) for i, site in enumerate(sites)], roles),
            products={s.product.op for site in sites for s in (site.softmax, *site.also)},
            queries=[_queries(site) for site, role in zip(sites, roles, strict=True) if role in top],
        )

    try:
        mixing = mixing_of(model, traced.program, sites)
    except ValueError:
        jax.eval_shape(lambda: run({}))  # layers that make no one stack are told first
        raise
    return with_remark(Differentiable(places, run, arrange, freeze), mixing)


def _queries(site: Site) -> Queries:
    """Say which axes of what a site gives are its queries and its examples."""
    (given,) = site.softmax.product.op.outs
    axes, parts = site.scores.axes[given], site.scores.parts

    def places(part: Part) -> list[int]:
        origins = {place for place, own in parts.items() if own == part}
        return [i for i, axis in enumerate(axes) if ax.origins(axis) & origins]

    return Queries(given, places("query"), places("batch"))


def _stacked(layers: Sequence[Layer], roles: Sequence[Role], to_itself: int = 1) -> Attention:
    """Stack the layers of each stack.

    Queries that read another sequence and never each other, such as the learned query of pooling by attention, are a decoder
    whose tokens see themselves alone: by `to_itself`.
    """
    stacks = {
        role: stack([layer for layer, own in zip(layers, roles, strict=True) if own == role]) for role in set(roles)
    }
    crossing = None if "decoder" in stacks else stacks.get("cross")
    if crossing is not None:
        n_queries = crossing.shape[-2]
        alone = to_itself * jnp.eye(n_queries, dtype=crossing.dtype)
        stacks["decoder"] = jnp.broadcast_to(alone, (*crossing.shape[:-1], n_queries))
    return Attention(**stacks, provenance=Provenance("traced", reads_only=crossing is not None))


def _layer(site: Site, number: int, weights: jax.Array) -> Layer:
    """Move the axes of loops over examples to the batch, and those of loops over heads to the heads.

    Returns:
        `[*scans, *batch, head, query, key]`, where scans go over layers.
    """
    layers = [i for i, kind in enumerate(site.layers) if kind == "layer"]
    batch = [i for i, kind in enumerate(site.layers) if kind == "batch"]
    heads = [i for i, kind in enumerate(site.layers) if kind == "head"]
    n_axes, n_loops = weights.ndim, len(site.layers)
    order = (*layers, *batch, *range(n_loops, n_axes - 3), *heads, *range(n_axes - 3, n_axes))
    weights = weights.transpose(order)
    shape = weights.shape[: n_axes - 3 - len(heads)]
    weights = weights.reshape(*shape, -1, *weights.shape[-2:])
    scans = tuple(id(site.loops[i]) for i in layers)
    return LayerPlace((*site.path.strip("/").split("/"),), number, scans), weights


def _check_rows(layers: Sequence[Layer]) -> None:
    """Raise if what was taken cannot be a softmax, which would be a fault of this package.

    Under `jit` nothing is checked: there are no values. `check_softmax` does it afterwards.
    """
    for place, weights in layers:
        if not is_traced(weights) and weights.size:
            _check_sums(str(place), np.nanmax(np.asarray(at_least_float32(weights).sum(-1))))


def check_softmax(model: str, attention: Attention) -> None:
    """Raise if attention of a traced model that ran compiled cannot be a softmax.

    Raises:
        ValueError: it cannot.
    """
    if attention.backend != "traced":
        return
    for name in STACKS:
        weights = getattr(attention, name)
        if weights is not None and weights.size:
            _check_sums(f"the {name} of {model}", np.nanmax(np.asarray(weights, np.float32).sum(-1)))


def _check_sums(where: str, largest: np.floating) -> None:
    if largest > 1.05:  # bfloat16 sums to 1 within a hundredth
        raise ValueError(
            f"{where}: what was taken for attention has rows that sum to {largest:.6g}, so it is none, or it "
            "is scaled after the softmax. Build Attention(encoder=...) of what you mean by it."
        )
