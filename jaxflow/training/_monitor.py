"""FlowMonitor: a hook that follows attention flow through a training, and hands it to a metric writer."""

from __future__ import annotations

import contextlib
import logging
import operator
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxflow._attention import STACKS
from jaxflow._progress import no_progress
from jaxflow.attribute import AttentionFlow, RawAttention, Rollout, SetShapley, as_method, method_name
from jaxflow.capture import Residual
from jaxflow.explain import Example
from jaxflow.models import as_model
from jaxflow.network import Capacities, DecoderLayer, Positions, flow_network, select
from jaxflow.training._images import score_images
from jaxflow.training._summary import check_method, flow_summary
from jaxflow.training._tracked_batch import TrackedBatch, track_batch
from jaxflow.training._writer import adapt_writer

MAX_PENDING = 2  # batches that wait to be solved before training waits for them
logger = logging.getLogger("jaxflow")


class FlowMonitor:
    """Follow attention flow through a training: every so many steps, on a fixed batch, into the loop's metric writer.

    Called after every step, as the periodic actions of clu are:

        with jaxflow.FlowMonitor(model, ids, state=params, writer=writer, every_steps=100) as monitor:
            for step in range(1, n_steps + 1):
                params, ... = train_step(params, ...)
                monitor(step, params)

    At steps that `every_steps` divides it writes the scalars of `FlowSummary`, and the scores as images, under `prefix`.
    At all others it does nothing. It compiles one function of its own, when it first runs, and nothing of the training.

    The model's pass over the batch is dispatched to the devices, like a training step; heads are reduced there. Solves run on
    the host in a thread beside the training, on a batch at a time; when two wait, training waits too, and nothing is
    left out. What is written depends on the step and the state alone, so a training that goes on from a checkpoint
    needs nothing of the monitor: `flush` before the checkpoint is saved, and hand over the restored state.

    A writer that fails, attention that has become NaN, or a state that was donated before the call does not end the training:
    the first failure is logged (logger "jaxflow") and kept in `failure`; the writer is called again the next time. What a
    writer raises in the monitor's thread, `SystemExit` and `KeyboardInterrupt` too, is a failure of this kind. Ctrl-C arrives in
    the training's own thread, as ever.

    **Several devices.** The state may be sharded as it likes. **Several processes**: call it in every one of them, at every
    step, with the same batch. A state that lies on devices of several processes is computed with by all of them, since the
    pass may take collectives, whose result each process then holds; the monitor adds no wait of its own. Process 0
    alone solves and writes. A state that is process 0's alone is computed with by process 0 alone.

    Attributes:
        failure: the first exception that has kept a report from being written; None so far as all is well.
    """

    def __init__(
        self,
        model: Any,
        inputs: Any,
        method: AttentionFlow | SetShapley | Rollout | RawAttention | str = "flow",
        *,
        writer: Any,
        every_steps: int,
        state: Any = None,
        positions: Positions | None = None,
        images: int = 4,
        prefix: str | None = None,
        background: bool = True,
    ) -> None:
        """Trace the model over the shapes of the batch, and refuse what could not be reported later.

        Args:
            model: what `capture` takes: an instance of a Flax class of transformers 4, a linen module, an NNX module, or a
                function `model(state, ...)`; or `as_model(...)` of it, which says more. An NNX module is run in the mode (train
                or eval) that it is in now.
            inputs: the batch that is tracked: a mapping of the model's own inputs by name, an array, or a tuple of inputs by
                position, [*batch, ...]; or an `Example`, which says its padding masks too. A few examples do: each has as many
                solves as explained positions times inputs.
            method: how to score: `AttentionFlow`, `SetShapley`, `Rollout` or `RawAttention`, or the name of one.
            writer: clu's `MetricWriter` or what has its `write_scalars(step, scalars)` and `write_images(step, images)`; or a
                `SummaryWriter` as of tensorboardX (`add_scalar`, `add_images`). It stays the caller's to flush and close.
            every_steps: N; reports are made at steps 0, N, 2N, ...
            state: a state to trace with: parameters of a function or of a transformers model, variables of a linen module or
                its parameters alone. Not needed for what holds its own: an NNX module, a bound one, a transformers model.
            positions: as in `flow_summary`.
            images: of how many examples, the first ones, the scores are written as an image: outputs as rows, inputs as columns.
            prefix: before the names of scalars and images; "attention_flow" for attention flow, else the method's name.
            background: whether to solve and to write in a thread of the monitor's. False does it within the call: for a writer
                that must be called where the training runs, and where training itself needs the host's cores.

        Raises:
            ValueError: `every_steps` below 1; a batch that does not fit the model; attention that cannot be captured; a writer
                that cannot write; a method that needs more of a model than its attention; options that `flow_summary` would
                refuse.
            TypeError: `model` is nothing that can be run.
        """
        self._every = operator.index(every_steps)
        if self._every < 1:
            raise ValueError(f"every_steps is {every_steps}; expected 1 or more, after how many steps to report again.")
        if operator.index(images) < 0:
            raise ValueError(f"images is {images}; expected 0 or more examples.")
        self._write = adapt_writer(writer, images=images > 0)
        self._method: Any = check_method(as_method(method))
        self._batch = track_batch(
            as_model(model),
            inputs if isinstance(inputs, Example) else Example(inputs),
            state=state,
            heads=self._method.heads,
            residual=self._method.residual,
        )
        decoder_layer: Any = getattr(self._method, "decoder_layer", "sublayers")
        _check_structure(self._batch, positions, self._method.residual, decoder_layer)
        self._positions = positions
        is_parallel = decoder_layer == "parallel" and self._batch.attention.cross is not None
        self._largest = 2.0 - self._method.residual if is_parallel else 1.0
        default = "attention_flow" if isinstance(self._method, AttentionFlow) else method_name(self._method)
        self._images, self._prefix = images, default if prefix is None else prefix
        self._capture: Callable | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="jaxflow-monitor") if background else None
        self._pending: deque[Future[None]] = deque()
        self._closed = False
        self.failure: BaseException | None = None

    def __call__(self, step: int, state: Any = None) -> bool:
        """Report if `every_steps` divides the step; to be called after each.

        Args:
            step: number of the step, a Python integer.
            state: the model's state after the step, the same part of it as at construction. Not needed for an NNX module, which
                holds its own.

        Returns:
            Whether this is a step of which a report is made.

        Raises:
            ValueError: a call inside of `jax.jit`; a step that lies on a device; a state that is missing or another one; a call
                after `close`.
        """
        _refuse_traced(step)
        if isinstance(step, jax.Array):
            raise ValueError(
                "step is a jax.Array: reading it would wait for the device at every step. Count steps in Python, such as by "
                "enumerate, and pass that number."
            )
        if state is None and not self._batch.model.is_live:
            raise ValueError(
                f"The monitor is called without a state, and {self._batch.model.name} does not change as it is trained. Hand "
                "over the parameters after the step: monitor(step, params)."
            )
        if self._closed:
            raise ValueError(
                "The monitor is closed, and reports no more. Call it inside its `with` block, or before close()."
            )
        if operator.index(step) % self._every:
            return False
        state = self._batch.model.state_of(state)
        _refuse_traced(state)
        self._batch.check(state)
        leaves = [leaf for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)]
        if any(leaf.is_deleted() for leaf in leaves):
            self._fail(
                int(step),
                ValueError(
                    "the state was donated before the monitor was called, so its arrays are gone. Hand over the state that the "
                    "step returned, or call the monitor before the step that donates it"
                ),
            )
            return False
        spans_processes = not all(leaf.is_fully_addressable for leaf in leaves)
        is_first = jax.process_index() == 0
        if not is_first and not spans_processes:
            return True
        if self._capture is None:
            self._capture = jax.jit(
                self._batch.capacities, out_shardings=_everywhere(leaves) if spans_processes else None
            )
        capacities = self._capture(state, self._batch.arrays)
        if not is_first:
            return True
        if self._pool is None:
            self._report(int(step), capacities)
            return True
        while self._pending and (self._pending[0].done() or len(self._pending) >= MAX_PENDING):
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._report, int(step), capacities))
        return True

    def flush(self) -> None:
        """Wait until all reports that are due are written."""
        while self._pending:
            self._pending.popleft().result()

    def close(self) -> None:
        """Write all reports that are due, and end the thread. The writer is left open."""
        self.flush()
        self._closed = True
        if self._pool is not None:
            self._pool.shutdown()

    def __enter__(self) -> FlowMonitor:
        """Return the monitor, to be closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it, after an exception too: what was due before a checkpoint is written."""
        self.close()

    def _report(self, step: int, capacities: Capacities) -> None:
        """Solve and write; on failure log the first, and let the training go on."""
        try:
            with _on_cpu(), no_progress():  # the little that is done in JAX must not queue behind training steps
                summary = flow_summary(jax.device_get(capacities), self._method, positions=self._positions)
            scores = summary.attribution.scores
            drawn = score_images(scores.reshape(-1, *scores.shape[-2:])[: self._images], largest=self._largest)
            scalars = {f"{self._prefix}/{name}": value for name, value in summary.scalars().items()}
            self._write(step, scalars, {f"{self._prefix}/scores": drawn} if self._images else {})
        except Exception as error:
            self._fail(step, error)
        except BaseException as error:
            if self._pool is None:  # in the training's own thread it may be Ctrl-C
                raise
            self._fail(step, error)

    def _fail(self, step: int, error: BaseException) -> None:
        """Keep and log the first failure, and let the training go on."""
        if self.failure is None:
            self.failure = error
            logger.error(
                "The report of attention flow at step %d failed: %s. Training goes on; further failures are not logged.",
                step,
                str(error) or type(error).__name__,
                exc_info=error,
            )


