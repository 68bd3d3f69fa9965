"""Passes: what methods say and what is counted, against what really runs."""

import jax
import numpy as np
import pytest
from planted_models import IDS, MODEL, VARIABLES

from jaxflow import as_model, compare, contrast, load_model
from jaxflow.attribute import METHODS, GradientNorm, InputXGradient, IntegratedGradients, LeaveOneOut, gradient_norm
from jaxflow.evaluate._passes import CountedRuns

TEXTS = ["the keys to the old cabinet", "the guards near the door"]  # 6 and 5 tokens that can be hidden


def counted(target):
    """The same target, and the numbers of its runs forwards and backwards, of those that XLA leaves in."""
    found = {"forward": 0, "backward": 0}

    def count(name):
        found[name] += 1

    @jax.custom_vjp
    def seen(value):
        jax.debug.callback(count, "forward")
        return value

    def forward(value):
        return seen(value), None

    def backward(_, gradient):
        jax.debug.callback(count, "backward")
        return (gradient,)

    seen.defvjp(forward, backward)
    return lambda outputs: seen(target(outputs)), found


@pytest.mark.parametrize(
    "method", [GradientNorm(), InputXGradient(), IntegratedGradients(), IntegratedGradients(steps=3)]
)
def test_scores_of_embeddings_run_as_often_as_they_say(method):
    target, found = counted(contrast(1, 0))
    model = as_model(MODEL, variables=VARIABLES)
    jax.block_until_ready(jax.jit(lambda ids: method.score(model, (ids,), {}, target=target).encoder)(IDS))
    jax.effects_barrier()
    assert (found["forward"], found["backward"]) == method.passes


class All:
    """Asks for everything, some of it twice."""

    def attribute(self, evidence):
        evidence.attention, evidence.gradients(), evidence.gradients()
        evidence.capacities(METHODS["flow"])
        evidence.contributions()
        evidence.without_each()
        return evidence.by_embeddings(METHODS["gradient"].score)


class Silent:
    """Does not say how often its score runs."""

    def attribute(self, evidence):
        return evidence.by_embeddings(gradient_of)


def gradient_of(model, args, kwargs, *, target):
    return gradient_norm(model, *args, target=target, **kwargs)


def test_passes_of_methods_in_a_comparison():
    model, tokenizer = load_model("agreement")
    names = [name for name in METHODS if name != "shapley"]
    some = LeaveOneOut(best=2, by="contributions")
    methods = {name: name for name in names} | {"some": some, "all": All(), "silent": Silent()}
    found = compare(model, TEXTS, tokenizer=tokenizer, methods=methods, metrics=["deletion"])
    passes = {name: found.passes[:, number] for number, name in enumerate(found.methods)}
    by_gradients = [name for name in names if "gradient" in name and name != "integrated_gradients"]
    for name in (*by_gradients, "contributions", "contribution_flow"):
        np.testing.assert_array_equal(passes[name], [[1, 1]] * 2, err_msg=name)
    for name in ("flow", "rollout", "raw"):
        np.testing.assert_array_equal(passes[name], [[1, 0]] * 2, err_msg=name)
    np.testing.assert_array_equal(passes["integrated_gradients"], [[18, 16]] * 2)
    np.testing.assert_array_equal(passes["leave_one_out"], [[7, 0], [6, 0]])
    np.testing.assert_array_equal(passes["some"], [[1 + 3, 1]] * 2)
    assert (passes["token_shapley"][:, 0] <= 16 * np.array([5, 4]) + 2).all()
    assert (passes["token_shapley"][:, 0] > passes["leave_one_out"][:, 0]).all()
    np.testing.assert_array_equal(passes["random"], 0)
    np.testing.assert_array_equal(
        passes["all"], [[3 + 7, 3], [3 + 6, 3]]
    )  # gradients and contributions have the attention
    assert np.isnan(passes["silent"]).all()
    content = found.to_dict()
    assert content["passes"]["leave_one_out"] == {"forward": 6.5, "backward": 0}
    assert content["passes"]["silent"] == {"forward": None, "backward": None}
    assert set(content["methods"]["flow"]) == {"deletion"}
    lines = {line.split()[0]: line.split()[1] for line in found.to_text().splitlines()[3:]}
    expected = {
        "leave_one_out": "6.5F",
        "gradient": "1F+1B",
        "integrated_gradients": "18F+16B",
        "random": "0",
        "silent": "—",
    }
    assert expected.items() <= lines.items()
    rows = {row.split(" | ")[0].removeprefix("| "): row.split(" | ")[1] for row in found.to_markdown().splitlines()[2:]}
    assert expected.items() <= rows.items()


def test_what_is_counted_is_what_was_asked_of_the_runs():
    class Runs:
        n_targets = 1

        def __getattr__(self, name):
            return lambda *args: name

    runs = CountedRuns(Runs(), 4)
    assert runs.passes.tolist() == [0, 0]
    assert runs.attention(None) == "attention"
    assert runs.passes.tolist() == [1, 0]
    runs.gradients(0)
    runs.attention("mean")
    assert runs.passes.tolist() == [1, 1]
    runs.by_embeddings(IntegratedGradients(steps=2).score, 0)
    runs.by_embeddings(GradientNorm().score, 0)
    assert runs.passes.tolist() == [1 + 4 + 1, 1 + 2 + 1]
