"""Compiled code that is kept for the next process: whatever became of it, functions run."""

import os
import shutil
import subprocess
import sys

import pytest

MODULE = """
from jaxflow.solve._kernel import compiled

@compiled
def double(x):
    return 2 * x
"""


def run(directory, calls="double(21), double(22)"):
    """Run a compiled function in a new process that keeps its code in this directory."""
    path = [str(directory.parent), *filter(None, sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "NUMBA_CACHE_DIR": str(directory)}
    code = f"from doubling import double; print({calls})"
    return subprocess.run([sys.executable, "-c", code], env=environment, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """What a first process has kept."""
    root = tmp_path_factory.mktemp("root")
    (root / "doubling.py").write_text(MODULE)
    first = run(root / "cache")
    assert (first.returncode, first.stdout, first.stderr) == (0, "42 44\n", "")
    assert list((root / "cache").rglob("*.nbi")), "it is kept"
    return root / "cache"


def test_the_next_process_uses_it(kept):
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("*.nb?")}
    again = run(kept)
    assert (again.returncode, again.stdout, again.stderr) == (0, "42 44\n", "")
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*.nb?")} == before


@pytest.mark.parametrize("damage", ["empty index", "cut index", "no pickle", "empty code"])
def test_damaged_code_is_compiled_anew_and_its_folder_is_named(kept, damage):
    cache = shutil.copytree(kept, kept.parent / damage.replace(" ", "-"))
    for path in cache.rglob("*.nbc" if "code" in damage else "*.nbi"):
        data = path.read_bytes()
        path.write_bytes(b"" if "empty" in damage else data[:20] if damage == "cut index" else b"\xff" * len(data))
    process = run(cache, "double(21), double(1.5)")
    assert (process.returncode, process.stdout) == (0, "42 3.0\n"), process.stderr
    folder = next(cache.rglob("*.nbi")).parent
    assert f"The compiled code in {folder} cannot be used" in process.stderr
    assert process.stderr.count("cannot be used") == 1
    assert "Delete that folder to keep it again." in process.stderr
