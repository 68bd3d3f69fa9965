"""The kernel's cache: kept between processes, dropped when any function of the file changes, and not needed."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest

import jaxflow.solve
from jaxflow.solve._kernel import compiled

KERNEL = Path(jaxflow.solve.__file__).parent / "_kernel.py"
# `aim` is compiled with `clear`, which it calls, inside.
AIM = """
import numpy as np
import kernel_copy as kernel
from jaxflow import Capacities, flow_network
network = flow_network(Capacities(encoder=np.full((1, 2, 2), 0.5)))
graph, _, quantum = kernel.build_graph(network, np.array([0]), np.array([3]))
scratch = kernel.aimed_scratch(graph, 3)
print((scratch.room[:2] * quantum).tolist(), len(kernel.aim.stats.cache_hits))
"""


def test_what_is_compiled_is_kept():
    assert compiled(_double)(2.0) == 4.0
    assert compiled(_double)._cache.cache_path


def test_an_edit_of_an_inner_function_is_noticed(tmp_path):
    """Run a copy of the kernel, run it again from the cache, edit a function that the others call, and run it once more."""
    copy = tmp_path / "kernel_copy.py"
    shutil.copyfile(KERNEL, copy)
    assert _run(AIM, tmp_path) == "[0.5, 0.5] 0"
    assert _run(AIM, tmp_path) == "[0.5, 0.5] 1"
    text, line = copy.read_text(), "    room[:] = near\n"
    assert text.count(line) == 1
    copy.write_text(text.replace(line, "    room[:] = near // 2\n"))
    assert _run(AIM, tmp_path) == "[0.25, 0.25] 0"


def test_nothing_of_another_file_is_compiled_in():
    """Numba would not notice if it changed."""
    tree = ast.parse(KERNEL.read_text())
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxflow")
        for alias in node.names
    }
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list]
    assert imported
    assert len(functions) > 20
    for function in functions:
        body = ast.Module(body=function.body, type_ignores=[])  # annotations are not compiled
        names = {node.id for node in ast.walk(body) if isinstance(node, ast.Name)}
        assert not names & imported, function.name


def test_without_a_place_for_the_cache_it_compiles_all_the_same(monkeypatch):
    # As Numba does where neither the source's directory nor the user's can be written to.
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(_double)
    assert compiled(_double)(2.0) == 4.0


def test_the_solver_runs_where_nothing_can_be_cached(tmp_path):
    program = """
import numba
numba.core.caching.CacheImpl._locator_classes = []
import numpy as np
from jaxflow import Capacities, flow_network, max_flow
network = flow_network(Capacities(encoder=np.full((1, 2, 2), 0.5)))
print(max_flow(network, network.encoder_inputs, network.outputs).value.tolist())
"""
    assert _run(program, tmp_path) == "[0.5, 0.5]"


def test_numba_is_imported_only_when_the_kernel_runs(tmp_path):
    program = "import sys, jaxflow; print('numba' in sys.modules)"
    assert _run(program, tmp_path) == "False"


def _run(program, directory):
    """Run a program in a process of its own, with the modules of `directory` and a cache there."""
    path = os.pathsep.join([str(KERNEL.parents[2]), str(directory)])
    environment = os.environ | {"PYTHONPATH": path, "NUMBA_CACHE_DIR": str(directory / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment, cwd=directory
    )
    return done.stdout.strip()


def _double(x):
    return 2 * x
