import logging
import sys
import threading
import types
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
import tensorboardX
import tiny_models
from flax import nnx
from monitored import TOKENS, WIDTH, Encoder, Writer
from tensorboardX.proto.event_pb2 import Event

import jaxflow
from jaxflow import AttentionFlow, Example, FlowMonitor, SetShapley, load_model
from jaxflow.training import flow_summary

X = np.asarray(jax.random.normal(jax.random.key(0), (2, TOKENS, WIDTH)))
BATCHES = np.asarray(jax.random.normal(jax.random.key(1), (9, 4, TOKENS, WIDTH)))


class Sown(nnx.Module):
    """An NNX encoder with dropout, that sows what it computes in training, too."""

    def __init__(self, rngs):
        self.layers = nnx.List(
            nnx.MultiHeadAttention(2, WIDTH, WIDTH, decode=False, dropout_rate=0.1, rngs=rngs) for _ in range(2)
        )

    def __call__(self, x):
        for layer in self.layers:
            x = x + layer(x, sow_weights=True)
        return x


PARAMS = Encoder().init(jax.random.key(2), X)["params"]
OPTIMISER = optax.sgd(0.05, momentum=0.9)  # Adam leans on promotion


@jax.jit
def train_step(params, state, batch):
    gradient = jax.grad(lambda params: (Encoder().apply({"params": params}, batch) ** 2).mean())(params)
    updates, state = OPTIMISER.update(gradient, state)
    return optax.apply_updates(params, updates), state


def train(monitor, params, state, steps):
    for step in steps:
        params, state = train_step(params, state, BATCHES[step - 1])
        monitor(step, params)
    return params, state


def monitored(writer, **options):
    return FlowMonitor(Encoder(), X, state=PARAMS, **{"writer": writer, "every_steps": 2, **options})


@pytest.mark.parametrize("background", [True, False])
def test_a_plain_loop_is_reported_at_the_steps_that_are_due(background):
    writer, seen = Writer(), {}
    with monitored(writer, background=background, positions=[0, 3]) as monitor:
        params, state = PARAMS, OPTIMISER.init(PARAMS)
        for step in range(5):
            seen[step] = params
            assert monitor(step, params) is (step % 2 == 0)
            params, state = train_step(params, state, BATCHES[step])
    assert monitor.failure is None
    assert sorted(writer.scalars) == sorted(writer.images) == [0, 2, 4]
    for step, scalars in writer.scalars.items():
        _, attention = jaxflow.capture(Encoder(), X, variables={"params": seen[step]})
        expected = flow_summary(attention, positions=[0, 3]).scalars()
        assert scalars == pytest.approx({f"attention_flow/{name}": value for name, value in expected.items()}, abs=1e-5)
        assert writer.images[step]["attention_flow/scores"].shape == (2, 2 * 12, TOKENS * 12, 3)
    assert writer.scalars[0] != writer.scalars[4]
    assert (threading.current_thread() in writer.threads) is not background


def test_training_compiles_nothing_more_and_the_monitor_once():
    compiled = []

    def on_event(name, seconds, **_):
        if name.endswith("backend_compile_duration") and threading.current_thread() is threading.main_thread():
            compiled.append(name)

    params, state = train_step(PARAMS, OPTIMISER.init(PARAMS), BATCHES[0])  # compiled before
    n_steps = train_step._cache_size()
    jax.monitoring.register_event_duration_secs_listener(on_event)
    try:
        with monitored(Writer(), every_steps=3) as monitor:
            monitor(1, params)
            assert not compiled
            counts = []
            for step in range(2, 8):
                params, state = train_step(params, state, BATCHES[step])
                monitor(step, params)
                counts.append(len(compiled))
    finally:
        jax.monitoring.unregister_event_duration_listener(on_event)
    assert counts == [0, counts[1], counts[1], counts[1], counts[1], counts[1]]
    assert counts[1] == 1
    assert train_step._cache_size() == n_steps


