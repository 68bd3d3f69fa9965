"""What the networks of the zoo are built of: one pre-norm Transformer layer, and the check of what they read."""

import flax.linen as nn
import jax
from jaxtyping import Array, Bool, Float, Int


class Layer(nn.Module):
    """A pre-norm layer: attention to its own sequence, to another one if there is a `memory`, and feed-forward.

    Attributes:
        n_heads: Attention heads.
        hidden: Size of the feed-forward part.
    """

    n_heads: int
    hidden: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch token width"],
        mask: Bool[Array, "batch 1 #token token"],
        memory: Float[Array, "batch source width"] | None = None,
        memory_mask: Bool[Array, "batch 1 1 source"] | None = None,
    ) -> Float[Array, "batch token width"]:
        """Read a sequence, and what an encoder made of another.

        Args:
            x: The residual stream.
            mask: Which keys each query may see: all real tokens, of a decoder none to its right.
            memory: An encoder's output, for a decoder's layer that attends to it.
            memory_mask: Its real tokens.

        Returns:
            The residual stream after this layer.
        """
        y = nn.LayerNorm(name="attention_norm")(x)
        x += nn.MultiHeadDotProductAttention(self.n_heads, name="attention")(y, mask=mask)
        if memory is not None:
            y = nn.LayerNorm(name="cross_attention_norm")(x)
            x += nn.MultiHeadDotProductAttention(self.n_heads, name="cross_attention")(y, memory, mask=memory_mask)
        y = nn.LayerNorm(name="feed_forward_norm")(x)
        y = jax.nn.gelu(nn.Dense(self.hidden, name="up")(y))
        return x + nn.Dense(x.shape[-1], name="down")(y)


def check_ids(ids: Int[Array, "batch token"], n_positions: int, *, name: str = "input_ids") -> None:
    """Refuse token numbers that are no batch, or more of them than the model has positions.

    Raises:
        ValueError: saying what was got and expected.
    """
    if ids.ndim != 2:
        raise ValueError(f"{name} has shape {ids.shape}; expected [batch, token]. Is the batch axis missing?")
    if ids.shape[1] > n_positions:
        raise ValueError(f"{name} has {ids.shape[1]} tokens; the model reads at most {n_positions}")
