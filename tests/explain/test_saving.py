"""Files are saved whole: by many at once, on a full disk, under long names and through links."""

import concurrent.futures
import json
import os
import stat
import subprocess
import sys
import threading

import pytest

from jaxflow.explain import _storage as storage


def test_many_threads_save_to_one_path_and_every_reader_meets_whole_json(tmp_path):
    path = tmp_path / "x.json"
    contents = [json.dumps({"writer": number, "filling": str(number) * 40_000}).encode() for number in range(8)]
    storage.write(path, contents[0])
    is_done, met = threading.Event(), []

    def save(number):
        for _ in range(25):
            storage.write(path, contents[number])

    def read():
        while not is_done.is_set() or not met:
            met.append(json.loads(path.read_bytes())["writer"])

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        writers = [pool.submit(save, number) for number in range(8)]
        for writer in writers:
            writer.result()  # no save fails
        is_done.set()
        for reader in readers:
            reader.result()
    assert path.read_bytes() in contents
    assert set(met) <= set(range(8))
    assert list(tmp_path.iterdir()) == [path], "nothing is left behind"


def test_many_processes_save_to_one_path(tmp_path):
    path = tmp_path / "x.json"
    code = (
        "import sys; from pathlib import Path; from jaxflow.explain import _storage as storage\n"
        f"for _ in range(200): storage.write(Path({str(path)!r}), sys.argv[1].encode() * 20000)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    writers = [subprocess.Popen([sys.executable, "-c", code, letter], env=environment) for letter in "ab"]
    met = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            content = path.read_bytes()
            met.add((content[:1], len(set(content)), len(content)))
    assert [writer.returncode for writer in writers] == [0, 0]
    assert met <= {(b"a", 1, 20000), (b"b", 1, 20000)}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("length", [200, 250, 255])
def test_a_name_may_be_as_long_as_names_can_be(tmp_path, length):
    path = tmp_path / ("x" * (length - 5) + ".json")
    storage.write(path, b"{}")
    assert path.read_bytes() == b"{}"
    with pytest.raises(OSError, match="File name too long"):
        storage.write(tmp_path / ("x" * 300 + ".json"), b"{}")


def test_a_name_of_letters_that_take_several_bytes(tmp_path):
    path = tmp_path / ("好" * 83 + ".html")
    storage.write(path, b"page")
    assert path.read_bytes() == b"page"


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "inner").mkdir()
    target, link = tmp_path / "inner" / "target.json", tmp_path / "link.json"
    for before in (b"before", None):
        if before is not None:
            target.write_bytes(before)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        storage.write(link, b"after")
        assert link.is_symlink()
        assert target.read_bytes() == b"after"
        target.unlink()
    link.unlink()
    link.symlink_to(tmp_path / "nowhere" / "x.json")
    with pytest.raises(FileNotFoundError, match=r"link\.json"):
        storage.write(link, b"after")


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_modes_are_those_of_any_other_file(tmp_path):
    ordinary, saved = tmp_path / "ordinary", tmp_path / "x.json"
    ordinary.write_bytes(b"")
    storage.write(saved, b"{}")
    assert stat.S_IMODE(saved.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)
    saved.chmod(0o640)
    storage.write(saved, b"{}")
    assert stat.S_IMODE(saved.stat().st_mode) == 0o640, "a file that stood there keeps its own"


def test_a_pipe_is_written_into(tmp_path):
    pipe = tmp_path / "x.json"
    os.mkfifo(pipe)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        storage.write(pipe, b"{}")
        assert read.result(10) == b"{}"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_what_stood_there_stays_if_the_disk_is_full(tmp_path):
    """A limit on the size of files is met as a full disk is: in the middle of writing."""
    path = tmp_path / "x.json"
    path.write_text("before")
    code = (
        "import resource, signal; from pathlib import Path; from jaxflow.explain import _storage as storage\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"try: storage.write(Path({str(path)!r}), b'after' * 10000)\n"
        f"except OSError as error: assert error.filename == {str(path)!r}, error\n"
        "else: raise AssertionError"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_saved_file_is_read_whatever_an_editor_made_of_its_encoding(tmp_path, encoding):
    text = storage.dump({"name": "é好"}, ".json").decode()
    (tmp_path / "x.json").write_text(text, encoding)
    assert storage.load(tmp_path / "x.json") == {"name": "é好"}
