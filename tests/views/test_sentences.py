import dataclasses

import pytest
from example_explanations import explained

from jaxflow.attribute import METHODS, method_name
from jaxflow.views._sentences import METHOD_NAMES, certificate_sentence, headline

OTHERS = ("gradient", "input_x_gradient", "integrated_gradients", "leave_one_out", "token_shapley", "random")


@pytest.fixture(scope="module")
def explanation():
    return explained(("a", "b"), method="rollout")


def test_every_method_has_a_name():
    assert {*map(method_name, METHODS.values()), *OTHERS} <= set(METHOD_NAMES)


@pytest.mark.parametrize("method", OTHERS)
def test_conventions_that_a_method_has_none_of_are_left_out(explanation, method):
    bare = dataclasses.replace(explanation, method=method, conventions={"joint": None})
    assert headline(bare) == f"Model: {METHOD_NAMES[method]}"
    assert certificate_sentence(bare) == "no maximum flow involved"
    aimed = dataclasses.replace(bare, conventions={"target": "the logit of plural"})
    assert headline(aimed) == f"Model: {METHOD_NAMES[method]}, target the logit of plural"


def test_conventions_of_a_flow(explanation):
    conventions = {"heads": 2, "residual": 0.25, "normalise": True, "target": "x", "weighting": "gradient"}
    flow = dataclasses.replace(explanation, method="flow", conventions=conventions)
    assert headline(flow) == "Model: attention flow, gradients of x, head 2, residual 0.25, normalised"
