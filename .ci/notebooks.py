"""Run every notebook from start to end in a fresh kernel; print how long each took. A cell that raises ends the run."""

import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

for path in sorted(Path("notebooks").glob("*.ipynb")):
    start = time.perf_counter()
    NotebookClient(nbformat.read(path, as_version=4), timeout=60, kernel_name="python3").execute()
    print(f"{path}: {time.perf_counter() - start:.0f} s")