def test_an_nnx_optimizer_loop_needs_no_state_handed_over():
    module = Sown(nnx.Rngs(0))
    module.eval()
    writer = Writer()
    monitor = FlowMonitor(module, X, writer=writer, every_steps=2)
    module.train()  # what the monitor runs is in the mode it was in then
    optimizer = nnx.Optimizer(module, OPTIMISER, wrt=nnx.Param)

    @nnx.jit
    def step_of(module, optimizer, batch):
        optimizer.update(module, nnx.grad(lambda module: (module(batch) ** 2).mean())(module))

    seen = {}
    with monitor:
        for step in range(4):
            seen[step] = nnx.clone(module)
            monitor(step)
            step_of(module, optimizer, BATCHES[step])
            nnx.pop(module, nnx.Intermediate)
        monitor(4, nnx.state(module, nnx.Not(nnx.Intermediate)))  # a functional loop hands its state over
    assert sorted(writer.scalars) == [0, 2, 4]
    for step in (0, 2):
        seen[step].eval()
        expected = flow_summary(jaxflow.capture(seen[step], X)[1]).scalars()
        got = {name.removeprefix("attention_flow/"): value for name, value in writer.scalars[step].items()}
        assert got == pytest.approx(expected, abs=1e-5)


def test_a_function_of_parameters_and_its_masks():
    def forward(params, ids, attention_mask):
        x = params["embedding"][ids]
        logits = jnp.einsum("bqd,bkd->bqk", x @ params["query"], x)
        logits = jnp.where(attention_mask[:, None, :], logits, -1e9)
        return jax.nn.softmax(logits) @ x

    params = {"embedding": jnp.asarray(X[0]), "query": jnp.eye(WIDTH)}
    ids, mask = np.array([[0, 1, 2, 3], [4, 2, 0, 0]]), np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
    writer = Writer()
    inputs = {"ids": ids, "attention_mask": mask}
    with FlowMonitor(forward, inputs, state=params, writer=writer, every_steps=1, prefix="p") as monitor:
        monitor(0, params)
    _, attention = jaxflow.capture(forward, params, ids, mask)
    attention = jaxflow.Attention(encoder=attention.encoder.reshape(2, 1, 1, 4, 4))
    expected = flow_summary(jaxflow.joint_capacities(attention, encoder_mask=mask)).scalars()
    assert writer.scalars[0] == pytest.approx({f"p/{name}": value for name, value in expected.items()}, abs=1e-5)


@pytest.mark.usefixtures("standard_promotion")
def test_an_encoder_decoder_of_transformers_with_padding():
    model = tiny_models.build("Marian", "MTModel")
    ids = np.array([[5, 6, 7, 2], [8, 9, 2, 0]])
    inputs = {"input_ids": ids, "attention_mask": ids != 0, "decoder_input_ids": np.array([[3, 5, 6], [3, 9, 8]])}
    writer = Writer()
    method = AttentionFlow(decoder_layer="parallel", residual=0.3)
    with FlowMonitor(model, inputs, method, writer=writer, every_steps=5) as monitor:
        monitor(5, model.params)
    _, attention = jaxflow.capture(model, **inputs)
    capacities = jaxflow.joint_capacities(attention, encoder_mask=ids != 0, residual=0.3)
    expected = flow_summary(capacities, AttentionFlow(decoder_layer="parallel")).scalars()
    assert writer.scalars[5] == pytest.approx({f"attention_flow/{name}": v for name, v in expected.items()}, abs=1e-5)


def test_a_resumed_run_goes_on_as_if_it_had_not_been_interrupted(tmp_path):
    whole, parts = Writer(), Writer()
    with monitored(whole) as monitor:
        train(monitor, PARAMS, OPTIMISER.init(PARAMS), range(1, 8))
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        with monitored(parts) as monitor:
            checkpoint = train(monitor, PARAMS, OPTIMISER.init(PARAMS), range(1, 4))
            monitor.flush()
            assert sorted(parts.scalars) == [2]
            checkpointer.save(tmp_path / "checkpoint", checkpoint)
            checkpointer.wait_until_finished()
        params, state = checkpointer.restore(tmp_path / "checkpoint", checkpoint)
    with monitored(parts) as monitor:
        train(monitor, params, state, range(4, 8))
    assert parts.scalars == whole.scalars
    assert jax.tree.all(jax.tree.map(np.array_equal, parts.images, whole.images))


