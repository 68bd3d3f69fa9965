"""A monitor of a sharded state: processes of their own, since devices and processes are fixed when JAX starts."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def start(n_devices, *arguments):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={n_devices}".strip()
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    return subprocess.Popen(
        [sys.executable, HERE.parent / "monitored.py", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def written(process):
    """What a process wrote: of the state that is sharded, and of its own."""
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    *_, record, end = stdout.splitlines()
    assert end == "end"
    return json.loads(record)


def assert_same(got, expected):
    assert got.keys() == expected.keys() == {"2", "4", "6"}
    for step in got:
        assert got[step] == pytest.approx(expected[step], rel=1e-4)


def test_a_sharded_state_gives_what_it_gives_on_one_device():
    record = written(start(4))
    assert_same(record["sharded"], record["alone"])


def test_of_two_processes_one_writes_and_both_come_to_the_end():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [start(2, str(number), port) for number in (0, 1)]
    try:
        first, second = map(written, processes)
    finally:
        for process in processes:
            process.kill()
    assert_same(first["sharded"], first["alone"])
    assert second == {"sharded": {}, "alone": {}}
