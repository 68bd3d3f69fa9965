"""Shapley values of attention flow. Three different games bear that name; each has a function of its own.

- `additive_shapley`: a coalition is worth the sum of its members' scores, so the Shapley values *are* the scores.
- `fixed_flow_shapley`: one flow is given, and a coalition of one layer's nodes is worth what flows through it.
- `set_shapley`, `sample_set_shapley`: a coalition is worth the maximum flow it can send together, so players share what
  each could have sent as well. These alone say something that the scores do not. `shapley_flow` has them for whole batches.
"""

from jaxflow.attribute.shapley._additive import additive_shapley
from jaxflow.attribute.shapley._attribution import shapley_flow
from jaxflow.attribute.shapley._fixed_flow import fixed_flow_shapley
from jaxflow.attribute.shapley._set_game import sample_set_shapley, set_shapley
from jaxflow.attribute.shapley._values import ShapleyValues

__all__ = [
    "ShapleyValues",
    "additive_shapley",
    "fixed_flow_shapley",
    "sample_set_shapley",
    "set_shapley",
    "shapley_flow",
]