def test_a_donated_state_is_read_before_it_is_gone():
    writer, expected = Writer(), Writer()
    step_of = jax.jit(train_step, donate_argnums=(0, 1))
    params, state = jax.tree.map(jnp.copy, (PARAMS, OPTIMISER.init(PARAMS)))
    with monitored(writer, every_steps=1) as monitor:
        for step in range(1, 4):
            params, state = step_of(params, state, BATCHES[step - 1])
            monitor(step, params)
    with monitored(expected, every_steps=1) as monitor:
        train(monitor, PARAMS, OPTIMISER.init(PARAMS), range(1, 4))
    assert writer.scalars.keys() == expected.scalars.keys()
    for step, scalars in writer.scalars.items():
        assert scalars == pytest.approx(expected.scalars[step])


class Failing(Writer):
    def write_scalars(self, step, scalars):
        if step < 6:
            raise OSError("the disk is full")
        super().write_scalars(step, scalars)


@pytest.mark.parametrize("background", [True, False])
def test_a_failing_writer_is_logged_once_and_training_goes_on(caplog, background):
    writer = Failing()
    with caplog.at_level(logging.INFO, "jaxflow"), monitored(writer, background=background) as monitor:
        train(monitor, PARAMS, OPTIMISER.init(PARAMS), range(1, 9))
    (record,) = caplog.records
    assert record.getMessage() == (
        "The report of attention flow at step 2 failed: the disk is full. Training goes on; further failures are not logged."
    )
    assert isinstance(monitor.failure, OSError)
    assert sorted(writer.scalars) == [6, 8]  # tried again


def test_a_model_that_diverged_is_logged_and_training_goes_on(caplog):
    writer = Writer()
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, PARAMS)
    with monitored(writer) as monitor:
        monitor(2, broken)
        monitor(4, PARAMS)
    assert "NaN" in caplog.records[0].getMessage()
    assert sorted(writer.scalars) == [4]


def test_training_waits_for_solves_when_two_batches_wait():
    gate, entered = threading.Event(), threading.Event()

    class Slow(Writer):
        def write_scalars(self, step, scalars):
            entered.set()
            gate.wait(60)
            super().write_scalars(step, scalars)

    writer = Slow()
    with monitored(writer, every_steps=1) as monitor:
        monitor(1, PARAMS)
        entered.wait(60)
        monitor(2, PARAMS)
        third = threading.Thread(target=monitor, args=(3, PARAMS))
        third.start()
        third.join(0.3)
        assert third.is_alive()
        gate.set()
        third.join(60)
    assert list(writer.scalars) == [1, 2, 3]


def clu_writers():
    """The writers of clu that need no TensorFlow; its package imports one that does."""
    import clu

    name = "clu.metric_writers"
    if name not in sys.modules:
        package = sys.modules[name] = types.ModuleType(name)
        package.__path__ = [str(Path(clu.__path__[0]) / "metric_writers")]
    from clu.metric_writers.async_writer import AsyncMultiWriter
    from clu.metric_writers.interface import MetricWriter
    from clu.metric_writers.logging_writer import LoggingWriter
    from clu.metric_writers.multi_writer import MultiWriter

    return AsyncMultiWriter, LoggingWriter, MetricWriter, MultiWriter


def test_writers_of_clu(caplog):
    asynchronous, logs, interface, many = clu_writers()
    kept = Writer()
    memory = type("Memory", (interface,), {
        name: getattr(kept, name, lambda *_: None) for name in interface.__abstractmethods__
    })()  # fmt: skip
    with caplog.at_level(logging.INFO, "absl"):
        for writer in (many([logs(), memory]), asynchronous([memory, logs()])):
            kept.scalars.clear()
            with monitored(writer) as monitor:
                monitor(2, PARAMS)
            writer.flush()
            assert monitor.failure is None
            assert kept.scalars[2]["attention_flow/saturation"] <= 1
            assert kept.images[2]["attention_flow/scores"].dtype == np.uint8
    assert "attention_flow/bottleneck_layer=" in caplog.text


