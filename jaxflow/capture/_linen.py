"""Capture from any flax.linen module, through the `intermediates` collection."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
from flax.core.scope import in_filter, union_filters

from jaxflow._attention import Attention, Provenance
from jaxflow.capture._asking import ask_linen, ask_transformers
from jaxflow.capture._fusing import Stacks, run_fused
from jaxflow.capture._head_reduction import Heads
from jaxflow.capture._marking import run_marked
from jaxflow.capture._marks import Marks
from jaxflow.capture._ordering import listed, shape, stack
from jaxflow.capture._roles import Path, Role, linen_roles
from jaxflow.capture._sown import COLLECTION, Fuse, Layer, Recorder, read, without_weights
from jaxflow.capture._t5 import mended_t5

DEFAULT_NAME = "attention_weights"


def capture_linen(
    model: nn.Module,
    args: tuple,
    kwargs: dict,
    *,
    variables: Mapping | None,
    sown: str,
    roles: Mapping[str, Role] | None,
    fuse_heads: Heads | None = None,
    marks: Marks | None = None,
) -> tuple[Any, Attention]:
    """Run a linen module once, bound or with `variables`, and take the attention that its modules sow.

    Args:
        model: a bound module, or an unbound one.
        args: positional arguments of the method that is called.
        kwargs: its keywords, and those of `nn.Module.apply`: rngs, method, mutable, capture_intermediates.
        variables: what `apply` takes; None for a bound module, which holds its own.
        sown: the name under which attention is sown.
        roles: the stack of modules whose path tells it wrongly or not: fragment of the path -> stack.
        fuse_heads: heads, as in `joint_capacities`, to make one of all where they are sown.
        marks: where to mark the attention, to differentiate by it; heads are not fused then.

    Returns:
        What `apply` returns, with the state if `mutable` asks for it (a bound module: what calling it returns; its
        own state stays as it is), and the attention; of one head if heads are fused.

    Raises:
        ValueError: variables missing or given twice; no attention, or not that of all layers.
    """
    name = type(model).__name__
    kwargs = {**kwargs, "sown": sown, "roles": roles, "fuse_heads": fuse_heads, "marks": marks}
    if model.scope is None:
        if variables is None:
            raise ValueError(
                f"{name} is an unbound linen module, so it has no variables. Call capture(model, ..., "
                "variables=variables), or bind it first: model.bind(variables)."
            )
        return capture_apply(model, variables, *args, **kwargs)
    if variables is not None:
        raise ValueError(
            f"{name} is bound and holds its own variables, but got variables= as well. Leave them out, or take the "
            "module without its own: model.unbind()[0]."
        )
    scope = model.scope
    model, variables = model.unbind()
    kwargs = {"rngs": dict(scope.rngs), **kwargs}
    if "mutable" in kwargs:
        return capture_apply(model, variables, *args, **kwargs)
    # The module may write to what it was bound with as mutable, here to a copy; calling it returns no state.
    mutable = union_filters(scope.mutable, ())
    (outputs, _), attention = capture_apply(model, variables, *args, mutable=mutable, **kwargs)
    return outputs, attention


def capture_apply(
    module: nn.Module,
    variables: Mapping,
    *args: Any,
    sown: str = DEFAULT_NAME,
    roles: Mapping[str, Role] | None = None,
    fuse_heads: Heads | None = None,
    marks: Marks | None = None,
    **kwargs: Any,
) -> tuple[Any, Attention]:
    """Return what `module.apply(variables, *args, **kwargs)` returns, and the attention sown meanwhile."""
    wanted = kwargs.pop("mutable", False)
    if kwargs.get("capture_intermediates"):
        wanted = union_filters(wanted, COLLECTION)

    provenance = Provenance("linen")

    def run(fuse: Fuse | None) -> tuple[Any, Mapping, Stacks]:
        nonlocal provenance
        recorder = Recorder(sown, wanted, fuse)
        with contextlib.ExitStack() as interceptors:
            interceptors.enter_context(nn.intercept_methods(recorder.watch))
            if sown == DEFAULT_NAME:  # another name means what is sown under it, and nothing that we force
                interceptors.enter_context(nn.intercept_methods(ask_linen(recorder)))
                interceptors.enter_context(nn.intercept_methods(ask_transformers(recorder)))
            interceptors.enter_context(mended_t5())
            outputs, state = module.apply(variables, *args, mutable=union_filters(wanted, COLLECTION), **kwargs)
        if recorder.roles:
            provenance = Provenance("transformers")
        return outputs, state, _stacks(recorder, state.get(COLLECTION, {}), type(module).__name__, roles)

    if marks is not None:
        outputs, state, stacks = run_marked(run, marks)
    else:
        outputs, state, stacks = run(None) if fuse_heads is None else run_fused(run, fuse_heads)
    attention = Attention(**{role: stack(layers) for role, layers in stacks.items()}, provenance=provenance)
    if wanted is False:
        return outputs, attention
    state = {collection: tree for collection, tree in state.items() if in_filter(wanted, collection)}
    return (outputs, without_weights(state)), attention


def _stacks(recorder: Recorder, intermediates: Mapping, model: str, said: Mapping[str, Role] | None) -> Stacks:
    """Sort what was recorded by stack, or say why it is not the attention of one model."""
    _refuse_incomplete(recorder, model)
    layers = read(recorder, intermediates)
    paths = dict.fromkeys(sown.path for sown, _ in layers)
    roles = linen_roles(model, paths, known=recorder.roles, self_attention=recorder.self_attention, said=said)
    return by_role(model, layers, roles)


def by_role(model: str, layers: Sequence[Layer], roles: Mapping[Path, Role]) -> Stacks:
    """Sort layers by the stack they belong to, or say why they make none."""
    stacks = {
        role: [layer for layer in layers if roles[layer[0].path] == role] for role in dict.fromkeys(roles.values())
    }
    for role, stacked in stacks.items():
        oblong = [layer for layer in stacked if shape(layer)[-1] != shape(layer)[-2]]
        if oblong and role != "cross":
            raise ValueError(
                f"The {role} of {model} has attention whose keys are more or fewer than its "
                f"queries:\n{listed(oblong)}\n"
                'If it is cross-attention, say so by a fragment of its path: capture(..., roles={"cross": "cross"}). '
                "If "
                "it is one step of decoding with a cache, capture the pass over the whole sequence instead."
            )
    return stacks


def _refuse_incomplete(recorder: Recorder, model: str) -> None:
    """Raise unless every attention that was seen to run has given its weights, and there is one."""
    lost = recorder.silent | {
        path: f"sown inside {where}, which keeps 'intermediates' to itself. Declare "
        'variable_axes={"intermediates": 0} in that nn.scan, beside what it declares already'
        for path, where in recorder.unreached.items()
    }
    if lost:
        n_modules = len({path for path, _ in recorder.weights} | set(lost))
        reasons = "\n".join(f"  {'/'.join(path) or model}: {why}." for path, why in lost.items())
        raise ValueError(
            f"{len(lost)} of {n_modules} attention modules of {model} gave no weights, and the network must not "
            f"lack layers:\n{reasons}"
        )
    if not recorder.weights:
        names = ", ".join(sorted(map(repr, recorder.names))) or "nothing"
        raise ValueError(
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
