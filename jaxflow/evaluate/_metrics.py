"""The metrics by which methods are compared: scores of one text by all methods -> a number for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from jaxflow.attribute import METHODS
from jaxflow.evaluate._curves import curve_counts, erasure_curves
from jaxflow.evaluate._erasure import Value, bin_counts, erase, erasing_masks, ranked
from jaxflow.evaluate._evidence import CompiledRuns, evidence_of, score_text
from jaxflow.evaluate._ranks import rank_correlation

N_STEPS = 10  # of curves
METRICS: Mapping[str, Literal["more", "less", "near 0"]] = {
    "comprehensiveness": "more",
    "sufficiency": "less",
    "log_odds": "less",
    "deletion": "less",
    "activation": "more",
    "pruning": "less",
    "blank_out": "more",
    "gradient": "more",
    "sanity": "near 0",
    "saturation": "less",
    "cut_by_capacity": "more",
    "cut_by_layer": "more",
}
CUT_METRICS = frozenset({"cut_by_capacity", "cut_by_layer"})


def measure(
    runs: CompiledRuns,
    scores: Sequence[Float[np.ndarray, " _token"]],
    randomised: Sequence[Float[np.ndarray, " _token"]] | None,
    *,
    metrics: Sequence[str],
    bins: Sequence[float],
) -> list[dict[str, float]]:
    """Measure all methods on one text: all that they want erased goes through the model as one batch.

    Rank correlations are of absolute scores, of the tokens that may be hidden: with what the value loses without each
    (`blank_out`), with the length of its gradient (`gradient`), and with the same method's scores where parameters are shuffled
    (`sanity`, 1 where they are the same).

    Args:
        runs: of the trained model.
        scores: by each method.
        randomised: the same with shuffled parameters; None leaves `sanity` out.
        metrics: those that are wanted; what only others need is not computed.
        bins: of `erase`.

    Returns:
        The wanted metrics of each method, by name, without `saturation`.
    """
    candidates = runs.case.read.candidates
    value = _looked_up(runs, scores, bins)
    orders = {}  # what ranks are correlated with
    if "blank_out" in metrics:
        orders["blank_out"] = np.abs(runs.lost[0])[candidates]
    if "gradient" in metrics:
        orders["gradient"] = score_text(METHODS["gradient"], evidence_of(runs, seed=0))[0][candidates]
    measured = []
    for number, row in enumerate(scores):
        erased = erase(value, row, bins=bins, candidates=candidates)
        curves = erasure_curves(value, row, n_steps=N_STEPS, candidates=candidates)
        size = np.abs(row)[candidates]
        found = {
            "comprehensiveness": erased.aopc_comprehensiveness,
            "sufficiency": erased.aopc_sufficiency,
            "log_odds": erased.aopc_log_odds,
            "deletion": curves.deletion,
            "activation": curves.activation,
            "pruning": curves.pruning,
            **{name: rank_correlation(size, order) for name, order in orders.items()},
        }
        if randomised is not None:
            found["sanity"] = rank_correlation(size, np.abs(randomised[number])[candidates])
        measured.append(found)
    return measured


def _looked_up(runs: CompiledRuns, scores: Sequence[Float[np.ndarray, " _token"]], bins: Sequence[float]) -> Value:
    """Return the value as a function of masks, computed for all those that the methods' erasures need."""
    wanted = []
    for row in scores:
        order, may_hide = ranked(row, runs.case.read.candidates)
        counts = np.union1d(bin_counts(len(order), bins), curve_counts(len(order), N_STEPS))
        wanted.append(erasing_masks(order, may_hide, counts))
    masks = np.unique(np.concatenate(wanted), axis=0)
    values = dict(zip(map(bytes, masks), runs.numbers(masks)[0], strict=True))
    return lambda kept: np.array([values[bytes(mask)] for mask in kept])
