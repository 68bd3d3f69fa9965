"""What users of `apply` rely on, and that nothing stays of a capture."""

import functools
import gc
import threading

import flax.linen as nn
import jax
import numpy as np
import pytest
from capture.linen_models import (
    UNNATURAL,
    Block,
    Deep,
    Own,
    X,
    assert_same,
    build,
)
from flax.core import freeze

from jaxflow.capture import capture


class Stateful(nn.Module):
    def setup(self):
        self.blocks = [Block(two=True) for _ in range(3)]
        self.norm, self.drop = nn.BatchNorm(), nn.Dropout(0.5)

    def __call__(self, x, train=False):
        for block in self.blocks:
            x, _ = block(x)
            self.sow("intermediates", "features", x)
        return self.drop(self.norm(x, use_running_average=not train), deterministic=not train)

    def doubled(self, x):
        return self(x) * 2


RNGS = {"dropout": jax.random.key(5)}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mutable": False},
        {"mutable": []},
        {"mutable": ["intermediates"]},
        {"mutable": "batch_stats", "train": True, "rngs": RNGS},
        {"mutable": ["batch_stats", "intermediates"], "train": True, "rngs": RNGS},
        {"mutable": True, "train": True, "rngs": RNGS},
        {"mutable": nn.DenyList(["intermediates"])},
        {"capture_intermediates": True},
        {"method": "doubled"},
        {"method": Stateful.doubled},
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_options_of_apply(options, frozen):
    model = Stateful()
    variables = freeze(build(model)) if frozen else build(model)
    outputs, attention = capture(model, X, variables=variables, **options)
    assert_same(outputs, model.apply(variables, X, **options))
    assert attention.encoder.shape == (2, 6, 2, 5, 5)


def test_intermediates_of_an_earlier_run_do_not_leak():
    model = Own()
    variables = build(model)
    _, state = model.apply(variables, X + 1, mutable=["intermediates"])
    stale = {**variables, **state}
    for options in ({}, {"mutable": ["intermediates"]}):
        outputs, attention = capture(model, X, variables=stale, **options)
        assert_same(outputs, model.apply(stale, X, **options))
        np.testing.assert_array_equal(attention.encoder, capture(model, X, variables=variables)[1].encoder)


def test_bound_modules_keep_their_variables():
    model = Stateful()
    variables = build(model)
    _, expected = capture(model, X, variables=variables)
    bound = model.bind(variables)
    outputs, attention = capture(bound, X)
    assert_same(outputs, bound(X))
    assert_same(attention, expected)
    assert_same(capture(bound, X, method="doubled")[0], bound.doubled(X))
    outputs, part = capture(bound.blocks[1], bound.blocks[0](X)[0])
    np.testing.assert_allclose(part.encoder, expected.encoder[:, 2:4], atol=1e-6)

    def writing():
        return model.bind(variables, rngs=RNGS, mutable=["batch_stats"])

    bound = writing()
    outputs, _ = capture(bound, X, train=True)
    assert_same(bound.variables, variables)
    assert_same(outputs, writing()(X, train=True))


# Nothing stays.


def test_nothing_stays_when_the_model_raises():
    class Raises(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.MultiHeadDotProductAttention(num_heads=2, name="a")(x)
            raise RuntimeError("as planned")

    with pytest.raises(RuntimeError, match="as planned"):
        capture(Raises(), X, variables={"params": {"a": build(nn.MultiHeadDotProductAttention(2))["params"]}})
    assert not nn.module._global_interceptor_stack
    assert "sow" not in vars(Raises())
    model = Own()
    variables = build(model)
    sow = nn.Module.sow
    _, state = model.apply(variables, X, mutable=["intermediates"])
    assert list(state["intermediates"]) == ["attention_weights"]
    assert nn.Module.sow is sow


def test_nothing_of_a_run_is_held():
    model = Deep()
    variables = build(model)
    capture(model, X, variables=variables)
    gc.collect()
    before = sum(type(o).__name__ == "Recorder" for o in gc.get_objects())
    capture(model, X, variables=variables)
    gc.collect()
    assert sum(type(o).__name__ == "Recorder" for o in gc.get_objects()) <= before


def test_threads_do_not_disturb_each_other():
    models = {"deep": Deep(UNNATURAL[:4], two=True), "remat": Deep(("q", "b", "d"), block=nn.remat(Block))}
    variables = {name: build(model) for name, model in models.items()}
    expected = {name: capture(model, X, variables=variables[name]) for name, model in models.items()}
    plain = {name: model.apply(variables[name], X, mutable=["intermediates"]) for name, model in models.items()}
    failures, start = [], threading.Barrier(3)

    def run(work, n):
        start.wait()
        try:
            for _ in range(n):
                work()
        except BaseException as error:
            failures.append(error)

    def capturing(name):
        assert_same(capture(models[name], X, variables=variables[name]), expected[name])

    def calling():
        for name, model in models.items():
            assert_same(model.apply(variables[name], X, mutable=["intermediates"]), plain[name])

    threads = [
        threading.Thread(target=run, args=(functools.partial(capturing, "deep"), 8)),
        threading.Thread(target=run, args=(functools.partial(capturing, "remat"), 8)),
        threading.Thread(target=run, args=(calling, 8)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
