"""What each input token could send to a Transformer's decision, and what it did give, as certified maximum flows in JAX.

model -> `Attention` (and `Contributions`) -> `Capacities` -> `FlowNetwork` -> `Attribution` -> `Explanation`: each step is
a function that can be entered or left at, and only the solvers leave JAX.

What stands here is what most work needs. The rest is in namespaces, in the order of the pipeline: `jaxflow.models`,
`jaxflow.network`, `jaxflow.solve`, `jaxflow.attribute`, `jaxflow.shapley`, `jaxflow.evaluate`, `jaxflow.training`,
`jaxflow.plot`.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

from jaxflow._version import __version__

if TYPE_CHECKING:  # each is imported when it is first asked for, since JAX takes a second to import
    from jaxflow import attribute, evaluate, models, network, solve, training
    from jaxflow._attention import Attention
    from jaxflow.attribute import (
        AttentionFlow,
        Attribution,
        ContributionFlow,
        ContributionScores,
        GradientNorm,
        InputXGradient,
        IntegratedGradients,
        LeaveOneOut,
        Random,
        RawAttention,
        Rollout,
        SetShapley,
        attention_flow,
        estimate_cost,
        shapley,
    )
    from jaxflow.capture import (
        Contributions,
        attention_gradients,
        attention_weights,
        capture,
        capture_contributions,
        contrast,
        log_probability,
        logit,
    )
    from jaxflow.evaluate import compare
    from jaxflow.explain import Example, Explanation, Generate, explain, load
    from jaxflow.models import as_model, load_model
    from jaxflow.network import Capacities, FlowNetwork, flow_network, joint_capacities
    from jaxflow.solve import max_flow, min_cut
    from jaxflow.training import FlowMonitor
    from jaxflow.views import html, plot

# In the order of the pipeline; then the namespaces.
__all__ = [  # noqa: RUF022
    "load_model",
    "as_model",
    "capture",
    "capture_contributions",
    "attention_gradients",
    "attention_weights",
    "Attention",
    "Contributions",
    "logit",
    "log_probability",
    "contrast",
    "joint_capacities",
    "Capacities",
    "flow_network",
    "FlowNetwork",
    "max_flow",
    "min_cut",
    "attention_flow",
    "Attribution",
    "AttentionFlow",
    "ContributionFlow",
    "ContributionScores",
    "Rollout",
    "RawAttention",
    "SetShapley",
    "GradientNorm",
    "InputXGradient",
    "IntegratedGradients",
    "LeaveOneOut",
    "Random",
    "estimate_cost",
    "explain",
    "Example",
    "Generate",
    "Explanation",
    "load",
    "compare",
    "FlowMonitor",
    "attribute",
    "evaluate",
    "html",
    "models",
    "network",
    "plot",
    "shapley",
    "solve",
    "training",
    "__version__",
]

# Where names are looked for, one after the other: a room imports those before it in any case.
_ROOMS = (
    "_attention",
    "models",
    "capture",
    "network",
    "solve",
    "attribute",
    "explain",
    "evaluate",
    "training",
    "views",
)
_INSIDE = {"html": "views.html", "plot": "views.plot", "shapley": "attribute.shapley"}
_NAMESAKES = ("capture", "explain")


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for."""
    if name in _INSIDE:
        return importlib.import_module(f"{__name__}.{_INSIDE[name]}")
    if name in __all__ or name in _ROOMS:
        for room in _ROOMS:
            module = importlib.import_module(f"{__name__}.{room}")
            found = globals().get(name) if room == name else getattr(module, name, None)
            if found is not None:
                return globals().setdefault(name, found)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List also what is not yet imported."""
    return sorted({*globals(), *__all__})


class _Package(types.ModuleType):
    """The package. Two of its rooms have the name of their main function, which is what `jaxflow.explain` means."""

    def __setattr__(self, name: str, value: Any) -> None:
        is_room = name in _NAMESAKES and isinstance(value, types.ModuleType)
        super().__setattr__(name, getattr(value, name) if is_room else value)


sys.modules[__name__].__class__ = _Package
