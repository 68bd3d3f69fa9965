"""Record what flax modules sow while they run, in the order in which they ran.

Sown values come back as a tree that is sorted by name: `layer_10` before `layer_2`, and a name may say nothing at
all. So a `Recorder` watches the calls of one `module.apply`, and notes of every sown weight where it lies in that
tree and when it was sown; `read` takes the leaves in that order. Nothing is patched: the recorder is a
flax method interceptor, whose stack belongs to the thread, and what it changes are the modules' bound copies,
which flax makes for this one `apply` and throws away.
"""

from __future__ import annotations

import dataclasses
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

from jaxflow.capture._roles import Path, Role

COLLECTION = "intermediates"
# Weights are kept under a name that no module attribute can have: the user's own sown values, of this call or
# left over in `variables`, stay apart from ours.
_NAME = "jaxflow attention"
_serials = itertools.count()


@dataclasses.dataclass(frozen=True)
class Sown:
    """Where one sown weight lies, and the lifted loops in which it was sown.

    Attributes:
        path: the module that sowed it.
        index: the how manieth of this module's weights it is (a shared layer sows once a call).
        scans: one number per `nn.scan` around it, outermost first; equal numbers are one run of one scan.
        vmaps: how many `nn.vmap` are around it.
    """

    path: Path
    index: int
    scans: tuple[int, ...]
    vmaps: int

    def __str__(self) -> str:
        """Return the module's path, as flax writes it."""
        return "/".join(self.path) or "(the model itself)"


# Makes one head of all, `[*batch, 1, query, key]`, where it can; any weights keep their number of axes.
Fuse = Callable[[Sown, chex.Array], chex.Array]


class Recorder:
    """Watches one run of a flax module: `nn.intercept_methods(recorder.watch)`.

    Attributes:
        name: the sown name that is attention.
        wanted: the collections that the user declared mutable; what they sow by themselves follows it.
        forced: the modules made to sow at this moment, though the user did not ask them to.
        weights: the sown weights in the order of execution.
        n_recorded: how many weights were offered, retraced loop bodies and lost ones included.
        unreached: modules whose weights a lifted transform does not let out, and the scope's path with it.
        silent: attention modules that ran and gave no weights, and why.
        self_attention: of modules that tell, whether keys and queries were the same array, in each of their calls.
        roles: the stack of the modules of transformers.
        names: every name that was sown, for the error message when none was `name`.
        fuse: what is kept instead of the weights that the module of that path sows as the how manieth.
    """

    def __init__(self, name: str, wanted: CollectionFilter = False, fuse: Fuse | None = None) -> None:
        """Start with nothing seen."""
        self.name = name
        self.wanted = wanted
        self.fuse = fuse
        self.forced: list[nn.Module] = []
        self.weights: dict[tuple[Path, int], Sown] = {}
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
        place = Sown(scope.path, index, self._scans(_count("scan", module)), _count("vmap", module))
        self.weights.setdefault((scope.path, index), place)
        if self.fuse is not None:
            weights = self.fuse(place, weights)
        # The empty array goes through the same loops as the weights, so that afterwards its axes of non-zero
        # length are the axes which the loops added, wherever variable_axes put them.
        probe = jnp.zeros((0,) * weights.ndim, weights.dtype)
        nn.Module.sow(module, COLLECTION, _NAME, (weights, probe))

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


Layer = tuple[Sown, chex.Array]


def read(recorder: Recorder, intermediates: Mapping) -> list[Layer]:
    """Look up the recorded weights in the tree that the run left.

    Args:
        recorder: watched the run.
        intermediates: the collection of that name after the run.

    Returns:
        In order of execution, each weight's place and its array: `[*scans, *batch, head, query, key]`, with an
        axis for each `nn.scan` around it, outermost first.

    Raises:
        ValueError: a weight was lost on its way out of a lifted transform; loops cannot be told from batches.
    """
    layers = [(sown, _loops_first(sown, *_find(sown, intermediates))) for sown in recorder.weights.values()]
    n_found = _count_weights(intermediates)
    if n_found != len(layers):
        raise ValueError(
            f"The model sowed {n_found} weights, but only {len(layers)} of them while it ran: a part of it was traced "
            "earlier (a jit inside it?), so its place in depth is unknown. Put jax.jit around the call of capture."
        )
    return layers


def _find(sown: Sown, intermediates: Mapping) -> tuple[chex.Array, chex.Array]:
    """Look up the weights and their probe."""
    try:
        return functools.reduce(lambda tree, key: tree[key], sown.path, intermediates)[_NAME][sown.index]
    except (KeyError, IndexError):
        raise ValueError(
            f"The attention of {sown} was sown inside a lifted transform (nn.while_loop, nn.vjp, ...) that does not "
            "hand 'intermediates' out. Capture the module inside it by itself."
        ) from None


def _loops_first(sown: Sown, weights: chex.Array, probe: chex.Array) -> chex.Array:
    """Move the axes that lifted loops added to the front: scans outermost first, or else batch axes."""
    added = [axis for axis, length in enumerate(probe.shape) if length]
    if len(added) != len(sown.scans) + sown.vmaps or (sown.scans and sown.vmaps):
        raise ValueError(
            f"The attention of {sown} lies inside {len(sown.scans)} nn.scan and {sown.vmaps} nn.vmap, which added "
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
