"""A monitored training whose state is sharded. Run by test_monitoring_sharded.py, in one process or as one of two.

    python tests/monitored.py [NUMBER_OF_THIS_PROCESS PORT]

Every process prints what its writer was given; the last line says that it came to the end.
"""

import json
import sys
import threading

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxflow import FlowMonitor

TOKENS, WIDTH = 5, 8
PROBE = np.random.default_rng(0).normal(size=(4, TOKENS, WIDTH)).astype(np.float32)
BATCHES = np.random.default_rng(1).normal(size=(6, 4, TOKENS, WIDTH)).astype(np.float32)


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = x + nn.MultiHeadDotProductAttention(num_heads=4)(x)
        return x


class Writer:
    """Keeps what it is given, as clu's in-memory writer does."""

    def __init__(self):
        self.scalars, self.images, self.threads = {}, {}, set()

    def write_scalars(self, step, scalars):
        self.threads.add(threading.current_thread())
        self.scalars[step] = scalars

    def write_images(self, step, images):
        self.images[step] = images


def place(tree, mesh, spec_of):
    """Put a tree on a mesh, from the same values in every process."""

    def put(leaf):
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, NamedSharding(mesh, spec_of(leaf)), lambda part: leaf[part])

    return jax.tree.map(put, tree)


@jax.jit
def train_step(params, batch):
    gradient = jax.grad(lambda params: (Encoder().apply({"params": params}, batch) ** 2).mean())(params)
    return jax.tree.map(lambda leaf, slope: leaf - 0.1 * slope, params, gradient)


def train(params, put_batch, **options):
    writer = Writer()
    with FlowMonitor(Encoder(), PROBE, state=params, writer=writer, every_steps=2, **options) as monitor:
        for step, batch in enumerate(BATCHES, 1):
            params = train_step(params, put_batch(batch))
            monitor(step, params)
    assert monitor.failure is None, monitor.failure
    inks = {step: int(np.sum(images["attention_flow/scores"])) for step, images in writer.images.items()}
    return {step: {**scalars, "ink": inks[step]} for step, scalars in writer.scalars.items()}


def main():
    if len(sys.argv) > 1:
        jax.distributed.initialize(f"127.0.0.1:{sys.argv[2]}", num_processes=2, process_id=int(sys.argv[1]))
    assert len(jax.devices()) == 4
    mesh = Mesh(np.array(jax.devices()), ("x",))
    params = jax.device_get(Encoder().init(jax.random.key(0), jnp.asarray(PROBE[:1]))["params"])
    # Parameters over the axis of the width or the heads, batches over their examples: both need collectives.
    sharded = place(params, mesh, lambda leaf: PartitionSpec("x") if leaf.shape[0] % 4 == 0 else PartitionSpec())
    assert any(not leaf.is_fully_replicated for leaf in jax.tree.leaves(sharded))
    written = train(sharded, lambda batch: place(batch, mesh, lambda _: PartitionSpec("x")))
    alone = train(params, lambda batch: batch)  # each process by itself
    print(json.dumps({"sharded": written, "alone": alone}))
    print("end")


if __name__ == "__main__":
    main()
