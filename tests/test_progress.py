import contextlib
import io
import sys
import time

import pytest

from jaxflow import _progress as progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def work(stream, monkeypatch, *, seconds, hide=contextlib.nullcontext):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "DELAY", 0.2)
    with hide(), progress.progress_bar(3, "max-flow") as bar:
        for _ in range(3):
            time.sleep(seconds / 3)
            bar.update()
    return stream.getvalue()


def test_long_work_shows_on_a_terminal(monkeypatch):
    assert "max-flow" in work(Terminal(), monkeypatch, seconds=0.6)


def test_long_work_shows_in_a_notebook(monkeypatch):
    """Whose standard error is no terminal."""
    kernel = type("Shell", (), {"kernel": object()})()
    monkeypatch.setitem(sys.modules, "IPython", type("IPython", (), {"get_ipython": staticmethod(lambda: kernel)}))
    assert "max-flow" in work(io.StringIO(), monkeypatch, seconds=0.6)


def test_long_work_shows_nothing_where_there_is_no_standard_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with progress.progress_bar(3, "max-flow") as bar:
        bar.update()


@pytest.mark.parametrize(
    ("stream", "seconds", "hide"),
    [
        (Terminal(), 0.03, contextlib.nullcontext),
        (io.StringIO(), 0.6, contextlib.nullcontext),
        (Terminal(), 0.6, progress.no_progress),
    ],
)
def test_short_work_files_and_work_beside_other_work_show_nothing(monkeypatch, stream, seconds, hide):
    assert work(stream, monkeypatch, seconds=seconds, hide=hide) == ""