def test_a_summary_writer_of_tensorboard(tmp_path):
    with tensorboardX.SummaryWriter(str(tmp_path)) as writer, monitored(writer) as monitor:
        monitor(2, PARAMS)
        monitor.flush()
    data, events = next(tmp_path.glob("events*")).read_bytes(), []
    while data:  # length, its checksum, record, its checksum
        length = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    values = {value.tag: value for event in events for value in event.summary.value if event.step == 2}
    assert 0 <= values["attention_flow/saturation"].simple_value <= 1
    (image,) = (value.image for tag, value in values.items() if tag.startswith("attention_flow/scores"))
    assert (image.height, image.width) == (TOKENS * 12, 2 * TOKENS * 12)  # both examples, side by side


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_steps": 0}, "every_steps is 0; expected 1 or more"),
        ({"every_steps": -3}, "every_steps is -3; expected 1 or more"),
        ({"images": -1}, "images is -1; expected 0 or more"),
        ({"writer": object()}, r"writer is a object; expected write_scalars\(step, scalars\) and write_images"),
        ({"positions": 7}, "Output 7 does not exist: outputs are positions 0 to 4"),
        ({"method": AttentionFlow(residual=1.5)}, r"residual is 1.5; expected a number in \[0, 1\]"),
        ({"method": AttentionFlow(heads=5)}, "5"),
        (
            {"inputs": Example(X, encoder_mask=np.ones((2, 3), bool))},
            r"encoder_mask has shape \(2, 3\); expected \(2, 5\)",
        ),
        ({"state": None}, "Encoder is given without a state; expected state="),
        ({"method": "gradient"}, "The method 'gradient' needs more of a model than its attention"),
        ({"method": "flow_gradient"}, "expected AttentionFlow, SetShapley, Rollout or RawAttention"),
    ],
)
def test_refused_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        FlowMonitor(Encoder(), **{"inputs": X, "state": PARAMS, "writer": Writer(), "every_steps": 2, **options})


def test_a_batch_that_does_not_fit_the_model_is_refused_at_construction():
    with pytest.raises(
        ValueError, match=r"(?s)The tracked batch does not fit Encoder, which says: .*Given were 0 \(2, 5, 3\)"
    ):
        FlowMonitor(Encoder(), X[..., :3], state=PARAMS, writer=Writer(), every_steps=2)
    model, _ = load_model("agreement")
    with pytest.raises(ValueError, match=r"does not fit AgreementEncoder, which says: .*99 tokens"):
        FlowMonitor(model, np.ones((1, 99), int), writer=Writer(), every_steps=2)


def test_attention_that_cannot_be_captured_is_refused_at_construction():
    class Dense(nnx.Module):
        def __init__(self, rngs):
            self.layer = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

        def __call__(self, x):
            return self.layer(x)

    layer = nn.Dense(WIDTH)
    with pytest.raises(ValueError, match="No attention was found in Dense"):
        FlowMonitor(layer, X, state=layer.init(jax.random.key(0), X), writer=Writer(), every_steps=2)
    with pytest.raises(ValueError, match="No attention was found in Dense"):
        FlowMonitor(Dense(nnx.Rngs(0)), X, writer=Writer(), every_steps=2)
    with pytest.raises(TypeError, match="got the class Encoder; expected an instance"):
        FlowMonitor(Encoder, X, state=PARAMS, writer=Writer(), every_steps=2)


def test_calls_that_make_no_sense_are_refused():
    monitor = monitored(Writer())
    with pytest.raises(ValueError, match=r"step is a jax.Array: reading it would wait"):
        monitor(jnp.int32(2), PARAMS)
    with pytest.raises(ValueError, match=r"called without a state.*monitor\(step, params\)"):
        monitor(1)
    other = {**PARAMS, "MultiHeadDotProductAttention_0": {}}
    with pytest.raises(
        ValueError, match=r"not the state of the Encoder .*MultiHeadDotProductAttention_0.* has shape none"
    ):
        monitor(2, other)
    monitor.close()
    monitor.close()
    with pytest.raises(ValueError, match="The monitor is closed"):
        monitor(2, PARAMS)


