"""Value and gradient of flows on several host devices at once, printed; run by test_gradient.py in a process of its own."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxflow import Capacities
from jaxflow.solve._gradient import flow_value, smooth_flow_value

N_TOKENS = 60  # 10,800 arcs: arguments small enough to be passed on at once block in no way


def total(layers):
    busy = jnp.linalg.matrix_power(layers[0], 8).sum()  # work for all threads before the callback
    return flow_value(Capacities(encoder=layers), np.arange(3), 0).sum() + 0 * busy


def main() -> None:
    devices = jax.devices()
    layers = np.random.default_rng(0).dirichlet(np.ones(N_TOKENS), (2 * len(devices), 3, N_TOKENS)).astype(np.float32)
    mesh, rows = Mesh(np.array(devices), ("example",)), PartitionSpec("example")
    spread = jax.device_put(layers, NamedSharding(mesh, rows))
    one, step = jax.jit(jax.value_and_grad(total)), jax.vmap(jax.value_and_grad(total))
    expected = [np.stack(leaf) for leaf in zip(*(one(example) for example in layers), strict=True)]
    on_each = jax.shard_map(step, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
    ways = {
        "jit": lambda: jax.jit(step)(spread),
        "shard_map": lambda: jax.jit(on_each)(spread),
        "pmap": lambda: [
            leaf.reshape(-1, *leaf.shape[2:])
            for leaf in jax.pmap(step)(layers.reshape(len(devices), 2, *layers.shape[1:]))
        ],
    }
    for name, run in ways.items():
        for _ in range(3):
            for got, wanted in zip(run(), expected, strict=True):
                np.testing.assert_allclose(got, wanted, atol=1e-6)
        print(f"{name}: {len(devices)} devices", flush=True)

    smooth = jax.vmap(lambda layers: smooth_flow_value(Capacities(encoder=layers), 0, 0))
    values = jax.jit(jax.shard_map(smooth, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False))(spread)
    assert (np.asarray(values) < [flow_value(Capacities(encoder=example), 0, 0) for example in layers]).all()
    print(f"smooth: {len(devices)} devices", flush=True)


if __name__ == "__main__":
    main()
