"""The network of the reasoning models: a Transformer from a formula to its answer."""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxflow._attention import AnyArray
from jaxflow.zoo._layers import Layer, check_ids
from jaxflow.zoo.logic._language import END, START
from jaxflow.zoo.logic._syntax import ARITY


class FormulaTransformer(nn.Module):
    """A pre-norm encoder-decoder: the encoder reads a formula with tree positions, the decoder generates the answer.

    Attributes:
        labels: The tokens, of formulas and of answers. Token 0 is padding.
        n_source: The longest formula it reads.
        n_target: The longest answer, with the start token.
        n_path: Steps from a symbol towards the root that its tree position encodes.
        n_encoder_layers: Layers of the encoder.
        n_decoder_layers: Layers of the decoder.
        n_heads: Attention heads in each.
        width: Size of the residual streams.
        hidden: Size of the feed-forward layers.

    Source: tree positions of Shiv & Quirk 2019, as Hahn et al. 2021 (2003.04218) use them for formulas.
    """

    labels: tuple[str, ...]
    n_source: int = 32
    n_target: int = 32
    n_path: int = 16
    n_encoder_layers: int = 3
    n_decoder_layers: int = 2
    n_heads: int = 4
    width: int = 96
    hidden: int = 256

    ignores_padding: ClassVar[bool] = True  # behind a text

    @property
    def max_length(self) -> int:
        """The longest answer, with the start token, where generation stops."""
        return self.n_target

    @property
    def decoder_start_token_id(self) -> int:
        """The id of the token that starts an answer."""
        return self.labels.index(START)

    @property
    def eos_token_id(self) -> int:
        """The id of the token that ends an answer."""
        return self.labels.index(END)

    def setup(self) -> None:
        """Create the parts; `jaxflow.capture` recognises the stacks by their names."""
        self.tokens = nn.Embed(len(self.labels), self.width)
        self.encoder = _Encoder(self.n_encoder_layers, self.n_heads, self.hidden)
        self.decoder = _Decoder(self.n_decoder_layers, self.n_heads, self.hidden, self.n_target)
        self.head = nn.Dense(len(self.labels))

    def __call__(
        self,
        input_ids: Int[AnyArray, "batch source"],
        decoder_input_ids: Int[AnyArray, "batch target"],
        attention_mask: Bool[AnyArray, "batch source"] | Int[AnyArray, "batch source"] | None = None,
        decoder_attention_mask: Bool[AnyArray, "batch target"] | Int[AnyArray, "batch target"] | None = None,
    ) -> Float[Array, "batch target label"]:
        """Predict the next token of each answer.

        Args:
            input_ids: Ids of the formula's symbols, padded on the right.
            decoder_input_ids: Ids of the answer's tokens so far, the start token first.
            attention_mask: True or 1 for symbols, False or 0 for padding. By default, `input_ids != 0`.
            decoder_attention_mask: The same for the answer. By default, no token is padding.

        Returns:
            Logits of the next token at each position of the answer.

        Raises:
            ValueError: for inputs without a batch axis, or longer than the model reads.
        """
        real = input_ids != 0 if attention_mask is None else jnp.asarray(attention_mask).astype(bool)
        memory = self.read(input_ids, real)
        return self.write(decoder_input_ids, memory, real, decoder_attention_mask)

    def read(
        self, input_ids: Int[AnyArray, "batch source"], real: Bool[AnyArray, "batch source"]
    ) -> Float[Array, "batch source width"]:
        """Run the encoder."""
        check_ids(input_ids, self.n_source)
        arity = jnp.asarray([ARITY.get(label, 0) for label in self.labels])[input_ids]
        positions = tree_positions(arity, self.n_path)
        return self.encoder(self.tokens(input_ids), positions, real[:, None, None, :])

    def write(
        self,
        decoder_input_ids: Int[AnyArray, "batch target"],
        memory: Float[Array, "batch source width"],
        real: Bool[AnyArray, "batch source"],
        decoder_attention_mask: Bool[AnyArray, "batch target"] | Int[AnyArray, "batch target"] | None = None,
    ) -> Float[Array, "batch target label"]:
        """Run the decoder on the encoder's output."""
        check_ids(decoder_input_ids, self.n_target, name="decoder_input_ids")
        mask = nn.make_causal_mask(decoder_input_ids, dtype=bool)
        if decoder_attention_mask is not None:
            mask = mask & jnp.asarray(decoder_attention_mask).astype(bool)[:, None, None, :]
        return self.head(self.decoder(self.tokens(decoder_input_ids), mask, memory, real[:, None, None, :]))


def tree_positions(arity: Int[Array, "batch token"], n_path: int) -> Float[Array, "batch token path"]:
    """Encode the position of each symbol in the tree of its formula, which is in prefix notation.

    Args:
        arity: number of operands of each symbol; 0 for padding.
        n_path: steps towards the root that are encoded. Symbols that differ only further up get the same position.

    Returns:
        `[batch, token, 2 * n_path]`, 0 or 1: the path from the symbol to the root, two entries per step. Entry `2 * step` is 1
        where the node is a first operand, entry `2 * step + 1` where it is a second one.

    Example:
        >>> tree_positions(jnp.array([[2, 0, 1, 0]]), 2)[0].astype(int)  # & a ! b
        Array([[0, 0, 0, 0],
               [1, 0, 0, 0],
               [0, 1, 0, 0],
               [1, 0, 0, 1]], dtype=int32)
    """
    n_tokens = arity.shape[1]
    # Formulas that are still to come when a symbol is read. The second part of an operator begins where there are as many
    # again as when it was read itself, for the first time after its first part began.
    due = jnp.cumsum(arity - 1, axis=1) - (arity - 1)
    later = (jnp.arange(n_tokens)[:, None] - jnp.arange(n_tokens)[None, :])[None]
    again = (due[:, :, None] == due[:, None, :]) & (later > 1) & (arity == 2)[:, None, :]
    is_second = again & (jnp.cumsum(again, axis=1) == 1)
    is_first = (later == 1) & (arity > 0)[:, None, :]
    above = (is_first | is_second).astype(jnp.float32)
    step = jnp.stack([is_first.any(-1), is_second.any(-1)], axis=-1).astype(jnp.float32)
    path = [step]
    for _ in range(n_path - 1):
        path.append(above @ path[-1])
    return jnp.concatenate(path, axis=-1)


class _Encoder(nn.Module):
    n_layers: int
    n_heads: int
    hidden: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch source width"],
        positions: Float[Array, "batch source path"],
        mask: Bool[AnyArray, "batch 1 1 source"],
    ) -> Float[Array, "batch source width"]:
        x += nn.Dense(x.shape[-1], name="positions")(positions)
        for i in range(self.n_layers):
            x = Layer(self.n_heads, self.hidden, name=f"layer_{i}")(x, mask)
        return nn.LayerNorm(name="norm")(x)


class _Decoder(nn.Module):
    n_layers: int
    n_heads: int
    hidden: int
    n_positions: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch target width"],
        mask: Bool[AnyArray, "batch 1 target target"],
        memory: Float[Array, "batch source width"],
        memory_mask: Bool[AnyArray, "batch 1 1 source"],
    ) -> Float[Array, "batch target width"]:
        x += nn.Embed(self.n_positions, x.shape[-1], name="positions")(jnp.arange(x.shape[1])[None])
        for i in range(self.n_layers):
            x = Layer(self.n_heads, self.hidden, name=f"layer_{i}")(x, mask, memory, memory_mask)
        return nn.LayerNorm(name="norm")(x)
