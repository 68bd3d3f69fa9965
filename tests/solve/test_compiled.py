import subprocess
import sys

import numba
import pytest

from jaxflow.solve._compiled import compiled


def test_what_is_compiled_is_kept():
    assert compiled(_double)(2.0) == 4.0
    assert compiled(_double)._cache.cache_path


def test_without_a_place_for_the_cache_it_compiles_all_the_same(monkeypatch):
    # As Numba does where neither the source's directory nor the user's can be written to.
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(_double)
    assert compiled(_double)(2.0) == 4.0


def test_the_solver_runs_where_nothing_can_be_cached():
    program = """
import numba
numba.core.caching.CacheImpl._locator_classes = []
import numpy as np
from jaxflow import Capacities, flow_network, max_flow
network = flow_network(Capacities(encoder=np.full((1, 2, 2), 0.5)))
print(max_flow(network, network.encoder_inputs, network.outputs).value.tolist())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[0.5, 0.5]"


def _double(x):
    return 2 * x
