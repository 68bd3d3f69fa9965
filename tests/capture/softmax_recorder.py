"""Record what `jax.nn.softmax` returns, whoever calls it and whatever is mapped around it: an oracle that knows no trace."""

import contextlib

import jax
import numpy as np


@contextlib.contextmanager
def recorded_softmaxes(*modules):
    """Yield a list that fills with the weights of each softmax that runs, axes of `vmap` first, in order of execution.

    Args:
        *modules: those that hold `softmax` under a name of their own.
    """
    kept = []

    @jax.custom_batching.custom_vmap
    def note(weights):
        jax.debug.callback(lambda array: kept.append(np.asarray(array)), weights, ordered=True)
        return weights

    @note.def_vmap
    def _(size, batched, weights):
        return note(weights), True

    jax.clear_caches()  # programs that were compiled without it
    own = jax.nn.softmax

    def softmax(x, axis=-1, **rest):
        return note(own(x, axis=axis, **rest))

    jax.nn.softmax = softmax
    held = [(module, module.softmax) for module in modules]
    for module in modules:
        module.softmax = softmax
    try:
        yield kept
    finally:
        jax.effects_barrier()
        jax.nn.softmax = own
        jax.clear_caches()
        for module, function in held:
            module.softmax = function
