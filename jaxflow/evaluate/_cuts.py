"""Does a minimum cut hold? Its arcs are knocked out of the model, and so are as many others, chosen at random."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxflow.attribute import AttentionFlow, ContributionFlow, Evidence, Flow, as_method, network_of
from jaxflow.capture import Target, evaluate_target, knock_out
from jaxflow.explain import ModelRuns
from jaxflow.models import Role, as_model
from jaxflow.network import Capacities
from jaxflow.solve import CUT_STACKS, MinCut, min_cut

N_RANDOM = 16
Arcs = dict[Role, Bool[np.ndarray, "*set layer query key"]]


@dataclasses.dataclass(frozen=True)
class CutEffect:
    """What the model's target loses without the arcs of a minimum cut, and without others.

    Attributes:
        cut: the cut that was tested, of the best-scored input.
        whole: the target.
        fall: what it loses without the attention on the cut's arcs.
        equal_capacity: `[set]`, what it loses without random arcs that have together the cut's capacity.
        equal_layer: `[set]`, what it loses without random arcs, as many in each layer as the cut has.
    """

    cut: MinCut
    whole: float
    fall: float
    equal_capacity: Float[np.ndarray, " set"]
    equal_layer: Float[np.ndarray, " set"]

    @property
    def over_equal_capacity(self) -> float:
        """By how much more the target falls than without random arcs of the cut's capacity, in its unit."""
        return self.fall - float(self.equal_capacity.mean())

    @property
    def over_equal_layer(self) -> float:
        """By how much more the target falls than without random arcs of the cut's layers, in its unit."""
        return self.fall - float(self.equal_layer.mean())


def cut_effect(
    model: Any,
    *args: Any,
    target: Target,
    method: AttentionFlow | ContributionFlow | str = "contribution_flow",
    position: int | None = None,
    source: int | None = None,
    n_random: int = N_RANDOM,
    seed: int = 0,
    variables: Mapping | None = None,
    **kwargs: Any,
) -> CutEffect:
    """Test a minimum cut on the model: knock its arcs out, and as many others, and compare what the target loses.

    The cut is the one between the best-scored input and the output, nearest the input. What a diagonal arc carries by the
    residual stream stays; only its attention is knocked out.

    Args:
        model: what `capture` takes.
        *args: what the model is called with: one example.
        target: a function of the model's outputs, one number.
        method: whose network it is a cut of.
        position: the output, for attention flow; that of contributions is what the target reads.
        source: the input whose cut is tested, counted over all inputs; None for the one with the best score.
        n_random: how many random sets of arcs of each kind.
        seed: of these.
        variables: those of an unbound linen module.
        **kwargs: what the model is called with.

    Returns:
        `CutEffect`.

    Raises:
        TypeError: a model or a method that is none.
        ValueError: a method without network; more than one example; attention flow without position; an input that does not
            exist; as `knock_out`.
    """
    how = as_method(method)
    if not isinstance(how, Flow):
        raise ValueError(
            f"method is {method!r}; expected AttentionFlow(...) or ContributionFlow(...), which have cuts."
        )
    if isinstance(how, AttentionFlow) and position is None:
        raise ValueError("position is None; attention flow needs the number of the output that its cut is to.")
    subject = as_model(model, variables=variables)
    runs = ModelRuns(subject, args, kwargs, [target])
    attention = runs.attention(None)
    stacks = {n: s for n in ("encoder", "decoder") if (s := getattr(attention, n)) is not None}
    batch = next(iter(stacks.values())).shape[:-4]
    if np.prod(batch) != 1:
        raise ValueError(f"cut_effect takes one example; got a batch of shape {batch}.")
    tokens = {name: ("",) * stack.shape[-1] for name, stack in stacks.items()}
    evidence = Evidence(runs, tokens=tokens, positions=[0 if position is None else position])

    def values(arcs: Arcs) -> Float[np.ndarray, " set"]:
        one = jax.jit(lambda one: _value(subject, args, kwargs, target, one, batch))
        n_sets = len(next(iter(arcs.values())))
        return np.array([float(one({n: each[i] for n, each in arcs.items()})) for i in range(n_sets)])

    n_inputs = sum(map(len, tokens.values()))
    if source is None:
        source = int(how.attribute(evidence).scores[0].argmax())
    elif not 0 <= source < n_inputs:
        raise ValueError(f"source is {source}; expected 0 to {n_inputs - 1}, the number of an input.")
    return effect_of(how, evidence, values, source=source, n_random=n_random, seed=seed)


