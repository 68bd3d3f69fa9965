"""Record what flax modules sow while they run, in the order in which they ran.

Sown values come back as a tree that is sorted by name: `layer_10` before `layer_2`, and a name may say nothing at
all. So a `Recorder` watches the calls of one `module.apply`, and notes for every sown weight its place in that
tree and when it was sown; `read` takes the leaves in that order. Nothing is patched: the recorder is a
flax method interceptor, whose stack belongs to the thread, and what it changes are the modules' bound copies,
which flax makes for this one `apply` and throws away.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

import chex
import flax.linen as nn
import jax.numpy as jnp
from flax.core import freeze
from flax.core.scope import CollectionFilter, in_filter

from jaxflow.models._recording import Keep, Layer, LayerPlace, NotRecordedError, Path, Role

COLLECTION = "intermediates"
# Weights are kept under a name that no module attribute can have: the user's own sown values, of this call or
# left over in `variables`, stay apart from ours.
_NAME = "jaxflow attention"
_serials = itertools.count()


class Recorder:
    """Watches one run of a flax module: `nn.intercept_methods(recorder.watch)`.

    Attributes:
        name: the sown name that is attention.
        wanted: the collections that the user declared mutable; what they sow by themselves follows it.
        keep: what is recorded of each module's weights; None for the weights themselves.
        forced: the modules made to sow at this moment, though the user did not ask them to.
        weights: the places of the sown weights, in order of execution.
        n_recorded: how many weights were offered, retraced loop bodies and lost ones included.
        unreached: modules whose weights a lifted transform does not let out, and the scope's path with it.
        silent: attention modules that ran and gave no weights, and why.
        self_attention: of modules that tell, whether keys and queries were the same array, in each of their calls.
        roles: the stack of the modules of transformers.
        names: every name that was sown, for the error message when none was `name`.
    """

    def __init__(self, name: str, wanted: CollectionFilter = False, keep: Keep | None = None) -> None:
        """Start with nothing seen."""
        self.name = name
        self.wanted = wanted
        self.keep = keep
        self.forced: list[nn.Module] = []
        self.weights: dict[tuple[Path, int], LayerPlace] = {}
        self.n_recorded = 0
        self.unreached: dict[Path, str] = {}
        self.silent: dict[Path, str] = {}
        self.self_attention: dict[Path, set[bool]] = {}
        self.roles: dict[Path, Role] = {}
        self.names: set[str] = set()
        self._calls: list[tuple[int, int]] = []  # serial number of the call, and the scans around it

    def watch(self, call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        """Intercept every method: note its place among the calls, and hear what the module sows."""
        module = context.module
        if module.scope is None:
            return call(*args, **kwargs)
        # Every module below inherits the flags, and nn.jit hashes them.
        if "jaxflow" not in module.scope.flags:
            module.scope.flags = freeze({**module.scope.flags, "jaxflow": _NeverTheSame()})
        if "sow" not in vars(module):
            object.__setattr__(module, "sow", functools.partial(self._sow, module))
        self._calls.append((next(_serials), _count("scan", module)))
        try:
            return call(*args, **kwargs)
        finally:
            self._calls.pop()

    def _sow(self, module: nn.Module, col: str, name: str, value: Any, *args: Any, **kwargs: Any) -> bool:
        """Stand in for `module.sow`: keep attention, then do what the call would have done without us."""
        self.names.add(name)
        if name == self.name:
            self.record(module, value)
        unasked = any(module is other for other in self.forced) or not in_filter(self.wanted, COLLECTION)
        if col == COLLECTION and unasked:
            return False
        return type(module).sow(module, col, name, value, *args, **kwargs)

    def record(self, module: nn.Module, weights: chex.Array) -> None:
        """Keep `weights`, shape `[*batch, head, query, key]`, as the next attention of `module`."""
        scope = module.scope
        assert scope is not None
        self.n_recorded += 1
        if getattr(weights, "ndim", 0) < 3:
            got = getattr(weights, "shape", type(weights).__name__)
            raise ValueError(
                f"{'/'.join(scope.path)} sowed {self.name!r} of shape {got}; expected attention probabilities, "
                "[*batch, head, query, key]. If these lie under another name, pass it as sown=."
            )
        if not scope.is_mutable_collection(COLLECTION):
            self.unreached[scope.path] = scope.path_text
            return
        index = len(scope.get_variable(COLLECTION, _NAME, ()))
        # A body traced a second time sows the same values at the same index: the first trace names the order.
        place = LayerPlace(scope.path, index, self._scans(_count("scan", module)), _count("vmap", module))
        self.weights.setdefault((scope.path, index), place)
        if self.keep is not None:
            weights = self.keep(place, weights)
        # The empty array goes through the same loops as the weights, so that afterwards its axes of non-zero
        # length are the axes which the loops added, wherever variable_axes put them.
        empty = jnp.zeros((0,) * weights.ndim, weights.dtype)
        nn.Module.sow(module, COLLECTION, _NAME, (weights, empty))

    def _scans(self, depth: int) -> tuple[int, ...]:
        """Return, per enclosing scan, the number of the first call inside it: it tells runs apart."""
        return tuple(next(serial for serial, scans in self._calls if scans > level) for level in range(depth))


class _NeverTheSame:
    """Keeps nn.jit from taking an earlier trace, or that of a sibling: a body not traced now sows unheard."""

    def __hash__(self) -> int:
        return next(_serials)


def _count(transform: str, module: nn.Module) -> int:
    """Count the lifted transforms of that name around `module`: flax writes them into the debug path."""
    assert module.scope is not None
    return len(re.findall(rf"\b{transform}\(", module.scope.path_text))


def refuse_incomplete(recorder: Recorder, model: str) -> None:
    """Raise unless every attention module that ran has given its weights, and there is one."""
    lost = recorder.silent | {
        path: f"sown inside {where}, which keeps 'intermediates' to itself. Declare "
        'variable_axes={"intermediates": 0} in that nn.scan, beside what it declares already'
        for path, where in recorder.unreached.items()
    }
    if lost:
        n_modules = len({path for path, _ in recorder.weights} | set(lost))
        reasons = "\n".join(f"  {'/'.join(path) or model}: {why}." for path, why in lost.items())
        raise NotRecordedError(
            f"{len(lost)} of {n_modules} attention modules of {model} gave no weights, and the network must not "
            f"lack layers:\n{reasons}"
        )
    if not recorder.weights:
        names = ", ".join(sorted(map(repr, recorder.names))) or "nothing"
        raise NotRecordedError(
            f"No attention was found in {model}: nothing was sown as {recorder.name!r} (sown was: {names}). Likely "
            "causes:\n"
            "  - the weights are sown under another name: capture(..., sown=name);\n"
            "  - the model computes its own softmax: capture it as a function, capture(lambda x: "
            "model.apply(variables, x), x), or sow "
            'the weights there, self.sow("intermediates", "attention_weights", weights), or build '
            "Attention(encoder=...) of them;\n"
            "  - attention is fused (jax.nn.dot_product_attention or a kernel), and its weights never exist: use "
            "nn.MultiHeadDotProductAttention, or nn.dot_product_attention with module=self, for the capture;\n"
            '  - it runs in an nn.scan without variable_axes={"intermediates": 0}, which drops what is sown.'
        )


def read(recorder: Recorder, intermediates: Mapping) -> list[Layer]:
    """Look up the recorded weights in the tree that the run left.

    Args:
        recorder: watched the run.
        intermediates: the collection of that name after the run.

    Returns:
        Layers, in order of execution.

    Raises:
        NotRecordedError: a weight was lost on its way out of a lifted transform; loops cannot be told from batches.
    """
    layers = [(place, _loops_first(place, *_find(place, intermediates))) for place in recorder.weights.values()]
    n_found = _count_weights(intermediates)
    if n_found != len(layers):
        raise NotRecordedError(
            f"The model sowed {n_found} weights, but only {len(layers)} of them while it ran: a part of it was traced "
            "earlier (a jit inside it?), so its place in depth is unknown. Put jax.jit around the call of capture."
        )
    return layers


def _find(place: LayerPlace, intermediates: Mapping) -> tuple[chex.Array, chex.Array]:
    """Look up the weights, and the empty array beside them."""
    try:
        return functools.reduce(lambda tree, key: tree[key], place.path, intermediates)[_NAME][place.index]
    except (KeyError, IndexError):
        raise NotRecordedError(
            f"The attention of {place} was sown inside a lifted transform (nn.while_loop, nn.vjp, ...) that does not "
            "hand 'intermediates' out. Capture the module inside it by itself."
        ) from None


def _loops_first(place: LayerPlace, weights: chex.Array, empty: chex.Array) -> chex.Array:
    """Move the axes that lifted loops added to the front: scans outermost first, or else batch axes."""
    added = [axis for axis, length in enumerate(empty.shape) if length]
    if len(added) != len(place.scans) + place.vmaps or (place.scans and place.vmaps):
        raise NotRecordedError(
            f"The attention of {place} lies inside {len(place.scans)} nn.scan and {place.vmaps} nn.vmap, which added "
            f"{len(added)} axes: it cannot be told which of them are layers and which are batch. Take nn.vmap out of "
            "the model, and map the call of capture with jax.vmap."
        )
    return jnp.moveaxis(weights, added, range(len(added)))


def without_weights(state: Any) -> Any:
    """Return the tree `state` without the weights kept in it, and the branches that held nothing else."""
    if not isinstance(state, Mapping):
        return state
    pruned = {}
    for key, value in state.items():
        rest = without_weights(value)
        emptied = isinstance(rest, Mapping) and not rest and len(value)
        if key != _NAME and not emptied:
            pruned[key] = rest
    return pruned


def _count_weights(state: Any) -> int:
    """Count the weights kept in the tree `state`."""
    if not isinstance(state, Mapping):
        return 0
    return sum(len(value) if key == _NAME else _count_weights(value) for key, value in state.items())
