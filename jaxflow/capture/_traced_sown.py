"""Attention that a traced model sows by itself, such as NNX modules do: put in order by the trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxflow._attention import Attention
from jaxflow.capture._differentiable import Differentiable
from jaxflow.capture._frozen import FrozenModel
from jaxflow.capture._recorded import by_stack, stacked
from jaxflow.capture._roles import recorded_roles
from jaxflow.capture._trace import Traced
from jaxflow.capture._tracing import axes as ax
from jaxflow.capture._tracing.additions import Adder, Place
from jaxflow.capture._tracing.crossings import Queries, ending_in_output
from jaxflow.capture._tracing.program import Op, Scope, Value, scan_parts
from jaxflow.capture._tracing.weights import Keeper
from jaxflow.models import Layer, LayerPlace, Model, Path, Role


def of_sown(model: Model, traced: Traced, sown: Mapping[tuple, tuple[Value, ...]]) -> Differentiable:
    """Take what a model sows for its attention.

    Args:
        model: the model.
        traced: the trace of `model.sow`.
        sown: the arrays in it that are sown, by module.

    Raises:
        ValueError: of what is returned: an array that is no attention; stacks that cannot be told.
    """
    made = {path: [_made(traced.program, value) for value in each] for path, each in sown.items()}

    def roles_of(paths: Mapping[Path, None]) -> Mapping[Path, Role]:
        return recorded_roles(model.name, paths, known={}, self_attention={}, said=model.roles)

    def join(weights: Mapping[tuple, Sequence[Any]]) -> Attention:
        layers = _layers(made, weights, model.name)
        roles = roles_of(dict.fromkeys(place.path for place, _ in layers))
        return stacked(by_stack(model.name, layers, roles), model.backend)

    def places() -> dict[str, Place]:
        return {f"{path} {i}": _place(path, m) for path, each in made.items() for i, m in enumerate(each)}

    def run(added: Mapping[str, Any], by: type[Adder] = Adder) -> tuple[Any, Attention]:
        (outputs, weights), _ = traced.run(Keeper(()), places() if added else None, added, by)
        return outputs, join(weights)

    def arrange(gradients: Mapping[str, Any]) -> Attention:
        return join(
            {path: [m.laid_out(gradients[f"{path} {i}"]) for i, m in enumerate(each)] for path, each in made.items()}
        )

    def freeze() -> FrozenModel:
        roles = roles_of(dict.fromkeys(tuple(map(str, path)) for path in made))
        top = ending_in_output(roles.values())
        return FrozenModel.of(
            traced,
            places(),
            keeper=Keeper(()),
            attend=lambda returned, _: join(returned[1]),
            products=None,
            queries=[m.queries for path, each in made.items() for m in each if roles[tuple(map(str, path))] in top],
        )

    return Differentiable(places, run, arrange, freeze)


def _layers(made: Mapping[tuple, Sequence[_Made]], weights: Mapping[tuple, Sequence[Any]], name: str) -> list[Layer]:
    """Put what was sown in the order in which the program makes it."""
    layers = []
    for path, each in made.items():
        for index, m in enumerate(each):
            array = weights[path][index]
            if getattr(array, "ndim", 0) < 3:
                raise ValueError(
                    f"{'/'.join(map(str, path))} of {name} sowed an array of shape {getattr(array, 'shape', None)}; "
                    "expected attention probabilities, [*batch, head, query, key]. If these lie under another "
                    "name, pass it as sown=."
                )
            place = LayerPlace(tuple(map(str, path)), index, tuple(op.index for op in m.loops))
            layers.append((m.order, (place, array)))
    return [layer for _, layer in sorted(layers, key=lambda found: found[0])]


@dataclasses.dataclass(frozen=True)
class _Made:
    """How a sown array is made.

    Attributes:
        value: the array where it is made; inside of loops, that of one step.
        scope: the scope that makes it.
        order: numbers of the operations around it, outermost first, and of the one that makes it.
        loops: the scans around it, which stack it.
        moved: operations between there and where it is sown, which only rearrange it.
    """

    value: Value
    scope: Scope
    order: tuple[int, ...]
    loops: tuple[Op, ...]
    moved: tuple[Op, ...]

    def laid_out(self, array: Any) -> Any:
        """Rearrange an array `[*scans, *value]` as what is sown."""
        for op in self.moved:
            (array,) = op.run([array])
        return array

    @property
    def queries(self) -> Queries:
        """Which axes are the queries and the examples, of what is sown as `[*batch, head, query, key]`."""
        axes = {self.value: ax.named(self.value, "made")}
        value = self.value
        for op in self.moved:
            (value,) = op.outs
            axes[value] = ax.follow(op, axes)[0]
        *batch, _, query, _ = axes[value]
        return Queries(self.value, [i for _, i in ax.origins(query)], [i for _, i in ax.origins(*batch)])


def _made(scope: Scope, value: Value) -> _Made:
    producers = scope.producers()
    moved: tuple[Op, ...] = ()
    op = producers.get(value)
    while op is not None and op.name in ("transpose", "squeeze", "reshape", "convert_element_type", "copy"):
        moved = (op, *moved)
        value = op.ins[0]
        op = producers.get(value)
    if op is None:
        return _Made(value, scope, (-1,), (), moved)
    place = op.outs.index(value)
    if op.name != "scan" or place < scan_parts(op).n_carried:
        return _Made(value, scope, (op.index,), (), moved)
    inner = _made(op.bodies[0], op.bodies[0].outs[place])
    if inner.moved:  # in each step: what is stacked is taken as it is
        inner = dataclasses.replace(inner, value=op.bodies[0].outs[place], moved=())
    return _Made(inner.value, inner.scope, (op.index, *inner.order), (op, *inner.loops), moved)


def _place(path: tuple, made: _Made) -> Place:
    """Return where to add to what is sown: where it is made.

    Raises:
        ValueError: nothing else is computed of it.
    """
    producer = made.scope.producers().get(made.value)
    read = any(made.value in op.ins and op not in made.moved for op in made.scope.ops)
    if producer is None or not read:
        raise ValueError(
            f"{'/'.join(map(str, path))} sows a copy of its attention, such as weights.astype(...), of which nothing is "
            "computed, so nothing can be differentiated by it. Sow the very array that weighs the values, or sow nothing: "
            "attention is found in the trace then."
        )
    return Place(made.value, made.loops, producer)