@pytest.mark.parametrize("method", ["rollout", "raw", SetShapley(residual=0.3)], ids=str)
def test_other_methods_are_followed(method):
    writer = Writer()
    with monitored(writer, method=method) as monitor:
        monitor(2, PARAMS)
    assert monitor.failure is None
    name = method if isinstance(method, str) else "shapley"
    _, attention = jaxflow.capture(Encoder(), X, variables={"params": PARAMS})
    expected = flow_summary(attention, method).scalars()
    assert "bottleneck_layer" not in expected
    assert writer.scalars[2] == pytest.approx({f"{name}/{key}": value for key, value in expected.items()}, abs=1e-5)


def test_inputs_of_the_model_do_not_collide_with_options():
    def forward(params, images, prefix):
        x = images + prefix
        weights = jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", x @ params, x))
        return weights @ x

    writer = Writer()
    inputs = {"images": X, "prefix": np.float32(0.5)}
    with FlowMonitor(forward, inputs, state=jnp.eye(WIDTH), writer=writer, every_steps=1) as monitor:
        monitor(0, jnp.eye(WIDTH))
    assert monitor.failure is None
    assert "attention_flow/entropy" in writer.scalars[0]


INSIDE = "called inside of a function that JAX traces .* Call it in the Python loop, after the step"


@pytest.mark.parametrize(
    "transform", [jax.jit, jax.grad, lambda f: lambda x: jax.lax.scan(lambda c, _: (f(c), 0), x, None, 2)]
)
def test_a_call_inside_of_what_jax_traces_is_refused(transform):
    def step(params):
        monitor(0, params)
        return jax.tree.leaves(params)[0].sum() if transform is jax.grad else params

    with monitored(Writer()) as monitor, pytest.raises(ValueError, match=INSIDE):
        transform(step)(PARAMS)
    assert monitor.failure is None


def test_a_step_that_is_traced_is_refused():
    with monitored(Writer()) as monitor, pytest.raises(ValueError, match=INSIDE):
        jax.jit(lambda step: monitor(step, PARAMS))(2)


@pytest.mark.parametrize("background", [True, False])
def test_a_donated_state_does_not_end_the_training(caplog, background):
    donate = jax.jit(lambda params: jax.tree.map(lambda leaf: leaf * 1.0, params), donate_argnums=0)
    writer = Writer()
    with monitored(writer, background=background) as monitor:
        params = jax.tree.map(jnp.copy, PARAMS)
        after = donate(params)
        if not jax.tree.leaves(params)[0].is_deleted():
            pytest.skip("this device does not donate")
        assert not monitor(2, params)
        assert monitor(4, after), "the next state is reported"
    assert list(writer.scalars) == [4]
    assert isinstance(monitor.failure, ValueError)
    (record,) = caplog.records
    assert "step 2 failed: the state was donated before the monitor was called" in record.message


def test_a_state_that_is_donated_after_the_call_is_reported():
    donate = jax.jit(lambda params: jax.tree.map(lambda leaf: leaf * 1.0, params), donate_argnums=0)
    writer = Writer()
    with monitored(writer, every_steps=1) as monitor:
        params = jax.tree.map(jnp.copy, PARAMS)
        for step in range(4):
            monitor(step, params)
            params = donate(params)
    assert monitor.failure is None
    assert sorted(writer.scalars) == [0, 1, 2, 3]


class Interrupting(Writer):
    """Ends as `sys.exit` in a writer does, at its first step."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write_scalars(self, step, scalars):
        if step == 0:
            raise self.error
        super().write_scalars(step, scalars)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=["interrupt", "exit"])
def test_an_interrupt_that_a_writer_raises_arrives_at_no_later_call(caplog, error):
    writer = Interrupting(error)
    with monitored(writer) as monitor:
        for step in range(5):
            monitor(step, PARAMS)
    assert monitor.failure is error
    assert sorted(writer.scalars) == [2, 4]
    assert len(caplog.records) == 1
    assert type(error).__name__ in caplog.text or "3" in caplog.text


def test_in_the_training_s_own_thread_an_interrupt_arrives_at_once():
    with monitored(Interrupting(KeyboardInterrupt()), background=False) as monitor:
        with pytest.raises(KeyboardInterrupt):
            monitor(0, PARAMS)
        assert monitor.failure is None
        assert monitor(2, PARAMS)
