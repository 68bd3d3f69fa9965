"""Annotations are true: beartype checks those of every room, types and axes, while the room is used."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import type_checked
from test_surface import public_callables


def reports(*wanted):
    """Check rooms in processes of their own, at the same time: each is what `report` of type_checked.py takes."""
    fast = "--xla_backend_optimization_level=0"  # most of the time goes into compilation
    paths = [str(Path(__file__).parent), *filter(None, sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "XLA_FLAGS": fast}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = []
    for package, rooms in wanted:
        code = f"import json, type_checked as it; print(json.dumps(it.report({package!r}, {rooms})))"
        running.append(subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes))
    said = [process.communicate() for process in running]
    for process, (_, errors) in zip(running, said, strict=True):
        assert process.returncode == 0, errors[-4000:]
    return [json.loads(lines.splitlines()[-1]) for lines, _ in said]


def test_every_room_keeps_its_annotations():
    found = reports(("jaxflow", "it.PARTS[0]"), ("jaxflow", "it.PARTS[1]"))
    assert {room: what for part in found for room, what in part["wrong"].items()} == {}
    called = {name for part in found for name in part["called"]}
    assert public_functions() - called == set(), "no room uses them"


def public_functions():
    """Name public functions and methods that are jaxflow's own, but those of protocols, which others implement."""
    names = set()
    for thing in public_callables().values():
        owner = vars(sys.modules[thing.__module__]).get(thing.__qualname__.partition(".")[0])
        is_own = thing.__module__.startswith("jaxflow.") and not getattr(owner, "_is_protocol", False)
        if inspect.isfunction(thing) and is_own and thing.__name__ != "<lambda>":
            names.add(f"{thing.__module__}.{thing.__qualname__}")
    return names


def test_false_annotations_are_found():
    (found,) = reports(("planted_types", "it.PLANTED | it.NOT_PLANTED"))
    assert list(found["wrong"]) == list(type_checked.PLANTED)
    assert [what for what in found["wrong"].values() if "Expected type" not in what] == []


def test_annotations_that_cannot_be_read_are_found():
    def function():
        pass

    function.__annotations__ = {"scores": 'Mapping[str, "it is imported for type checkers alone"]', "ids": "int | None"}
    type_checked.must_be_readable(function)
    function.__annotations__ = {"scores": "list[int] | ..."}
    with pytest.raises(TypeError, match=r"function, scores: list\[int\] \| \.\.\. is no annotation"):
        type_checked.must_be_readable(function)
