"""The solvers behind one call: the same values, from wherever they are asked for."""

import json

import numpy as np
import pytest
from general_networks import example
from oracle_general import scores

from jaxflow import Attention, attention_flow, flow_network, joint_capacities, max_flow
from jaxflow.cli._main import main

pytestmark = pytest.mark.usefixtures("compiled")


@pytest.mark.parametrize("feedback", ["prefix", "unrolled"])
@pytest.mark.parametrize("decoder_layer", ["sublayers", "parallel"])
def test_certified_values_are_those_of_the_definition(decoder_layer, feedback):
    stacks, n_prompt = example("encoder-decoder"), 2 if feedback == "unrolled" else None
    options = {"decoder_layer": decoder_layer, "feedback": feedback, "n_prompt": n_prompt, "residual": 0.3}
    flow = attention_flow(Attention(**stacks), solver="certified", **options)
    encoder, decoder = scores(**stacks, **options, source_mask=[True] * 4, target_mask=[True] * 5)
    np.testing.assert_allclose(flow.encoder, encoder, atol=1e-6)
    np.testing.assert_allclose(flow.decoder, decoder, atol=1e-6)
    np.testing.assert_array_equal(flow.certificate.lower, flow.certificate.upper)


def test_a_batch_equals_its_rows_with_the_certified_solver():
    rows = [example("encoder", seed)["encoder"] for seed in range(3)]
    batch = attention_flow(np.stack(rows), solver="certified").encoder
    for row, alone in zip(batch, rows, strict=True):
        np.testing.assert_array_equal(row, attention_flow(alone, solver="certified").encoder)


@pytest.mark.parametrize("solver", ["ortools", "certified"])
def test_shapes_and_progress(solver):
    network = flow_network(joint_capacities(Attention(**example("encoder"))))
    solved = []
    flow = max_flow(
        network, network.encoder_inputs, network.outputs[:, None], solver=solver, on_solved=lambda: solved.append(1)
    )
    assert flow.value.shape == flow.trivial.shape == (4, 4)
    assert len(solved) == 16
    assert max_flow(network, 0, network.outputs[0], solver=solver).value == flow.value[0, 0]


@pytest.mark.parametrize("solver", ["ortools", "certified"])
def test_bad_capacities_are_refused_by_either(solver):
    network = flow_network(joint_capacities(Attention(**example("encoder"))))
    bad = network.replace(capacity=np.asarray(network.capacity).copy())
    bad.capacity[3] = -1
    with pytest.raises(ValueError, match=r"Arc 3 has capacity -1\.0"):
        max_flow(bad, 0, network.outputs[0], solver=solver)


def test_from_the_command_line(capsys):
    values = {}
    for solver in ("ortools", "certified"):
        assert main(["explain", "--solver", solver, "--json", "the keys to the old cabinet"]) == 0
        content = json.loads(capsys.readouterr().out)["content"]
        assert content["conventions"]["solver"] == solver
        values[solver] = content["attribution"]["encoder"]["data"]
    np.testing.assert_allclose(values["certified"], values["ortools"], atol=1e-6)
