"""Run `module.apply` of a linen module once, and record its attention."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from flax.core.scope import in_filter, union_filters

from jaxflow.models._model import DEFAULT_NAME
from jaxflow.models._recorder import COLLECTION, Recorder, read, refuse_incomplete, without_weights
from jaxflow.models._recording import Keep, Recording
from jaxflow.models._sowing import sow_linen
from jaxflow.models._transformers._attention import ask_transformers
from jaxflow.models._transformers._mending import mended


def record_apply(
    module: nn.Module,
    variables: Mapping,
    args: tuple,
    kwargs: Mapping[str, Any],
    *,
    sown: str = DEFAULT_NAME,
    keep: Keep | None = None,
) -> tuple[Any, Recording]:
    """Return what `module.apply(variables, *args, **kwargs)` returns, and the attention that was computed meanwhile.

    Args:
        module: an unbound module.
        variables: of the module.
        args: positional arguments of the method that is called.
        kwargs: its keywords, and those of `nn.Module.apply`: rngs, method, mutable, capture_intermediates.
        sown: the name under which attention is sown. With the default, modules of flax and of transformers are made to sow.
        keep: as in `Model.record`.

    Raises:
        NotRecordedError: no attention, or not that of all modules.
    """
    kwargs = dict(kwargs)
    wanted = kwargs.pop("mutable", False)
    if kwargs.get("capture_intermediates"):
        wanted = union_filters(wanted, COLLECTION)
    recorder = Recorder(sown, wanted, keep)
    with contextlib.ExitStack() as interceptors:
        interceptors.enter_context(nn.intercept_methods(recorder.watch))
        if sown == DEFAULT_NAME:  # another name means what is sown under it, and nothing that we force
            interceptors.enter_context(nn.intercept_methods(sow_linen(recorder)))
            interceptors.enter_context(nn.intercept_methods(ask_transformers(recorder)))
        interceptors.enter_context(mended())
        outputs, state = module.apply(variables, *args, mutable=union_filters(wanted, COLLECTION), **kwargs)
    refuse_incomplete(recorder, type(module).__name__)
    recording = Recording(
        layers=read(recorder, state.get(COLLECTION, {})),
        backend="transformers" if recorder.roles else "linen",
        known=recorder.roles,
        self_attention=recorder.self_attention,
    )
    if wanted is False:
        return outputs, recording
    state = {collection: tree for collection, tree in state.items() if in_filter(wanted, collection)}
    return (outputs, without_weights(state)), recording
