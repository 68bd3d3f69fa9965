"""The network of the reasoning models: a Transformer that reads a formula and writes an answer to it."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxflow.zoo.layers import Layer, check_ids
from jaxflow.zoo.logic.language import END, START
from jaxflow.zoo.logic.syntax import ARITY


class FormulaTransformer(nn.Module):
    """A pre-norm encoder-decoder. The encoder is told where in the formula's tree each symbol stands, the decoder counts.

    Attributes:
        labels: The tokens, of formulas and of answers. Token 0 is padding.
        n_source: The longest formula it reads.
        n_target: The longest answer, with the start token.
        n_path: Steps up the tree that a symbol is told of, from itself on.
        n_encoder_layers: Layers that read.
        n_decoder_layers: Layers that write.
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

    @property
    def max_length(self) -> int:
        """The longest answer, with the start token; `explain_generation` asks."""
        return self.n_target

    @property
    def decoder_start_token_id(self) -> int:
        """The number of the token that an answer starts with."""
        return self.labels.index(START)

    @property
    def eos_token_id(self) -> int:
        """The number of the token that ends it."""
        return self.labels.index(END)

    def setup(self) -> None:
        """Name the parts; `jaxflow.capture` tells the stacks by these names."""
        self.tokens = nn.Embed(len(self.labels), self.width)
        self.encoder = _Encoder(self.n_encoder_layers, self.n_heads, self.hidden)
        self.decoder = _Decoder(self.n_decoder_layers, self.n_heads, self.hidden, self.n_target)
        self.head = nn.Dense(len(self.labels))

    def __call__(
        self,
        input_ids: Int[Array, "batch source"],
        decoder_input_ids: Int[Array, "batch target"],
        attention_mask: Bool[Array, "batch source"] | Int[Array, "batch source"] | None = None,
        decoder_attention_mask: Bool[Array, "batch target"] | Int[Array, "batch target"] | None = None,
    ) -> Float[Array, "batch target label"]:
        """Read formulas, and answers as far as they are written.

        Args:
            input_ids: Numbers of the formula's symbols, padded on the right.
            decoder_input_ids: Numbers of the answer's tokens, the start token first.
            attention_mask: True or 1 for symbols that are read. By default, all but padding.
            decoder_attention_mask: Likewise for the answer.

        Returns:
            Logits of the token after each of the answer.

        Raises:
            ValueError: for inputs that are no batch, or longer than the model reads.
        """
        real = input_ids != 0 if attention_mask is None else jnp.asarray(attention_mask).astype(bool)
        memory = self.read(input_ids, real)
        return self.write(decoder_input_ids, memory, real, decoder_attention_mask)

    def read(
        self, input_ids: Int[Array, "batch source"], real: Bool[Array, "batch source"]
    ) -> Float[Array, "batch source width"]:
        """Run the encoder."""
        check_ids(input_ids, self.n_source)
        arity = jnp.asarray([ARITY.get(label, 0) for label in self.labels])[input_ids]
        positions = tree_positions(arity, self.n_path)
        return self.encoder(self.tokens(input_ids), positions, real[:, None, None, :])

    def write(
        self,
        decoder_input_ids: Int[Array, "batch target"],
        memory: Float[Array, "batch source width"],
        real: Bool[Array, "batch source"],
        decoder_attention_mask: Bool[Array, "batch target"] | Int[Array, "batch target"] | None = None,
    ) -> Float[Array, "batch target label"]:
        """Run the decoder on what the encoder made."""
        check_ids(decoder_input_ids, self.n_target, name="decoder_input_ids")
        mask = nn.make_causal_mask(decoder_input_ids, dtype=bool)
        if decoder_attention_mask is not None:
            mask = mask & jnp.asarray(decoder_attention_mask).astype(bool)[:, None, None, :]
        return self.head(self.decoder(self.tokens(decoder_input_ids), mask, memory, real[:, None, None, :]))


def tree_positions(arity: Int[Array, "batch token"], n_path: int) -> Float[Array, "batch token path"]:
    """Tell where in its tree each symbol of a formula in prefix notation stands.

    Args:
        arity: how many parts each symbol has; 0 for padding.
        n_path: steps up the tree that are told; deeper than that, symbols are told apart no more.

    Returns:
        `[batch, token, 2 * n_path]`: of the symbol itself, of what is above it, and so on: 1 at `2 * step` for a first part and
        at `2 * step + 1` for a second one.

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
        mask: Bool[Array, "batch 1 1 source"],
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
        mask: Bool[Array, "batch 1 target target"],
        memory: Float[Array, "batch source width"],
        memory_mask: Bool[Array, "batch 1 1 source"],
    ) -> Float[Array, "batch target width"]:
        x += nn.Embed(self.n_positions, x.shape[-1], name="positions")(jnp.arange(x.shape[1])[None])
        for i in range(self.n_layers):
            x = Layer(self.n_heads, self.hidden, name=f"layer_{i}")(x, mask, memory, memory_mask)
        return nn.LayerNorm(name="norm")(x)
