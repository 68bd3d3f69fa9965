"""Let Llama, Mistral and Gemma of transformers 4 compute what their configuration says, or refuse it by name.

Their Flax classes rotate queries and keys with a base of 10,000 whatever `rope_theta` is. Mistral's window is one token wider
than `sliding_window`, and without a window every token attends to itself alone. Llama and Mistral have a head of their own
where `tie_word_embeddings` says that it is the table of embeddings. A flax method interceptor puts that right in the modules
that run, as in `_t5`. What it cannot put right is refused, since transformers says nothing of it.
"""

from __future__ import annotations

import contextvars
import copy
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

FAMILIES = {name: f"transformers.models.{name}.modeling_flax_{name}" for name in ("gemma", "llama", "mistral")}
ACTIVATIONS = {"gptj": "activation_function"} | dict.fromkeys(FAMILIES, "hidden_act")
WITHOUT_ATTENTION_BIAS = ("mistral",)
WITH_OTHER_HEADS = ("gemma",)  # reads head_dim; the others have hidden_size / num_attention_heads
YOURSELF = "Run the model yourself and pass its attention to attention_flow."


def is_llama(module_class: type) -> bool:
    """Whether modules of this class are Llama, Mistral or Gemma of transformers."""
    return any(cls.__module__ in FAMILIES.values() for cls in module_class.__mro__)


