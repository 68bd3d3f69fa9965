"""How large the public surface is: few names, each documented, and no function with many parameters."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import pytest

import jaxflow

MOST_NAMES, MOST_PARAMETERS = 38, 10
REFERENCE = Path(__file__).parent.parent / "docs" / "reference"


def doors(package):
    """Import a package and the packages below it whose names have no underscore in front."""
    yield package
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if found.ispkg and not found.name.rpartition(".")[2].startswith("_"):
            yield from doors(importlib.import_module(found.name))


def public_callables():
    """Find all public functions, methods and constructors, by their names.

    Constructors of results do not count, since nobody calls them: dataclasses that some public function returns.
    """
    found = {}
    for door in doors(jaxflow):
        for name in getattr(door, "__all__", ()):
            thing = getattr(door, name)
            if not callable(thing) or not getattr(thing, "__module__", "").startswith("jaxflow"):
                continue  # constants, modules, type aliases
            found[f"{thing.__module__}.{thing.__name__}"] = thing
            if inspect.isclass(thing):
                methods = {k: v for k, v in vars(thing).items() if not k.startswith("_") and inspect.isfunction(v)}
                found |= {f"{thing.__module__}.{thing.__name__}.{k}": v for k, v in methods.items()}
    returned = {
        word
        for thing in found.values()
        if inspect.isfunction(thing)
        for word in re.findall(r"\w+", str(thing.__annotations__.get("return", "")))
    }
    return {
        name: thing
        for name, thing in found.items()
        if not (dataclasses.is_dataclass(thing) and thing.__name__ in returned and not issubclass(thing, nn.Module))
    }


def n_parameters(thing):
    """Count parameters; not `self`, and not those that Flax adds to every module."""
    names = list(inspect.signature(thing).parameters)
    if inspect.isclass(thing) and issubclass(thing, nn.Module):
        names = [name for name in names if name not in ("parent", "name")]
    return len(names) - (names[:1] == ["self"])


def with_many_parameters(callables, most):
    """List those with more parameters than `most`, the largest first."""
    counts = {name: n_parameters(thing) for name, thing in callables.items()}
    return [f"{name}: {n}" for name, n in sorted(counts.items(), key=lambda one: -one[1]) if n > most]


def undocumented(names, pages):
    """List names without an entry `::: jaxflow.name`; a module counts as documented where one of its names is."""
    entries = {entry for page in pages for entry in re.findall(r"^::: jaxflow\.([\w.]+)$", page, re.MULTILINE)}
    documented = {part for entry in entries for part in entry.split(".")}
    return [name for name in names if name not in documented and name != "__version__"]


def test_names_come_from_where_type_checkers_are_told():
    """`import jaxflow` imports nothing; each name is found when it is asked for, in the module that it is declared of."""
    source = ast.parse(Path(jaxflow.__file__).read_text(encoding="utf-8"))
    declared = next(node for node in source.body if isinstance(node, ast.If))
    names = []
    for node in declared.body:
        for alias in node.names:
            names.append(alias.name)
            home = importlib.import_module(node.module)
            is_module = node.module == "jaxflow" or not hasattr(home, alias.name)
            expected = (
                importlib.import_module(f"{node.module}.{alias.name}") if is_module else getattr(home, alias.name)
            )
            assert getattr(jaxflow, alias.name) is expected, alias.name
    assert sorted([*names, "__version__"]) == sorted(jaxflow.__all__)
    assert set(jaxflow.__all__) <= set(dir(jaxflow))
    with pytest.raises(AttributeError, match="no attribute 'explian'"):
        _ = jaxflow.explian


@pytest.mark.parametrize("name", ["explain", "capture"])
def test_a_room_with_the_name_of_its_function_stands_for_the_function(name):
    code = f"import jaxflow.{name}, jaxflow.views, jaxflow; assert callable(jaxflow.{name}); from jaxflow import {name} as one; "
    code += f"from jaxflow.{name} import {name} as other; assert one is other is jaxflow.{name}"
    subprocess.run([sys.executable, "-c", code], check=True)


# The checks find what they are for


def test_many_parameters_are_found():
    class Method:
        def __init__(self, a, b, *, c):
            pass

        def run(self, a, b):
            pass

    class Module(nn.Module):
        n: int = 0

    callables = {"m": Method, "m.run": Method.run, "f": lambda a, *, b: 0, "module": Module}
    assert with_many_parameters(callables, 1) == ["m: 3", "m.run: 2", "f: 2"]


def test_what_is_undocumented_is_found():
    pages = ["# Page\n\n::: jaxflow.explain\n\n::: jaxflow.solve.max_flow\n"]
    assert undocumented(["explain", "solve", "max_flow", "capture", "__version__"], pages) == ["capture"]


def test_public_callables_are_of_all_doors():
    found = public_callables()
    assert {jaxflow.explain, jaxflow.zoo.load, jaxflow.FlowMonitor} <= set(found.values())
    assert not {jaxflow.Explanation, jaxflow.Attribution} & set(found.values())


# The package


def test_the_top_level_has_few_names():
    names = [name for name in jaxflow.__all__ if not inspect.ismodule(getattr(jaxflow, name)) and name != "__version__"]
    assert len(names) <= MOST_NAMES


def test_every_name_of_the_top_level_is_documented():
    assert undocumented(jaxflow.__all__, [page.read_text() for page in REFERENCE.glob("*.md")]) == []


def test_no_public_function_has_many_parameters():
    assert with_many_parameters(public_callables(), MOST_PARAMETERS) == []
