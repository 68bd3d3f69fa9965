"""Attention that lies on several devices gives what it gives on one. Run by test_sharding.py, with 4 devices of the host."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from monitored import Encoder
from strategies import make_attention

from jaxflow import Attention, attention_flow, joint_capacities
from jaxflow.attribute import rollout
from jaxflow.network import capture_capacities
from jaxflow.solve import flow_bounds

BATCH, LAYERS, HEADS, TOKENS = 4, 3, 4, 8
WHOLE = make_attention("softmax", 0, (BATCH, LAYERS, HEADS, TOKENS, TOKENS))
MASK = np.arange(TOKENS) < np.array([8, 5, 8, 3])[:, None]
MASKED = np.where(MASK[:, None, None, :, None], WHOLE, 0) * MASK[:, None, None, None, :]
MASKED = (MASKED / np.maximum(MASKED.sum(-1, keepdims=True), 1e-9)).astype(np.float32)
AXES = {
    "batch": PartitionSpec("x"),
    "heads": PartitionSpec(None, None, "x"),
    "queries": PartitionSpec(None, None, None, "x"),
    "keys": PartitionSpec(None, None, None, None, "x"),
}


def mesh():
    return Mesh(np.array(jax.devices()), ("x",))


def assert_same(got, expected, **tolerance):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **({"rtol": 0} | tolerance)), got, expected)


def check(spec):
    place = functools.partial(jax.device_put, device=NamedSharding(mesh(), spec))
    sharded = place(jnp.asarray(MASKED))
    assert len(sharded.sharding.device_set) == 4
    assert not sharded.sharding.is_fully_replicated
    for heads in ("mean", "max", 1):
        options = {"heads": heads, "encoder_mask": MASK}
        expected = joint_capacities(Attention(encoder=MASKED), **options)
        assert_same(joint_capacities(Attention(encoder=sharded), **options), expected)
        jitted = jax.jit(functools.partial(joint_capacities, **options))(Attention(encoder=sharded))
        assert_same(jitted, expected, atol=1e-7)
    layers = (sharded[:, number] for number in range(LAYERS))
    assert_same(
        joint_capacities(layers, encoder_mask=MASK), joint_capacities(Attention(encoder=MASKED), encoder_mask=MASK)
    )
    assert_same(rollout(sharded, encoder_mask=MASK), rollout(MASKED, encoder_mask=MASK), atol=1e-6)
    many, one = (flow_bounds(joint_capacities(Attention(encoder=w), encoder_mask=MASK)) for w in (sharded, MASKED))
    assert_same(many, one, atol=1e-6)
    options = {"encoder_mask": MASK, "positions": [0, 2]}
    assert_same(attention_flow(sharded, **options), attention_flow(MASKED, **options))


def check_capture():
    """Inputs that are sharded over the batch, through a model, under jit."""

    x = jax.random.normal(jax.random.key(0), (4, TOKENS, 8))
    variables = Encoder().init(jax.random.key(1), x)
    run = jax.jit(lambda x: capture_capacities(Encoder(), x, variables=variables)[1])
    sharded = run(jax.device_put(x, NamedSharding(mesh(), AXES["batch"])))
    assert len(sharded.encoder.sharding.device_set) == 4
    assert_same(sharded, run(x), atol=1e-6)


if __name__ == "__main__":
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for name, spec in AXES.items():
            check(spec)
            print(name)
        check_capture()
        print("capture")