def _refuse_traced(tree: Any) -> None:
    """Raise where a step or a state has no values yet."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree)):
        raise ValueError(
            "The monitor is called inside of a function that JAX traces (jit, grad, scan), where there are no values to report. "
            "Call it in the Python loop, after the step, with the state that the step returned: monitor(step, params)."
        )


def _check_structure(
    batch: TrackedBatch, positions: Positions | None, residual: Residual, decoder_layer: DecoderLayer
) -> None:
    """Raise now what `flow_summary` would raise at the first report: make a network of even attention of that shape."""
    shapes = {name: stack.shape for name in STACKS if (stack := getattr(batch.attention, name)) is not None}
    one: dict[str, Any] = {name: np.ones(shape[-4:-3] + shape[-2:], np.float32) for name, shape in shapes.items()}
    if "decoder" in one:
        one["decoder"] = np.tril(one["decoder"])  # it is causal
    flow_network(Capacities(**one, residual=np.float32(residual)), decoder_layer=decoder_layer)
    axes = next(iter(shapes.values()))[:-4]
    padding: dict[str, Any] = {f"{side}_mask": mask for side, mask in batch.masks.items()}
    whole: dict[str, Any] = {name: np.broadcast_to(stack, (*axes, *stack.shape)) for name, stack in one.items()}
    select(Capacities(**whole, **padding), positions=positions)


def _everywhere(leaves: Sequence[jax.Array]) -> NamedSharding:
    """Return the sharding that gives every process the whole of a result.

    Raises:
        ValueError: no array says by what mesh it is sharded.
    """
    for leaf in leaves:
        if isinstance(leaf.sharding, NamedSharding) and not leaf.is_fully_addressable:
            return NamedSharding(leaf.sharding.mesh, PartitionSpec())
    raise ValueError(
        "The state lies on devices of several processes, and none of its arrays has a NamedSharding: shard it over a mesh, "
        "jax.device_put(state, NamedSharding(mesh, spec))."
    )


def _on_cpu() -> contextlib.AbstractContextManager:
    """Let JAX compute on the host, if it was started with it."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()
