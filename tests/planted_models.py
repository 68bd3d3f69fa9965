"""A model whose decision depends on one known token, in linen and in NNX."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

IDS = jnp.array([[3, 1, 4, 1, 5], [2, 6, 5, 3, 1]])
PLANTED = 3


class Planted(nn.Module):
    """Decides by the token at one position alone: nothing else that it computes reaches the logits."""

    @nn.compact
    def __call__(self, input_ids, attention_mask=None):
        mask = jnp.ones(input_ids.shape) if attention_mask is None else jnp.asarray(attention_mask, jnp.float32)
        x = nn.Embed(8, 6, name="tokens")(input_ids)
        x = (x + nn.Embed(5, 6, name="positions")(jnp.arange(5)[None])) * mask[..., None]
        return nn.Dense(3)(jnp.tanh(nn.Dense(7)(x[:, PLANTED])))


class PlantedNNX(nnx.Module):
    """The same decision, with the parameters of the linen module; counts its calls."""

    def __init__(self, params):
        rngs = nnx.Rngs(0)
        self.tokens, self.positions = nnx.Embed(8, 6, rngs=rngs), nnx.Embed(5, 6, rngs=rngs)
        self.hidden, self.head = nnx.Linear(6, 7, rngs=rngs), nnx.Linear(7, 3, rngs=rngs)
        self.calls = nnx.Variable(jnp.array(0))
        for name, linen in (
            ("tokens", "tokens"),
            ("positions", "positions"),
            ("hidden", "Dense_1"),
            ("head", "Dense_0"),
        ):
            for parameter, values in params[linen].items():
                getattr(getattr(self, name), parameter)[...] = values

    def __call__(self, input_ids, attention_mask=None):
        self.calls[...] += 1
        mask = jnp.ones(input_ids.shape) if attention_mask is None else jnp.asarray(attention_mask, jnp.float32)
        x = (self.tokens(input_ids) + self.positions(jnp.arange(5)[None])) * mask[..., None]
        return self.head(jnp.tanh(self.hidden(x[:, PLANTED])))

    def decide(self, input_ids, attention_mask=None):
        return self(input_ids, attention_mask)


MODEL = Planted()
VARIABLES = jax.jit(MODEL.init)(jax.random.key(0), IDS)
NNX = PlantedNNX(VARIABLES["params"])
