"""Tell attention over a cache: keys that are written into, or put behind, an array that comes from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp

from jaxflow.capture._tracing.program import Op, Scope, Value
from jaxflow.capture._tracing.scores import length_of
from jaxflow.capture._tracing.sites import Site

WRITES = {"dynamic_update_slice", "scatter", "scatter-add", "scatter_add", "concatenate"}


class ReadsCacheError(ValueError):
    """Attention over a cache, which makes no network: the queries of earlier tokens are not there."""


def refuse_caches(name: str, sites: Sequence[Site]) -> None:
    """Raise if queries read more keys than there are queries, out of an array that the function is given.

    Raises:
        ReadsCacheError: they do; with what to do.
    """
    found = []
    for site in sites:
        made = site.scores.axes[site.scores.op.outs[0]]
        n_queries, n_keys = length_of(site.scores, made, "query"), length_of(site.scores, made, "key")
        if n_keys > n_queries and _is_written(site):
            found.append(f"  {site.path}: {n_queries} queries, {n_keys} keys")
    if found:
        raise ReadsCacheError(
            f"{name} runs with a cache, or a prefix of keys: keys are written into, or put behind, an array that it is given, "
            "and there are more of them than queries:\n"
            + "\n".join(found)
            + "\nThat is one step of a generation, or a prompt in a longer "
            "cache, and no network of all tokens. Call it on the whole sequence without the cache (cache=None, decode=False, "
            "use_cache=False): its attention is causal, so it has every step's."
        )


def _is_written(site: Site) -> bool:
    """Whether the keys of an attention are written into something that comes from outside, without a product in between."""
    producers = site.scope.producers()
    return any(
        _comes_from_outside(other, site.scope, producers)
        for op in _behind(site.scores.op.ins[site.scores.key_side], producers)
        if op.name in WRITES
        for other in op.ins
    )


def _behind(value: Value, producers: Mapping[Value, Op]) -> list[Op]:
    """List the operations that a value is computed by, up to products and lookups."""
    waiting, found = [value], []
    seen = {value}
    while waiting:
        op = producers.get(waiting.pop())
        if op is None or op.bodies or op.name in ("dot_general", "conv_general_dilated", "gather"):
            continue
        found.append(op)
        waiting += [each for each in op.ins if each not in seen]
        seen.update(op.ins)
    return found


def _comes_from_outside(value: Value, scope: Scope, producers: Mapping[Value, Op]) -> bool:
    """Whether a value is, but for its layout, an argument or an array that is closed over, of keys."""
    while (op := producers.get(value)) is not None:
        if op.bodies or len([each for each in op.ins if each.shape]) != 1:
            return False
        value = next(each for each in op.ins if each.shape)
    is_given = value in scope.ins or value.constant is not None
    return is_given and len(value.shape) >= 3 and value.dtype is not None and jnp.issubdtype(value.dtype, jnp.floating)
