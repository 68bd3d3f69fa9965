"""The parts that the shipped networks share: a pre-norm Transformer layer, and the check of token ids."""

import flax.linen as nn
import jax
from jaxtyping import Array, Bool, Float, Int

from jaxflow._attention import AnyArray


class Layer(nn.Module):
    """A pre-norm layer: self-attention, cross-attention if there is a `memory`, and a feed-forward part.

    Attributes:
        n_heads: Attention heads.
        hidden: Width of the feed-forward part.
    """

    n_heads: int
    hidden: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch token width"],
        mask: Bool[AnyArray, "batch 1 #token token"],
        memory: Float[Array, "batch source width"] | None = None,
        memory_mask: Bool[AnyArray, "batch 1 1 source"] | None = None,
    ) -> Float[Array, "batch token width"]:
        """Apply the layer to the residual stream.

        Args:
            x: The residual stream.
            mask: True for the keys that a query may see: no padding, and in a decoder none to its right.
            memory: The encoder's output, for a layer of a decoder with cross-attention.
            memory_mask: True for its tokens that are no padding.

        Returns:
            The residual stream after the layer.
        """
        y = nn.LayerNorm(name="attention_norm")(x)
        x += nn.MultiHeadDotProductAttention(self.n_heads, name="attention")(y, mask=mask)
        if memory is not None:
            y = nn.LayerNorm(name="cross_attention_norm")(x)
            x += nn.MultiHeadDotProductAttention(self.n_heads, name="cross_attention")(y, memory, mask=memory_mask)
        y = nn.LayerNorm(name="feed_forward_norm")(x)
        y = jax.nn.gelu(nn.Dense(self.hidden, name="up")(y))
        return x + nn.Dense(x.shape[-1], name="down")(y)


def check_ids(ids: Int[AnyArray, "batch token"], n_positions: int, *, name: str = "input_ids") -> None:
    """Refuse token ids without a batch axis, or more tokens than the model has positions.

    Raises:
        ValueError: with the shape, and what was expected.
    """
    if ids.ndim != 2:
        raise ValueError(f"{name} has shape {ids.shape}; expected [batch, token]. Is the batch axis missing?")
    if ids.shape[1] > n_positions:
        raise ValueError(f"{name} has {ids.shape[1]} tokens; the model reads at most {n_positions}")
