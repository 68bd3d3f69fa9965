"""Shapley values of attention flow. Three different games bear that name; two have functions here, and one needs none.

- The additive game: a coalition is worth the sum of its members' scores, so the Shapley values *are* the scores of
  `attention_flow`. That is the sense in which Metzger et al. 2022 (2205.15389) speak of Shapley values, as we read them.
- `fixed_flow_shapley`: one flow is given, and a coalition of one layer's nodes is worth what flows through it.
- `set_shapley`, `sample_set_shapley`: a coalition is worth the maximum flow that it can send together, so players share what
  each could have sent as well. These alone say something that the scores do not. `SetShapley` is the same as a method.
"""

from jaxflow.attribute.shapley._fixed_flow import fixed_flow_shapley
from jaxflow.attribute.shapley._method import SetShapley
from jaxflow.attribute.shapley._set_game import sample_set_shapley, set_shapley
from jaxflow.attribute.shapley._values import ShapleyValues

__all__ = ["SetShapley", "ShapleyValues", "fixed_flow_shapley", "sample_set_shapley", "set_shapley"]
