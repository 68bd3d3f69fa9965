"""Run every notebook from start to end in a fresh kernel; print how long each took. A cell that raises ends the run.

What they showed is kept in build/notebooks, for the pages of the site. Names of notebooks as arguments run these alone.
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

EXECUTED = Path("build/notebooks")

EXECUTED.mkdir(parents=True, exist_ok=True)
for path in sorted(Path("notebooks").glob("*.ipynb")):
    if sys.argv[1:] and path.stem not in sys.argv[1:]:
        continue
    start = time.perf_counter()
    notebook = NotebookClient(nbformat.read(path, as_version=4), timeout=60, kernel_name="python3").execute()
    nbformat.write(notebook, EXECUTED / path.name)
    print(f"{path}: {time.perf_counter() - start:.0f} s", flush=True)
