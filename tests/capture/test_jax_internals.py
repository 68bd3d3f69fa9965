"""What capture leans on inside of jaxprs. A test that fails here means: this JAX changed; mend `capture/tracing/program.py`."""

import jax
import jax.numpy as jnp
import pytest
from jax.extend import core

from jaxflow.capture._tracing.program import CALLS, equations, read, scan_parts

X = jnp.ones((2, 3))


def only(function, *args):
    closed = jax.make_jaxpr(function)(*args)
    return closed, next(iter(equations(closed)))


def test_equations():
    closed, eqn = only(lambda x: x * 2.0, X)
    assert eqn.primitive.name == "mul", "primitives are known by name"
    assert isinstance(eqn.invars[1], core.Literal), "numbers are literals"
    assert float(eqn.invars[1].val) == 2, "literals have .val"
    assert eqn.outvars[0].aval.shape == (2, 3), "variables have .aval"
    params = eqn.primitive.get_bind_params(eqn.params)
    assert isinstance(params, dict), "get_bind_params returns the parameters of bind alone, functions among them"
    with eqn.ctx.manager:
        result = eqn.primitive.bind(X, 2.0, **params)
    assert result.shape == (2, 3), "bind computes"
    assert closed.jaxpr.constvars == [], "a closed jaxpr has .jaxpr"


def test_name_stacks():
    def model(x):
        with jax.named_scope("outer"):
            return jnp.sin(x)

    _, eqn = only(model, X)
    assert "outer" in str(eqn.source_info.name_stack), "equations know their named scopes"


@pytest.mark.parametrize("call", [jax.jit, jax.checkpoint, jax.custom_jvp, jax.custom_vjp])
def test_calls_are_inlined(call):
    def inner(x):
        return x @ x.T

    function = call(inner)
    if call is jax.custom_jvp:
        function.defjvp(lambda p, t: (inner(*p), inner(*t)))
    if call is jax.custom_vjp:
        function.defvjp(lambda x: (inner(x), x), lambda x, g: (g @ x,))
    closed, eqn = only(function, X)
    names = [op.name for op in read(closed).ops]
    assert "dot_general" in names, (
        f"{call.__name__} is no longer inlined: its primitive is {eqn.primitive.name!r} with parameters {sorted(eqn.params)}; "
        f"known are {sorted(CALLS)}"
    )


def test_parts_of_a_scan():
    def model(constant, start, slices):
        return jax.lax.scan(lambda c, x: (c + constant.sum() + x, (x, x)), start, slices, reverse=True)

    program = read(jax.make_jaxpr(model)(X, jnp.zeros(()), jnp.arange(4.0)))
    op = next(op for op in program.ops if op.name == "scan")
    parts = scan_parts(op)
    assert (parts.n_carried, parts.n_sliced) == (1, 1), "carried and sliced are told by their number of axes"
    assert parts.n_constants == len(op.ins) - 2
    assert op.params["length"] == 4, "scan has a length"
    assert op.params["reverse"] is True, "scan has a direction"
    assert op.params["unroll"] == 1, "scan has an unroll"


def test_bodies():
    def model(x):
        x = jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 2), (0, x))[1]
        return jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x)

    ops = {op.name: op for op in read(jax.make_jaxpr(model)(X)).ops if op.bodies}
    assert set(ops) == {"while", "cond"}, "loops and branches have these names"
    assert len(ops["while"].bodies) == len(ops["cond"].bodies) == 2
    assert {"cond_nconsts", "body_nconsts"} <= set(ops["while"].params), "while says how many constants each body has"


def test_products_and_gathers():
    _, eqn = only(lambda x: jnp.einsum("ab,cb->ac", x, x), X)
    assert eqn.params["dimension_numbers"] == (((1,), (1,)), ((), ())) or eqn.params["dimension_numbers"] == (
        ([1], [1]),
        ([], []),
    )
    names = {eqn.primitive.name: eqn for eqn in equations(jax.make_jaxpr(lambda x: x[jnp.arange(2)])(X))}
    numbers = names["gather"].params["dimension_numbers"]
    for field in ("offset_dims", "collapsed_slice_dims", "start_index_map", "operand_batching_dims"):
        assert hasattr(numbers, field), f"gather has {field}"


def test_softmax_is_what_it_was():
    names = [op.name for op in read(jax.make_jaxpr(jax.nn.softmax)(X)).ops]
    assert {"exp", "reduce_sum", "div"} <= set(names), f"jax.nn.softmax is made of {names}"
    assert "stop_gradient" in names or "reduce_max" in names
