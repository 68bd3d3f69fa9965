"""Which stack each attention of a traced function belongs to: encoder, decoder or cross.

Told by what its queries and keys are computed of, never by lengths alone: a target may be as long as its source. Self-attention
is attention whose queries and keys come from the same tokens, through the same layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from jaxflow.capture._roles import Role, said_roles
from jaxflow.capture._tracing import axes as ax
from jaxflow.capture._tracing.caches import refuse_caches
from jaxflow.capture._tracing.origins import axes_of
from jaxflow.capture._tracing.program import Scope, Value
from jaxflow.capture._tracing.scores import Part, length_of
from jaxflow.capture._tracing.sites import Site


@dataclasses.dataclass(frozen=True)
class Sides:
    """What the queries and the keys of an attention come from.

    Attributes:
        query: arguments and constants, with the axis, that the axis of the queries comes from.
        key: the same of the keys.
        above_query: numbers of the attentions whose results the queries hold, token by token.
        above_key: the same of the keys.
        batch: what the batch axes come from.
        n_queries: number of queries.
        n_keys: number of keys.
    """

    query: frozenset[ax.Origin]
    key: frozenset[ax.Origin]
    above_query: frozenset[int]
    above_key: frozenset[int]
    batch: frozenset[ax.Origin]
    n_queries: int
    n_keys: int

    @property
    def to_itself(self) -> bool:
        """Whether queries and keys are the same tokens."""
        same = self.query <= self.key or self.key <= self.query
        return same and self.above_key <= self.above_query


def traced_roles(name: str, program: Scope, sites: Sequence[Site], said: Mapping[str, Role] | None) -> list[Role]:
    """Tell the stack of every attention.

    Args:
        name: of the function, for messages.
        program: the function.
        sites: its attention.
        said: what the user says: a fragment of a site's path -> its stack; the last that fits counts.

    Returns:
        A stack for each of `sites`.

    Raises:
        ValueError: the stack of some attention cannot be told; what the user says is no stack, or fits nothing.
    """
    paths = [tuple(site.path.strip("/").split("/")) for site in sites]
    given = said_roles(name, paths, said)
    refuse_caches(name, sites)
    if len(given) == len(paths):
        _refuse_oblong(name, sites, [given[path] for path in paths])
        return [given[path] for path in paths]
    sides = _sides(program, sites)
    listed = "\n".join(
        f"  {site.path}: {s.n_queries} queries, {s.n_keys} keys" for site, s in zip(sites, sides, strict=True)
    )

    def unclear(problem: str) -> ValueError:
        return ValueError(
            f"Which stack the attention of {name} belongs to cannot be told. {problem}:\n{listed}\nName them by a "
            "fragment of these "
            'paths, as in capture(..., roles={"": "decoder", "/1/": "cross"}): the last that fits counts; '
            "jax.named_scope gives a part of "
            "a function a name. Or capture one part of the model by itself."
        )

    if len(sites) == 1 and sites[0].scores.raw and sides[0].n_queries == sides[0].n_keys:
        return ["encoder"]
    crossed = [i for i, s in enumerate(sides) if not s.to_itself]
    alone = [i for i, s in enumerate(sides) if s.to_itself]
    oblong = [i for i in alone if sides[i].n_queries != sides[i].n_keys and paths[i] not in given]
    if oblong:
        raise unclear(
            "Queries and keys of one sequence differ in number (a cache, of which only the last step's attention "
            f"would be taken, or keys that are pooled) in {', '.join(sites[i].path for i in oblong)}"
        )
    above = frozenset().union(*(sides[i].above_key for i in crossed))
    roles: list[Role] = ["cross"] * len(sites)
    for i in alone:
        joined = any(i in sides[j].above_query or j in sides[i].above_query for j in crossed)
        if i in above and not joined:
            roles[i] = "encoder"
        elif joined or not crossed:
            roles[i] = "decoder" if crossed else "encoder"
        elif paths[i] not in given:
            raise unclear(f"{sites[i].path} is joined to the others by nothing")
    roles = [given.get(path, role) for path, role in zip(paths, roles, strict=True)]
    _refuse_oblong(name, sites, roles)
    for role in set(roles):
        members = [i for i, r in enumerate(roles) if r == role]
        for i in members:
            first, other = sides[members[0]], sides[i]
            apart = not (first.query <= other.query or other.query <= first.query)
            apart |= not (first.key <= other.key or other.key <= first.key)
            if (apart or first.batch & other.query or other.batch & first.query) and not said:
                raise unclear(f"{sites[members[0]].path} and {sites[i].path} attend over different tokens")
    return roles


def _refuse_oblong(name: str, sites: Sequence[Site], roles: Sequence[Role]) -> None:
    """Raise if something is called self-attention whose queries and keys differ in number: no network can take it."""
    oblong = []
    for site, role in zip(sites, roles, strict=True):
        made = site.scores.axes[site.scores.op.outs[0]]
        n_queries, n_keys = length_of(site.scores, made, "query"), length_of(site.scores, made, "key")
        if role != "cross" and n_queries != n_keys:
            oblong.append(f"  {site.path}, {role}: {n_queries} queries, {n_keys} keys")
    if oblong:
        raise ValueError(
            f"Self-attention of {name} has more or fewer keys than queries, so it makes no network:\n"
            + "\n".join(oblong)
            + "\nThe role of keys of another sequence is 'cross'; if they are a cache's, capture the pass over all tokens."
        )


def _sides(program: Scope, sites: Sequence[Site]) -> list[Sides]:
    tags: dict[Value, list[tuple[ax.Origin, list[int]]]] = {}
    for number, site in enumerate(sites):
        product = site.softmax.product.op
        queries = {place for place, part in site.scores.parts.items() if part == "query"}
        made = site.scores.axes[product.outs[0]]
        tags[product.outs[0]] = [(("site", number), [i for i, axis in enumerate(made) if ax.origins(axis) & queries])]
    axes = axes_of(program, tags)
    return [_of_site(site, axes[site.scores.op.outs[0]]) for site in sites]


def _of_site(site: Site, axes: ax.Axes) -> Sides:
    def coming(part: Part) -> frozenset:
        found = [place for place, p in site.scores.parts.items() if p == part]
        return (
            ax.origins(*(axes[i] for i, _ in found))
            if part != "batch"
            else ax.origins(tuple(axes[i][j] for i, j in found if j < len(axes[i])))
        )

    def length(part: Part) -> int:
        n = 1
        for (i, j), p in site.scores.parts.items():
            n *= axes[i][j].length if p == part else 1
        return n

    query, key = coming("query"), coming("key")
    return Sides(
        query=frozenset(origin for origin in query if origin[0] != "site"),
        key=frozenset(origin for origin in key if origin[0] != "site"),
        above_query=frozenset(number for kind, number in query if kind == "site"),
        above_key=frozenset(number for kind, number in key if kind == "site"),
        batch=coming("batch"),
        n_queries=length("query"),
        n_keys=length("key"),
    )
