"""Sanity checks: what depends on parameters changes with them, and what does not is caught."""

import jax
import numpy as np
import pytest
from planted_models import IDS, MODEL, VARIABLES

from jaxflow import logit
from jaxflow.attribute import gradient_norm
from jaxflow.evaluate import layer_groups, randomise, sanity_check

PARAMS = {
    "tokens": {"embedding": np.arange(40.0).reshape(8, 5)},
    "layer_0": {"kernel": np.arange(9.0)},
    "layer_1": {"kernel": np.arange(9.0), "scale": np.ones(1)},
    "head": {"kernel": np.arange(6.0)},
}


def test_entries_are_shuffled_and_nothing_else():
    shuffled = randomise(PARAMS)
    for one, other in zip(jax.tree.leaves(PARAMS), jax.tree.leaves(shuffled), strict=True):
        np.testing.assert_array_equal(np.sort(np.ravel(one)), np.sort(np.ravel(other)))
        assert one.shape == other.shape
        assert one.size == 1 or (one != other).any()
    part = randomise(PARAMS, parts=["/layer_1/"])
    assert (part["layer_1"]["kernel"] == shuffled["layer_1"]["kernel"]).all()  # whatever else is shuffled
    assert part["head"]["kernel"] is PARAMS["head"]["kernel"]
    assert (randomise(PARAMS, seed=1)["head"]["kernel"] != shuffled["head"]["kernel"]).any()
    with pytest.raises(ValueError, match=r"No parameter's path holds '/layer_2/': they are such as /head/kernel/"):
        randomise(PARAMS, parts=["/layer_2/"])


def test_a_cascade_from_the_output_on():
    groups = layer_groups(PARAMS)
    assert groups == ("/head/", "/layer_1/", "/layer_0/", "/tokens/")
    found = sanity_check(lambda params: np.ravel(params["tokens"]["embedding"]), PARAMS, cascade=groups)
    np.testing.assert_array_equal(found.correlations[:3], 1)  # looks at the tokens alone
    assert abs(found.correlations[3]) < 0.5
    assert found.randomised == (groups[:1], groups[:2], groups[:3], groups)
    whole = sanity_check(lambda params: np.ravel(params["tokens"]["embedding"]), PARAMS)
    np.testing.assert_array_equal(whole.correlations, found.correlations[3:])


def test_both_stacks_of_an_encoder_decoder(standard_promotion):
    import tiny_models

    groups = layer_groups(tiny_models.build("Bart", "ForConditionalGeneration").params)
    layers = [group for group in groups if "layers/" in group]
    assert layers == [f"/model/{side}/layers/{i}/" for side in ("decoder", "encoder") for i in (1, 0)]
    assert groups[-1] == "/model/shared/"


def test_gradients_depend_on_parameters_and_positions_do_not():
    def gradient(variables):
        return gradient_norm(MODEL, IDS[:1], variables=variables, target=logit(1)).encoder[0, 0]

    assert gradient(randomise(VARIABLES)).argmax() == 3  # that one token decides is no parameter
    everywhere = [
        sanity_check(lambda params: np.ravel(params["head"]["kernel"]), PARAMS, seed=s).correlations for s in range(99)
    ]
    assert abs(np.mean(everywhere)) < 0.15
    np.testing.assert_array_equal(sanity_check(lambda params: np.arange(5), PARAMS).correlations, 1)
