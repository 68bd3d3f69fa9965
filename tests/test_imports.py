"""The rooms of the package: who may import whom, through which door, and what modules may be called."""

from pathlib import Path

import import_rules
import pytest

import jaxflow

PACKAGE = Path(jaxflow.__file__).parent
# Each with a module that breaks it, and what is said of that; the rest of the package keeps all rules.
PLANTED = {
    import_rules.against_the_order: [
        ("solve/_x.py", "from jaxflow.views import page", "solve._x:1 imports views: a later room"),
        ("solve/_x.py", "def f():\n    import jaxflow.views", "solve._x:2 imports views: a later room"),
        ("solve/_x.py", "from ..views import page", "solve._x:1 imports views: a later room"),
        ("solve/__init__.py", "from .. import views", "solve:1 imports views: a later room"),
        ("solve/_x.py", "from jaxflow import max_flow", "solve._x:1 imports the package itself: import from the room"),
        ("_attention.py", "from jaxflow.solve import max_flow", "_attention:1 imports solve: a later room"),
        ("_display.py", "from jaxflow.solve import max_flow", "_display:1 imports solve: a later room"),
        ("attic/__init__.py", "from jaxflow.solve import max_flow", "attic:1 imports solve: one of them is in no known"),
        ("views/_x.py", "from zoo.agreement import train", "views._x:1 imports zoo.agreement: it is no part"),
        ("views/_x.py", "import zoo.training", "views._x:1 imports zoo.training: it is no part"),
    ],
    import_rules.past_the_door: [
        ("views/_x.py", "from jaxflow.solve._flows import Flows", "views._x:1 imports solve._flows: import it from solve"),
        ("views/_x.py", "from jaxflow.solve import _flows", "views._x:1 imports solve._flows: import it from solve"),
        ("views/_x.py", "if f():\n    import jaxflow.solve._flows as flows", "views._x:2 imports solve._flows: import it"),
        ("__init__.py", "from jaxflow.solve._flows import Flows", "__init__:1 imports solve._flows: import it from solve"),
        ("views/_x.py", "from jaxflow.solve.exact._y import z", "views._x:1 imports solve.exact._y: import it from solve.exact"),
    ],
    import_rules.circles: [
        ("solve/_flows.py", "from jaxflow.solve._max_flow import max_flow", "solve._flows -> solve._max_flow"),
        ("solve/_flows.py", "def f():\n    from jaxflow.solve import max_flow", "solve -> solve._max_flow -> solve._flows"),
    ],
    import_rules.named_as_functions: [
        ("solve/max_flow.py", "", "solve.max_flow has the name of a function of jaxflow.solve"),
        ("views/max_flow/__init__.py", "", "views.max_flow has the name of a function of jaxflow.solve"),
        ("views/plot/explain.py", "", "views.plot.explain has the name of a function of jaxflow"),
    ],
    import_rules.flat_modules: [("helpers.py", "", "helpers is in no room"), ("_helpers.py", "", "_helpers is in no room")],
}  # fmt: skip


@pytest.fixture
def package(tmp_path):
    """A package that keeps all rules, in the forms that they allow."""
    texts = {
        "__init__.py": "from jaxflow import solve\nfrom jaxflow._attention import Attention\n"
        "from jaxflow.explain import explain\nfrom jaxflow.views import plot\n"
        '__all__ = ["Attention", "explain", "plot", "solve"]',
        "__main__.py": "from jaxflow.views import page",
        "_attention.py": "def show():\n    from jaxflow import _display\n    return _display.page",
        "_display.py": "def page():\n    from jaxflow.views import page\n    return page",
        "solve/__init__.py": 'from jaxflow.solve._max_flow import max_flow\n__all__ = ["max_flow"]',
        "solve/_max_flow.py": "from jaxflow.solve._flows import Flows\nimport numpy as np",
        "solve/_flows.py": "from jaxflow._attention import Attention\nfrom jaxflow import _attention",
        "solve/exact/__init__.py": "",
        "solve/exact/_y.py": "from jaxflow.solve import _flows",
        "explain/__init__.py": "from jaxflow.solve import max_flow\n__all__ = ['explain']",
        "views/__init__.py": 'from jaxflow.solve.exact import z\nfrom jaxflow.views import plot\n__all__ = ["page", "plot"]',
        "views/plot/__init__.py": "from ... import _attention\nfrom jaxflow import explain",
    }  # fmt: skip
    for name, text in texts.items():
        path = tmp_path / "jaxflow" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "jaxflow"


@pytest.mark.parametrize("rule", PLANTED, ids=lambda rule: rule.__name__)
def test_what_the_rules_allow_is_not_reported(rule, package):
    assert rule(package) == []


@pytest.mark.parametrize(
    ("rule", "name", "text", "message"),
    [(rule, *planted) for rule, all_planted in PLANTED.items() for planted in all_planted],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_planted_violation_is_reported_and_nothing_else(rule, name, text, message, package):
    path = package / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n{path.read_text() if path.exists() else ''}")
    (found,) = rule(package)
    assert message in found


@pytest.mark.parametrize(
    "rule",
    [pytest.param(rule, id=rule.__name__) for rule in PLANTED],
)
def test_the_package_keeps_the_rule(rule):
    assert rule(PACKAGE) == []
