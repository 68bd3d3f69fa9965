"""shapley_flow: the set game's Shapley values of every output of every example, as an Attribution."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Int

from jaxflow.attention import Attention, is_traced
from jaxflow.attribution import Attribution, check_outputs, normalise_scores, real_tokens
from jaxflow.capacities import Capacities, Heads, as_capacities
from jaxflow.network import DecoderLayer, Feedback, flow_network
from jaxflow.progress import progress_bar
from jaxflow.shapley.set_game import MOST_PLAYERS, sample_set_shapley, set_shapley


def shapley_flow(
    attention: Attention | Capacities | Float[ArrayLike, "*batch layer head source source"],
    *,
    outputs: int | Sequence[int] | None = None,
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
        ImportError: Numba is not installed.

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
    capacities = jax.device_get(capacities)
    source, target = real_tokens(capacities)
    n_source, n_target = source.shape[-1], target.shape[-1]
    explained = target if n_target else source
    positions = check_outputs(outputs, explained)
    *batch, _ = explained.shape
    prompts = None if n_prompt is None else np.broadcast_to(np.asarray(n_prompt), batch)
    is_player = np.concatenate([source, target], axis=-1)
    values, error = np.zeros((2, *batch, len(positions), n_source + n_target))
    with progress_bar(int(np.prod(batch)) * len(positions), "Shapley values", unit="output", shown=progress) as bar:
        for index in np.ndindex(*batch):
            network = flow_network(
                jax.tree.map(lambda leaf, index=index: leaf[index], capacities),
                decoder_layer=decoder_layer,
                feedback=feedback,
                n_prompt=None if prompts is None else int(prompts[index]),
            )
            # What is fed back passes on the prompt's influence, and has none of its own.
            plays = is_player[index] & ~np.isin(network.players, network.receivers)
            for row, position in enumerate(positions):
                sink = network.outputs[position]
                (players,) = np.nonzero(plays & (network.players < sink))  # nothing flows to a lower node
                if explained[index][position] and players.size:
                    nodes = network.players[players]
                    found = (
                        set_shapley(network, sink, players=nodes)
                        if len(nodes) <= MOST_PLAYERS
                        else sample_set_shapley(
                            network,
                            sink,
                            players=nodes,
                            precision=precision,
                            n_permutations=n_permutations,
                            seed=seed,
                        )
                    )
                    values[(*index, row, players)] = found.values
                    error[(*index, row, players)] = found.standard_error
                bar.update()
    if normalise:
        total = values.sum(-1, keepdims=True)
        values, error = normalise_scores(values), error / (total + (total == 0))
    return Attribution(
        encoder=values[..., :n_source] if n_source else None,
        decoder=values[..., n_source:] if n_target else None,
        outputs=positions,
        standard_error=error,
    )