def _value(model: Any, args: tuple, kwargs: Mapping, target: Target, arcs: Mapping, batch: tuple[int, ...]) -> Array:
    outputs, _ = knock_out(model, *args, arcs=arcs, **kwargs)
    return evaluate_target(target, outputs, batch).sum()


def effect_of(
    how: Flow,
    evidence: Evidence,
    values: Callable[[Arcs], Float[np.ndarray, " set"]],
    *,
    source: int,
    n_random: int,
    seed: int,
) -> CutEffect:
    """Find the minimum cut between an input and the output, and the model's values without its arcs, and without random ones."""
    capacities, (network, output, _) = how.capacities(evidence), network_of(how, evidence)
    cut = min_cut(network, int(network.inputs[source]), output)
    chosen = _arcs_of(cut, capacities)
    generator = np.random.default_rng(seed)
    sets = [{name: np.zeros_like(arcs) for name, arcs in chosen.items()}, chosen]
    sets += [_of_capacity(capacities, chosen, generator) for _ in range(n_random)]
    sets += [_of_layers(capacities, chosen, generator) for _ in range(n_random)]
    found = values({name: np.stack([each[name] for each in sets]) for name in chosen})
    fall = found[0] - found
    return CutEffect(
        cut=cut,
        whole=float(found[0]),
        fall=float(fall[1]),
        equal_capacity=fall[2 : 2 + n_random],
        equal_layer=fall[2 + n_random :],
    )


def _arcs_of(cut: MinCut, capacities: Capacities) -> Arcs:
    """Return the arcs of a cut that have attention, by stack."""
    arcs: dict[Any, Any] = {
        name: np.zeros(np.shape(stack), bool)
        for name in ("encoder", "decoder", "cross")
        if (stack := getattr(capacities, name)) is not None
    }
    for number, layer, query, key in zip(cut.stack, cut.layer, cut.query, cut.key, strict=True):
        name = CUT_STACKS[number]
        if name in arcs:
            arcs[name][layer - 1 - (0 if name == "encoder" else cut.n_encoder), query, key] = True
    return arcs


def _of_capacity(capacities: Capacities, chosen: Arcs, generator: np.random.Generator) -> Arcs:
    """Draw arcs until they have the capacity of those that are chosen, as nearly as whole arcs do."""
    flat = {name: np.asarray(getattr(capacities, name), np.float64) for name in chosen}
    wanted = sum(float(flat[name][arcs].sum()) for name, arcs in chosen.items())
    places = [
        (name, *place) for name, arcs in chosen.items() for place in np.argwhere((flat[name] > 0) & ~arcs).tolist()
    ]
    drawn: Arcs = {name: np.zeros_like(arcs) for name, arcs in chosen.items()}
    total = 0.0
    for i in generator.permutation(len(places)):
        name, *place = places[i]
        size = float(flat[name][tuple(place)])
        if total + size - wanted > wanted - total:  # farther off with it than without
            continue
        drawn[name][tuple(place)] = True
        total += size
        if total >= wanted:
            break
    return drawn


def _of_layers(capacities: Capacities, chosen: Arcs, generator: np.random.Generator) -> Arcs:
    """Draw as many other arcs of each layer as are chosen there."""
    drawn: Arcs = {name: np.zeros_like(arcs) for name, arcs in chosen.items()}
    for name, arcs in chosen.items():
        capacity = np.asarray(getattr(capacities, name))
        for layer in range(len(arcs)):
            places = np.argwhere((capacity[layer] > 0) & ~arcs[layer])
            few = min(int(arcs[layer].sum()), len(places))
            for query, key in generator.permutation(places)[:few].tolist():
                drawn[name][layer, query, key] = True
    return drawn
