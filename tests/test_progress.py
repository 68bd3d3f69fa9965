import io
import sys
import time

import pytest

from jaxflow import _progress as progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def work(stream, monkeypatch, *, seconds, shown=True):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "DELAY", 0.2)
    with progress.progress_bar(3, "max-flow", shown=shown) as bar:
        for _ in range(3):
            time.sleep(seconds / 3)
            bar.update()
    return stream.getvalue()


def test_long_work_shows_on_a_terminal(monkeypatch):
    assert "max-flow" in work(Terminal(), monkeypatch, seconds=0.6)


@pytest.mark.parametrize(
    ("stream", "seconds", "shown"), [(Terminal(), 0.03, True), (io.StringIO(), 0.6, True), (Terminal(), 0.6, False)]
)
def test_short_work_files_and_who_did_not_ask_see_nothing(monkeypatch, stream, seconds, shown):
    assert work(stream, monkeypatch, seconds=seconds, shown=shown) == ""
