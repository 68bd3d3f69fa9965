"""The network: a small Transformer encoder that tells the number of the coming verb from its first token."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxflow.zoo.agreement.grammar import MAX_WORDS
from jaxflow.zoo.agreement.tokenizer import VOCABULARY
from jaxflow.zoo.layers import Layer, check_ids


class AgreementEncoder(nn.Module):
    """A pre-norm encoder with learned positions and full self-attention; the defaults are the trained model.

    It does not sow its attention weights: `jaxflow.capture` takes them from any module.

    Attributes:
        n_tokens: Size of the vocabulary. Token 0 is padding.
        n_positions: The longest sequence it reads: [CLS] and the longest sentence of the grammar. Longer ones
            would stand on positions that were never trained.
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

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch token"],
        attention_mask: Bool[Array, "batch token"] | Int[Array, "batch token"] | None = None,
    ) -> Float[Array, "batch label"]:
        """Classify sentences.

        Args:
            input_ids: Numbers of the tokens, [CLS] first, padded on the right.
            attention_mask: True or 1 for tokens that are read. By default, all but padding.

        Returns:
            Logits of the labels.

        Raises:
            ValueError: for input that is no batch, or longer than `n_positions`.
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
