"""The network: a small Transformer decoder that generates English sentences, word by word."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxflow._attention import AnyArray
from jaxflow.zoo._layers import Layer, check_ids
from jaxflow.zoo.agreement._lexicon import MAX_WORDS
from jaxflow.zoo.agreement_lm._endings import END, MAX_ENDING
from jaxflow.zoo.agreement_lm._tokenizer import VOCABULARY


class AgreementDecoder(nn.Module):
    """A pre-norm decoder with learned positions and causal self-attention; the defaults are the trained model.

    Attributes:
        n_layers: Layers.
        n_heads: Attention heads in each.
        width: Size of the residual stream.
        hidden: Size of the feed-forward layers.
        max_length: The longest sequence, read and generated: [BOS], the longest start of a sentence, and its ending.
        eos_token_id: The full stop, which ends the generation.
        labels: The tokens. Token 0 is padding.
    """

    n_layers: int = 4
    n_heads: int = 4
    width: int = 48
    hidden: int = 96
    max_length: int = 1 + MAX_WORDS + MAX_ENDING
    eos_token_id: int = VOCABULARY.index(END)
    labels: tuple[str, ...] = VOCABULARY

    ignores_padding: ClassVar[bool] = True  # behind a text

    @nn.compact
    def __call__(
        self,
        input_ids: Int[AnyArray, "batch token"],
        attention_mask: Bool[AnyArray, "batch token"] | Int[AnyArray, "batch token"] | None = None,
    ) -> Float[Array, "batch token label"]:
        """Predict the next token at each position.

        Args:
            input_ids: Token ids, [BOS] first, padded on the right.
            attention_mask: True or 1 for tokens, False or 0 for padding. By default, `input_ids != 0`.

        Returns:
            Logits of the next token.

        Raises:
            ValueError: for inputs without a batch axis, or longer than `max_length`.
        """
        check_ids(input_ids, self.max_length)
        real = input_ids != 0 if attention_mask is None else jnp.asarray(attention_mask).astype(bool)
        mask = nn.make_causal_mask(input_ids, dtype=bool) & real[:, None, None, :]
        x = nn.Embed(len(self.labels), self.width, name="tokens")(input_ids)
        x += nn.Embed(self.max_length, self.width, name="positions")(jnp.arange(input_ids.shape[1])[None])
        for i in range(self.n_layers):
            x = Layer(self.n_heads, self.hidden, name=f"decoder_layer_{i}")(x, mask)
        return nn.Dense(len(self.labels), name="head")(nn.LayerNorm(name="norm")(x))