def mend_llama(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
    """Run a method of any module; a method interceptor that mends those of Llama, Mistral and Gemma.

    Raises:
        ValueError: such a module's configuration says what the module does not read, as in `refuse_unread`.
    """
    module: Any = context.module
    if context.method_name == "__call__" and isinstance(module, nn.Dense):
        table = _tied_table(module)
        return call(*args, **kwargs) if table is None else _times_table(module, args[0], table)
    if type(module).__module__ not in FAMILIES.values():
        return call(*args, **kwargs)  # a class that somebody derived has a setup of its own
    name = type(module).__name__
    if context.method_name == "__call__" and name.endswith("DecoderLayer"):
        token = _n_tokens.set(args[0].shape[1])
        try:
            return call(*args, **kwargs)
        finally:
            _n_tokens.reset(token)
    if context.method_name != "setup":
        return call(*args, **kwargs)
    if name.endswith("RotaryEmbedding"):
        config = getattr(module.parent, "config", module.config)  # of all positions: see _set_up_attention
        theta = float(_rope(config)["rope_theta"])
        module.sincos = rotations(theta, _head_width(config), config.max_position_embeddings)
        return None
    if name.endswith("Attention"):
        refuse_unread(name, module.config)
        return _set_up_attention(module, lambda: call(*args, **kwargs))
    return call(*args, **kwargs)


def _set_up_attention(module: Any, call: Callable[[], Any]) -> None:
    """Set up a layer with a causal mask of the tokens that it reads, rather than one of all positions that the model has.

    Of 131,072 positions each layer's mask would take 17 GB. With a cache of keys, all positions are needed.
    """
    config, n_positions = module.config, _n_tokens.get()
    if n_positions is None or module.has_variable("cache", "cached_key") or module.is_mutable_collection("cache"):
        n_positions = config.max_position_embeddings
    shorter = copy.copy(config)
    shorter.max_position_embeddings = n_positions
    object.__setattr__(module, "config", shorter)
    try:
        call()
    finally:
        object.__setattr__(module, "config", config)
    if type(module).__name__ == "FlaxMistralAttention":
        module.causal_mask = window(n_positions, config.sliding_window)


_n_tokens: contextvars.ContextVar[int | None] = contextvars.ContextVar("jaxflow_n_tokens", default=None)


@functools.lru_cache(4)  # one for all layers and runs of a model: they take megabytes
def rotations(theta: float, width: int, n_positions: int) -> Float[Array, "position one angle"]:
    """Return sine and cosine of the angles by which queries and keys are turned.

    Args:
        theta: the base of the frequencies.
        width: of a head.
        n_positions: how many positions there are.

    Returns:
        `[position, 1, 2 * head width]`, float32: sines, then cosines, each for both halves of a head.

    Source: Su et al. 2021 (2104.09864), equation 15, with `rope_theta` for 10,000.
    """
    frequencies = 1.0 / theta ** (np.arange(0, width, 2) / width)
    angles = np.outer(np.arange(n_positions), frequencies).astype(np.float32)
    sin, cos = np.sin(angles), np.cos(angles)
    with jax.ensure_compile_time_eval():  # it outlives the trace that asked for it
        return jnp.asarray(np.concatenate([sin, sin, cos, cos], axis=-1)[:, None])


def window(n_positions: int, width: int | None) -> Bool[Array, "1 1 position position"]:
    """Return which keys a query sees: itself and those before it, `width` at most; all of them without a width."""
    query, key = jnp.arange(n_positions)[:, None], jnp.arange(n_positions)[None]
    sees = key <= query
    return (sees & (key > query - width) if width else sees)[None, None]


def tie_head(model: Any) -> None:
    """Let a model hold its table of embeddings as its head, if its configuration says that they are one.

    Checkpoints of such models have no weights for the head. `mend_llama` reads the table in any case.
    """
    params = model.params
    if is_llama(type(model.module)) and model.config.tie_word_embeddings and "lm_head" in params:
        model.params = {**params, "lm_head": {"kernel": params["model"]["embed_tokens"]["embedding"].T}}


def refuse_unread(name: str, config: Any) -> None:
    """Raise for a configuration that says what the Flax class does not read, so that it would compute something else.

    Args:
        name: the class.
        config: of the model, of any kind.

    Raises:
        ValueError: scaled rotary positions, heads of another width, biases, or an activation, that the class does not have.
    """
    kind = getattr(config, "model_type", "")
    if kind in ACTIVATIONS:
        _refuse_activation(name, config, ACTIVATIONS[kind])
    if kind not in FAMILIES:
        return
    scaling = _rope(config)["rope_type"]
    if scaling != "default":
        raise ValueError(
            f"{name} with rope_scaling of type {scaling!r} would not scale its rotary positions: its Flax class does not read "
            f"that. Expected rope_scaling=None, or the type 'default'. {YOURSELF}"
        )
    width, read = getattr(config, "head_dim", None), _head_width(config)
    if width not in (None, read):
        raise ValueError(
            f"{name} with head_dim={width} would have heads of {read}, hidden_size / num_attention_heads: its Flax class does "
            f"not read head_dim. Expected head_dim={read}, or None. {YOURSELF}"
        )
    unread = ("mlp_bias", "attention_bias") if kind in WITHOUT_ATTENTION_BIAS else ("mlp_bias",)
    for field in unread:
        if getattr(config, field, False):
            raise ValueError(
                f"{name} with {field}=True would have no such biases: its Flax class does not read {field}, and drops them. "
                f"Expected {field}=False. {YOURSELF}"
            )


def _refuse_activation(name: str, config: Any, field: str) -> None:
    from transformers.modeling_flax_utils import ACT2FN  # imported already: it made the config

    known = tuple(ACT2FN)
    if config.model_type == "gemma":
        if config.hidden_activation is not None:
            field = "hidden_activation"  # goes before hidden_act
        else:
            known = tuple(activation for activation in ACT2FN if "gelu" in activation and activation != "quick_gelu")
    activation = getattr(config, field)
    if activation not in known:
        raise ValueError(
            f"{name} with {field}={activation!r} would not run that activation: its Flax class does not have it. Expected one of "
            f"{', '.join(known)}. {YOURSELF}"
        )


def _rope(config: Any) -> dict[str, Any]:
    """Read `rope_theta` and `rope_type`, as transformers 4 or 5 wrote them; version 5 has both in `rope_parameters`."""
    scaling = getattr(config, "rope_scaling", None) or {"rope_type": "default"}
    rope = {"rope_theta": config.rope_theta, "rope_type": scaling.get("rope_type", scaling.get("type"))}
    return rope | (getattr(config, "rope_parameters", None) or {})


def _head_width(config: Any) -> int:
    if config.model_type in WITH_OTHER_HEADS:
        return config.head_dim
    return config.hidden_size // config.num_attention_heads


def _tied_table(module: nn.Dense) -> Array | None:
    """Return the table of embeddings, if `module` is a head that is to be the table but has weights of its own."""
    parent: Any = module.parent
    if module.name != "lm_head" or not is_llama(type(parent)) or module.is_initializing():
        return None
    return parent.model.variables["params"]["embed_tokens"]["embedding"] if parent.config.tie_word_embeddings else None


def _times_table(module: nn.Dense, hidden: Array, table: Array) -> Array:
    """Do what a head does whose kernel is the transposed table, without a copy of it."""
    hidden, table = nn.dtypes.promote_dtype(hidden, table, dtype=module.dtype)
    over = (((hidden.ndim - 1,), (1,)), ((), ()))
    return jax.lax.dot_general(hidden, table, over, precision=module.precision)
