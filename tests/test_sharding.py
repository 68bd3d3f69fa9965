"""Several devices: a process of its own, since the number of the host's devices is fixed when JAX starts."""

import os
import subprocess
import sys
from pathlib import Path


def test_sharded_attention_gives_what_it_gives_on_one_device():
    here = Path(__file__).parent
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4".strip()
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, here / "sharded.py"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["batch", "heads", "queries", "keys", "capture"]
