"""Tolerance, budget and interruption, from attention_flow and the command line: bounds that hold, and never a wrong value."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jaxflow import AttentionFlow, attention_flow, explain, load, load_model, max_flow, min_cut
from jaxflow.cli._main import main
from jaxflow.solve._flows import STAGES, UNFINISHED

pytestmark = pytest.mark.usefixtures("compiled")

LAYERS = np.random.default_rng(0).dirichlet(np.full(24, 0.3), (3, 1, 24)).astype(np.float32)


@pytest.fixture(scope="module")
def exact():
    return attention_flow(LAYERS)


def test_every_score_is_proved_and_says_by_what(exact):
    certificate = exact.certificate
    np.testing.assert_array_equal(certificate.lower, certificate.upper)
    assert certificate.exact.all()
    assert sum(certificate.stages.values()) == 24 * 24
    assert certificate.stages["search"] > 0
    assert certificate.stages["residual"] > 0
    assert set(certificate.stages) == set(STAGES)


def test_both_solvers_agree(exact):
    reference = attention_flow(LAYERS, solver="ortools")
    np.testing.assert_allclose(exact.encoder, reference.encoder, atol=1e-7)
    assert reference.certificate.stages["ortools"] == 24 * 24


def test_within_a_tolerance(exact):
    flow = AttentionFlow(tolerance=0.05)(LAYERS)
    lower, upper = flow.certificate.lower, flow.certificate.upper
    assert ((lower <= exact.encoder) & (exact.encoder <= upper)).all()
    assert 0 < (upper - lower).max() <= 0.05
    np.testing.assert_array_equal(flow.encoder, lower)
    again = AttentionFlow(tolerance=0.05)(LAYERS)
    for one, other in zip(jax.tree.leaves(flow), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("solver", ["certified", "ortools"])
def test_a_budget_of_nothing_leaves_bounds_and_no_values(exact, solver):
    flow = AttentionFlow(budget_seconds=0, solver=solver)(LAYERS)
    assert np.isnan(flow.encoder).all()
    assert (flow.certificate.stage == UNFINISHED).all()
    assert (flow.certificate.lower <= exact.encoder + 1e-7).all()
    assert (exact.encoder <= flow.certificate.upper + 1e-7).all()


def test_a_budget_that_is_enough_changes_nothing(exact):
    flow = AttentionFlow(budget_seconds=1000)(LAYERS)
    for one, other in zip(jax.tree.leaves(flow), jax.tree.leaves(exact), strict=True):
        np.testing.assert_array_equal(one, other)


def test_status_of_max_flow(exact):
    model, tokenizer = load_model("agreement")
    from jaxflow import capture, flow_network, joint_capacities

    capacities = joint_capacities(capture(model, **tokenizer(["the keys to the cabinet"]))[1])
    network = flow_network(jax.tree.map(lambda leaf: leaf[0], capacities))
    ends = network.inputs, network.outputs[:, None]
    assert max_flow(network, *ends).status == "optimal"
    assert max_flow(network, *ends, tolerance=0.2).status == "within tolerance"
    assert max_flow(network, *ends, budget_seconds=0).status == "unfinished"
    value = max_flow(network, 1, network.outputs[0]).value
    for nearest in ("source", "sink"):
        assert min_cut(network, 1, network.outputs[0], nearest=nearest).value == value, "to the last bit"


def test_an_explanation_shows_and_saves_what_is_unknown(tmp_path, capsys):
    model, tokenizer = load_model("agreement")
    explanation = explain(model, "the keys to the cabinet", AttentionFlow(budget_seconds=0), tokenizer=tokenizer)
    assert np.isnan(explanation.scores).all()
    assert explanation.bottleneck is None
    assert "100% of these scores are unknown, since time ran out" in str(explanation)
    explanation.save(tmp_path / "page.html")
    assert "unknown" in (tmp_path / "page.html").read_text()
    for suffix in (".json", ".npz"):
        explanation.save(tmp_path / f"file{suffix}")
        same = load(tmp_path / f"file{suffix}")
        np.testing.assert_array_equal(same.scores, explanation.scores)
        np.testing.assert_array_equal(same.attribution.certificate.upper, explanation.attribution.certificate.upper)
    json.loads((tmp_path / "file.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    assert main(["explain", "the keys", "--budget-seconds", "0"]) == 0
    assert "unknown" in capsys.readouterr().out


def test_an_explanation_within_a_tolerance_says_so():
    model, tokenizer = load_model("agreement")
    explanation = explain(
        model, "the keys to the cabinet near the doors", AttentionFlow(tolerance=0.2), tokenizer=tokenizer
    )
    assert "Scores are proved to within 0." in str(explanation)
    assert explanation.conventions["tolerance"] == 0.2
    assert "Scores are proved" not in str(
        dataclasses.replace(explain(model, "the keys", tokenizer=tokenizer), version="0")
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": -1}, "tolerance is -1; expected a finite number"),
        ({"tolerance": np.nan}, "tolerance is nan; expected"),
        ({"tolerance": 0.1, "solver": "ortools"}, "tolerance is for solver='certified'"),
        ({"budget_seconds": -2}, r"budget_seconds is -2.*; expected 0 or more"),
        ({"budget_seconds": np.nan}, "budget_seconds is nan"),
        ({"solver": "dinic"}, "solver is 'dinic'; expected one of 'certified', 'ortools'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        AttentionFlow(**options)(LAYERS)


@pytest.mark.parametrize("option", [["--tolerance", "-1"], ["--budget-seconds", "x"]])
def test_bad_options_of_the_command_line(option, capsys):
    assert main(["explain", "the keys", *option]) == 2
    assert "expected a number, 0 or more" in capsys.readouterr().err


# The solver alone: a process that ends while JAX computes may crash in doing so.
INTERRUPTED = """
import signal, sys, threading
import numpy as np
from jaxflow import Capacities, flow_network, max_flow
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
layers = np.random.default_rng(0).dirichlet(np.full(300, 0.3), (12, 300)).astype(np.float32)
network = flow_network(Capacities(encoder=layers))
max_flow(network, network.inputs[:4], network.outputs[:2, None])  # compiled now
print("go", flush=True)
try:
    while True:
        max_flow(network, network.inputs, network.outputs[:, None])
except KeyboardInterrupt:
    print(len([t for t in threading.enumerate() if t.name.startswith("jaxflow")]), flush=True)
    sys.exit(130)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_ends_the_work_and_its_threads():
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "go\n"
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)  # a second; more on a loaded machine
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "0\n")
