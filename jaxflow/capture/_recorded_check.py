"""What a trace shows of a model that records its attention: whether it recorded all, and what else mixes tokens."""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from jaxflow.capture._mixing import mixing_of
from jaxflow.capture._recorded import record_stacks
from jaxflow.capture._trace import trace
from jaxflow.capture._tracing.program import Scope, Value
from jaxflow.capture._tracing.sites import find
from jaxflow.models import (
    DEFAULT_NAME,
    LayerPlace,
    Model,
    NotRecordedError,
    UnclearRolesError,
    is_hashable,
    take_arrays,
)

NAME = "jaxflow recorded"  # of recorded arrays in the trace
N_KEPT = 64  # models, each with the shapes of its inputs, of which it is known what their traces show
NO_TRACE = "(the model cannot be traced, so whether tokens are mixed by something other than attention is not known)"


@dataclasses.dataclass(frozen=True)
class Checked:
    """What the trace of a model that records its attention shows.

    Attributes:
        serves: whether what it records is all its attention.
        error: why it does not, where the model itself tells.
        mixing: as in `Attention.mixing`.
    """

    serves: bool = True
    error: NotRecordedError | UnclearRolesError | None = None
    mixing: tuple[str, ...] = ()


def records(model: Model) -> bool:
    """Whether a model has a way of its own to record its attention."""
    return type(model).record is not Model.record


def check_recorded(model: Model, args: tuple, kwargs: Mapping[str, Any]) -> Checked:
    """Trace a model that records its attention, without a run; what was found is kept for the next inputs of these shapes.

    Args:
        model: the model. One that is known to mix nothing (`Model.mixing` is "none") is not traced.
        args: what it is called with.
        kwargs: what it is called with.

    Raises:
        ValueError: as `Model.record`, but for attention that is not recorded; tokens are mixed, and that is not accepted.
    """
    if model.mixing == "none":
        return Checked()
    key = _key(model, args, kwargs)
    with _lock:
        if key in _known:
            _known.move_to_end(key)
            return _known[key]
    checked = _check(model, args, kwargs)
    if key is not None:
        with _lock:
            _known[key] = checked
            while len(_known) > N_KEPT:
                _known.popitem(last=False)
    return checked


def _check(model: Model, args: tuple, kwargs: Mapping[str, Any]) -> Checked:
    # A table that is a NumPy array cannot be indexed by what is traced.
    bound = model.bind(
        jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, model.parameters)
    )
    n_recorded = 0

    def keep(place: LayerPlace, weights: jax.Array) -> jax.Array:
        return checkpoint_name(weights, NAME)

    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal n_recorded
        recorded = record_stacks(bound, args, kwargs, keep)
        if recorded is None:
            return None
        n_recorded = sum(map(len, recorded.stacks.values()))
        _ = recorded.attention  # layers that make no one stack are told first
        return recorded.outputs, [weights for layers in recorded.stacks.values() for _, weights in layers]

    try:
        traced = trace(run, args, kwargs)
    except NotRecordedError as error:
        return Checked(serves=model.sown != DEFAULT_NAME, error=error)
    except UnclearRolesError as error:
        return Checked(serves=model.roles is not None or model.sown != DEFAULT_NAME, error=error)
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):
        return Checked(mixing=(NO_TRACE,))
    findings = find(traced.program)
    n_found = len(findings.sites) + len(set(findings.refused))  # the branches of one cond are refused alike
    if n_found > n_recorded and model.sown == DEFAULT_NAME:
        return Checked(serves=False)
    shows_all = len(findings.sites) >= n_recorded
    return Checked(
        mixing=mixing_of(model, traced.program, findings.sites, () if shows_all else _recorded_values(traced.program))
    )


def _recorded_values(scope: Scope) -> set[Value]:
    """Find the arrays in a program that were recorded."""
    found = {op.ins[0] for op in scope.ops if op.name == "name" and op.params["name"] == NAME}
    return found.union(*(_recorded_values(body) for op in scope.ops for body in op.bodies))


def _key(model: Model, args: tuple, kwargs: Mapping[str, Any]) -> Hashable:
    """Return what the program of a model depends on; None where it cannot be told."""
    split = model.split()
    if split is None:
        return None
    rest, arrays = take_arrays((args, dict(kwargs)))
    others, held = take_arrays(split[1])
    shapes = tuple((array.shape, str(array.dtype)) for array in (*arrays, *held))
    key = (type(model), split[0], rest, others, shapes)
    return key if is_hashable(key) else None


_known: collections.OrderedDict[Hashable, Checked] = collections.OrderedDict()
_lock = threading.Lock()
