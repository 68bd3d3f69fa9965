"""shapley_flow: the set game's Shapley values of every output of every example, as an Attribution."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Int

from jaxflow._attention import Attention, is_traced
from jaxflow._progress import progress_bar
from jaxflow.attribute._attribution import Attribution, split_scores
from jaxflow.attribute.shapley._set_game import MOST_PLAYERS, sample_set_shapley, set_shapley
from jaxflow.network import (
    Capacities,
    DecoderLayer,
    Feedback,
    Heads,
    as_capacities,
    batch_of,
    flow_network,
    select,
    selected_networks,
)


def shapley_flow(
    attention: Attention | Capacities | Float[ArrayLike, "*batch layer head source source"],
    *,
    outputs: int | Sequence[int] | None = None,
    encoder_spans: Bool[ArrayLike, "*batch span source"] | None = None,
    decoder_spans: Bool[ArrayLike, "*batch span target"] | None = None,
    output_spans: Bool[ArrayLike, "*batch span output"] | None = None,
    heads: Heads | None = None,
    residual: float | None = None,
    encoder_mask: Bool[ArrayLike, "*batch source"] | None = None,
    decoder_mask: Bool[ArrayLike, "*batch target"] | None = None,
    decoder_layer: DecoderLayer = "sublayers",
    feedback: Feedback = "prefix",
    n_prompt: int | Int[ArrayLike, " *batch"] | None = None,
    normalise: bool = False,
    precision: float = 1e-3,
    n_permutations: int = 10_000,
    seed: int = 0,
    progress: bool = False,
) -> Attribution:
    """Share what all inputs together can send to each output among them, by the set game's Shapley values.

    `set_shapley` for outputs that at most 16 inputs can reach, `sample_set_shapley` for others. Unlike the scores of
    `attention_flow`, which each input has to itself, the values of an output sum to the flow of all inputs together (1 where
    rows of attention do), and inputs that stand in for each other share. Not for use under `jit`.

    Args:
        attention: as in `attention_flow`, like all up to `normalise`.
        outputs: positions to explain; None for all. Rows of padded positions are 0 then.
        encoder_spans: players that are sets of tokens.
        decoder_spans: likewise, of the decoder's.
        output_spans: outputs that are sets of positions.
        heads: as in `joint_capacities`.
        residual: as in `joint_capacities`.
        encoder_mask: `[*batch, source]`, False where padded.
        decoder_mask: `[*batch, target]`, likewise.
        decoder_layer: "sublayers" or "parallel".
        feedback: "prefix" or "unrolled".
        n_prompt: for "unrolled", how many of the decoder's first tokens were not generated.
        normalise: divide each output's values, and their errors, by the values' sum.
        precision: as in `sample_set_shapley`, like the next two.
        n_permutations: largest number of orders for one output.
        seed: of the orders, the same for every output.
        progress: as in `attention_flow`.

    Returns:
        `Attribution`, float64 NumPy arrays, with `standard_error` and without certificate. An error above `precision` says
        that `n_permutations` did not suffice.

    Raises:
        ValueError: as `attention_flow` and `sample_set_shapley`.

    Example:
        >>> import jax.numpy as jnp
        >>> layer = jnp.array([[0.75, 0.25], [0.5, 0.5]])
        >>> shapley_flow(jnp.stack([layer, layer])[:, None], residual=0.0).encoder
        array([[0.75 , 0.25 ],
               [0.625, 0.375]])

    Source: as `set_shapley`.
    """
    capacities = as_capacities(
        attention, heads=heads, residual=residual, encoder_mask=encoder_mask, decoder_mask=decoder_mask
    )
    if is_traced(capacities):
        raise ValueError("shapley_flow solves on the host and cannot be traced: call it outside jit, vmap and grad.")
    capacities = jax.tree.map(np.asarray, jax.device_get(capacities))
    prompts = None if n_prompt is None else np.broadcast_to(np.asarray(n_prompt), batch_of(capacities))
    selection = select(
        capacities,
        outputs=outputs,
        encoder_spans=encoder_spans,
        decoder_spans=decoder_spans,
        output_spans=output_spans,
        n_prompt=prompts,
    )
    *batch, n_players = selection.inputs.shape
    values, error = np.zeros((2, *batch, len(selection.outputs), n_players))
    sampling: dict[str, Any] = {"precision": precision, "n_permutations": n_permutations, "seed": seed}
    with progress_bar(int(selection.explained.sum()), "Shapley values", unit="output", shown=progress) as bar:
        for index in np.ndindex(*batch):
            whole = flow_network(
                jax.tree.map(lambda leaf, index=index: leaf[index], capacities),
                decoder_layer=decoder_layer,
                feedback=feedback,
                n_prompt=None if prompts is None else int(prompts[index]),
            )
            for network, sinks, rows in selected_networks(whole, selection, index):
                for row, sink in zip(np.arange(len(selection.outputs))[rows], sinks, strict=True):
                    # Nothing flows to a lower node.
                    (players,) = np.nonzero(selection.inputs[index] & (network.inputs < sink))
                    if not selection.explained[index][row]:
                        continue
                    if players.size:
                        nodes = network.inputs[players]
                        found = (
                            set_shapley(network, sink, players=nodes)
                            if len(nodes) <= MOST_PLAYERS
                            else sample_set_shapley(network, sink, players=nodes, **sampling)
                        )
                        values[(*index, row, players)] = found.values
                        error[(*index, row, players)] = found.standard_error
                    bar.update()
    if normalise:
        total = values.sum(-1, keepdims=True)
        error = error / (total + (total == 0))
    attribution = split_scores(values, selection.n_encoder, outputs=selection.outputs, normalise=normalise)
    return dataclasses.replace(attribution, standard_error=error)
