"""The network: a small Transformer encoder that predicts the number of the next verb from its first token."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxflow._attention import AnyArray
from jaxflow.zoo._layers import Layer, check_ids
from jaxflow.zoo.agreement._lexicon import MAX_WORDS
from jaxflow.zoo.agreement._tokenizer import VOCABULARY


class AgreementEncoder(nn.Module):
    """A pre-norm encoder with learned positions and full self-attention; the defaults are the trained model.

    It does not sow its attention weights; `jaxflow.capture` does not need that.

    Attributes:
        n_tokens: Size of the vocabulary. Token 0 is padding.
        n_positions: The longest sequence it reads: [CLS] and the longest sentence of the grammar. No position beyond it
            was trained.
        n_layers: Layers.
        n_heads: Attention heads in each.
        width: Size of the residual stream.
        hidden: Size of the feed-forward layers.
        labels: Names of the outputs.
    """

    n_tokens: int = len(VOCABULARY)
    n_positions: int = MAX_WORDS + 1
    n_layers: int = 4
    n_heads: int = 4
    width: int = 48
    hidden: int = 96
    labels: tuple[str, ...] = ("singular", "plural")

    ignores_padding: ClassVar[bool] = True  # behind a text

    @nn.compact
    def __call__(
        self,
        input_ids: Int[AnyArray, "batch token"],
        attention_mask: Bool[AnyArray, "batch token"] | Int[AnyArray, "batch token"] | None = None,
    ) -> Float[Array, "batch label"]:
        """Classify sentences.

        Args:
            input_ids: Token ids, [CLS] first, padded on the right.
            attention_mask: True or 1 for tokens, False or 0 for padding. By default, `input_ids != 0`.

        Returns:
            Logits of the labels.

        Raises:
            ValueError: for inputs without a batch axis, or longer than `n_positions`.
        """
        check_ids(input_ids, self.n_positions)
        n_tokens = input_ids.shape[1]
        real = input_ids != 0 if attention_mask is None else jnp.asarray(attention_mask).astype(bool)
        # Over keys alone: also a padded query's row stays a probability over real tokens.
        mask = real[:, None, None, :]
        x = nn.Embed(self.n_tokens, self.width, name="tokens")(input_ids)
        x += nn.Embed(self.n_positions, self.width, name="positions")(jnp.arange(n_tokens)[None])
        for i in range(self.n_layers):
            x = Layer(self.n_heads, self.hidden, name=f"layer_{i}")(x, mask)
        return nn.Dense(len(self.labels), name="head")(nn.LayerNorm(name="norm")(x[:, 0]))
