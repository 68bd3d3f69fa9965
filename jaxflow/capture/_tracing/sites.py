"""Find where a program computes attention: a softmax over the product of queries and keys, that weighs values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from jaxflow.capture._tracing import axes as ax
from jaxflow.capture._tracing.loops import Passes, passes_of
from jaxflow.capture._tracing.origins import axes_of, computed_values
from jaxflow.capture._tracing.program import Op, Scope, Value, hidden
from jaxflow.capture._tracing.scores import NO_QUERIES, Around, Scores, find_scores, free_origins, length_of
from jaxflow.capture._tracing.softmax import (
    Keys,
    Softmax,
    Step,
    exponentials,
    follow_exponential,
    is_dropout,
    is_scaling,
    random_values,
)

ONE_QUERY = (
    "has one query in each pass of a loop: a sequence written token by token. Capture one pass over the whole "
    "sequence instead: its attention is causal, so it has every step's."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """One place where attention is computed.

    Attributes:
        scope: the function or loop body that it lies in.
        loops: the scans around it, outermost first.
        layers: of each loop, whether its passes build on each other, as layers do, or else which part of the attention's
            axes it goes through.
        softmax: divided exponential and product with values.
        steps: of the steps between division and product, those that are no dropout.
        scores: the product of queries and keys.
        path: the named scopes around it, and its number: `/decoder/layer_0/3/`.
        order: its place among all.
        also: other products of the same weights, as for content and for position.
    """

    scope: Scope
    loops: tuple[Op, ...]
    layers: tuple[Passes, ...]
    softmax: Softmax
    steps: tuple[Step, ...]
    scores: Scores
    path: str
    order: tuple[int, ...]
    also: tuple[Softmax, ...] = ()


@dataclasses.dataclass
class Findings:
    """What was found in a program.

    Attributes:
        sites: attention, in the order in which it runs.
        refused: attention that cannot be taken, and why.
        other: softmaxes that are no attention, and why.
    """

    sites: list[Site] = dataclasses.field(default_factory=list)
    refused: list[str] = dataclasses.field(default_factory=list)
    other: list[str] = dataclasses.field(default_factory=list)


def find(program: Scope) -> Findings:
    """Find all attention of a program."""
    findings = Findings()
    axes = axes_of(program, {})
    results = [ax.origins(*axes[value]) for value in program.outs if value.shape]
    lasting = frozenset.intersection(*results) if results else frozenset()
    _search(program, (), (), axes, computed_values(program), lasting, findings)
    findings.sites.sort(key=lambda site: site.order)
    findings.sites = [
        dataclasses.replace(site, path=f"/{site.path}/{i}/".replace("//", "/")) for i, site in enumerate(findings.sites)
    ]
    return findings


def _search(
    scope: Scope,
    loops: tuple[Op, ...],
    place: tuple[int, ...],
    axes: Mapping[Value, ax.Axes],
    computed: frozenset[Value],
    lasting: frozenset[ax.Origin],
    findings: Findings,
) -> None:
    around = Around(scope, loops, place, axes, computed, scope.producers(), random_values(scope), lasting)
    every = [(exp, follow_exponential(scope, exp, around.producers)) for exp in exponentials(scope)]
    # exp(x - log(sum(exp(x)))) are two exponentials, and one softmax: that of the first.
    divided = {softmax.product.op for _, followed in every for softmax in followed.softmaxes}
    for exp, followed in every:
        undivided = tuple((keys, step) for keys, step in followed.undivided if step.op not in divided)
        if followed.softmaxes or undivided or followed.lost:
            _judge(around, exp, followed.softmaxes, undivided, followed.lost, findings)
        elif followed.crossed:
            findings.other.append(
                f"{_where(exp)}softmax of shape {list(exp.outs[0].shape)}: its weights are summed up over another "
                "axis than the one that they are divided over (a softmax over queries, as in slot attention, "
                "without a division over keys)."
            )
    for op in scope.ops:
        for body in op.bodies:
            inner = findings if op.name == "scan" else Findings()
            _search(body, (*loops, op) if op.name == "scan" else (), (*place, op.index), axes, computed, lasting, inner)
            if op.name != "scan" and (inner.sites or inner.refused):
                findings.refused.append(_unreachable(op))
        for inside in hidden(op):
            inner = find(inside)
            if inner.sites or inner.refused:
                findings.refused.append(
                    f"{_where(op)}attention inside a {op.name}, which capture does not enter. Capture what it "
                    "maps, or let jax.jit place the arrays on devices instead (jax.sharding). Packages map their kernels; their "
                    "flags switch that off: attention='dot_product' (MaxText), use_flash_attention=False (tunix), "
                    "attn_mechanism='vanilla' (EasyDeL)."
                )


def _unreachable(op: Op) -> str:
    if op.name == "while":
        return (
            f"{_where(op)}attention inside a while loop, whose number of passes is not known before it runs. Let "
            "the layers be a Python loop, lax.scan, or lax.fori_loop with bounds that are Python numbers, which "
            "becomes a scan; capture the pass over a whole sequence instead of a loop that generates it."
        )
    return (
        f"{_where(op)}attention inside a cond (lax.cond, lax.switch), where only one branch runs. Decide in Python, "
        "with a static argument instead of a traced one, or capture the function of the branch that you mean."
    )


def _where(op: Op) -> str:
    return f"/{op.path}: " if op.path else ""


def _judge(
    around: Around,
    exp: Op,
    softmaxes: tuple[Softmax, ...],
    undivided: tuple[tuple[Keys, Step], ...],
    lost: tuple[tuple[Keys, Op], ...],
    findings: Findings,
) -> None:
    """Sort what became of the exponential into attention, what is refused, and what is none."""
    where = _where(exp)
    taken: list[tuple[Site, Softmax]] = []
    for softmax in softmaxes:
        found = find_scores(around, exp, softmax.keys, softmax.product, softmax.divisor)
        if found == NO_QUERIES and around.loops:
            findings.refused.append(f"{where}attention of shape {list(exp.outs[0].shape)} {ONE_QUERY}")
            return
        if isinstance(found, str):
            if _is_among_tokens(around, softmax):
                findings.refused.append(
                    f"{where}softmax of shape {list(exp.outs[0].shape)} weighs tokens for tokens, but {found}. Build "
                    "Attention(encoder=...) of the weights that you mean, or let a module sow them."
                )
                return
            findings.other.append(f"{where}softmax of shape {list(exp.outs[0].shape)}: {found}.")
            continue
        if softmax.mixed:
            findings.refused.append(
                f"{where}attention of shape {list(exp.outs[0].shape)} is multiplied with a matrix between softmax and "
                "values (talking heads?), so what weighs the values is no probability. Sow what you mean, or build "
                "Attention(encoder=...) of it."
            )
            return
        if taken and not _builds_on(around, softmax, taken[-1][1]):
            if _cuts(softmax) != _cuts(taken[-1][1]):
                findings.refused.append(
                    f"{where}attention of shape {list(exp.outs[0].shape)} weighs two sets of values by two parts of "
                    "its keys. Join keys and values before the product (jnp.concatenate)."
                )
                return
            same = taken[-1][0]  # weights for content and for position
            taken[-1] = (dataclasses.replace(same, also=(*same.also, softmax)), taken[-1][1])
            continue
        site = _site(around, exp, softmax, found)
        if isinstance(site, str):
            findings.refused.append(f"{where}{site}")
            return
        taken.append((site, softmax))
    findings.sites += [site for site, _ in taken]
    if taken:
        return
    for keys, product in undivided:
        if not isinstance(find_scores(around, exp, keys, product), str):
            findings.refused.append(
                f"{where}an exponential of queries times keys, {list(exp.outs[0].shape)}, weighs values without "
                "being divided by its sum over the same axes: attention in blocks of keys with a running sum "
                "(flash attention), a softmax over queries, or a kernel. Switch it off for the capture (such as "
                "attention='dot_product', use_flash_attention=False, key_chunk_size=None), or compute the weights "
                "from queries and keys: jaxflow.attention_weights(query, key)."
            )
            return
    for keys, op in lost:
        if softmaxes or isinstance(find_scores(around, exp, keys, None), str):
            continue
        findings.refused.append(
            f"{where}softmax weights of shape {list(exp.outs[0].shape)} go into a {op.name}, where they cannot be "
            "followed. Switch blocks and chunks off for the capture, or compute the weights: "
            "jaxflow.attention_weights(query, key)."
        )
        return


def _is_among_tokens(around: Around, softmax: Softmax) -> bool:
    """Whether weights for each token and each other one weigh values that all tokens share.

    Keys come from an axis that another axis of the weights comes from, and that one is free in the product with the values.
    """
    weights = around.axes.get(softmax.product.op.ins[softmax.product.place])
    made = around.axes.get(softmax.exp.outs[0])
    if weights is None or made is None:
        return False
    keys = {axis for _, axis in softmax.keys}
    among = ax.origins(*(made[axis] for axis in keys))
    others = ax.origins(*(axis for i, axis in enumerate(made) if i not in keys))
    return bool(among & others & free_origins(softmax.product, weights))


def _builds_on(around: Around, softmax: Softmax, earlier: Softmax) -> bool:
    """Whether the values of a product depend on an earlier product of the same weights: another layer."""
    known = set(earlier.product.op.outs)
    for op in around.scope.ops[earlier.product.op.index + 1 : softmax.product.op.index]:
        if any(value in known for value in op.ins):
            known.update(op.outs)
    return softmax.product.op.ins[1 - softmax.product.place] in known


def _site(around: Around, exp: Op, softmax: Softmax, scores: Scores) -> Site | str:
    """Put together what is known; or say why this attention cannot be taken."""
    steps = softmax.steps
    if any(is_dropout(step, around.random) for step in steps):
        steps = tuple(step for step in steps if not is_dropout(step, around.random) and not is_scaling(step))
    (out,) = scores.op.outs
    shape = list(exp.outs[0].shape)
    origins = {
        part: [around.axes[out][i][j].origins for (i, j), p in scores.parts.items() if p == part]
        for part in ("batch", "head", "query", "key")
    }
    tokens = frozenset().union(*origins["query"], *origins["key"])
    if any(other & tokens for other in (*origins["batch"], *origins["head"])):
        return (
            f"attention of shape {shape} is computed in blocks of tokens: one of its axes comes from the same axis "
            "as the tokens, so there is no weight for two tokens of different blocks. Take full attention for the "
            "capture (attention_type, window or chunk sizes in the model's config)."
        )
    n_queries = length_of(scores, around.axes[out], "query")
    if around.loops and n_queries == 1 and length_of(scores, around.axes[out], "key") > 1:
        return f"attention of shape {shape} {ONE_QUERY}"
    lost = [factor.length for axis in around.axes[out] if not ax.origins(axis) for factor in axis if factor.length > 1]
    if lost:
        return (
            f"attention of shape {shape} has axes of length {lost} that come from no argument of the function, so it cannot be "
            "told what they are. Pass the arrays that the function makes by itself as arguments, or map over them with jax.vmap."
        )
    layers: list[Passes] = []
    for loop in around.loops:
        kind = passes_of(around, loop, scores, tokens)
        if kind is None:
            return (
                f"attention of shape {shape} is computed in a loop whose passes do not build on each other: in "
                "chunks of queries, or one step of a sequence at a time. Switch chunks off for the capture (such "
                "as query_chunk_size=None), and pass the whole sequence at once."
            )
        layers.append(kind)
    order = (*around.place, softmax.product.op.index)
    return Site(around.scope, around.loops, tuple(layers), softmax, steps, scores, exp.path, order)


def _cuts(softmax: Softmax) -> list[tuple]:
    names = ("slice", "dynamic_slice", "split")
    return [(step.op.name, step.result, str(step.op.params)) for step in softmax.steps if step.op.name in names]
