"""The Python in docs/ runs, and the reference has every public name."""

import importlib
import inspect
import operator
import re
from pathlib import Path

import pytest

import jaxflow

DOCS = Path(__file__).parent.parent / "docs"
PAGES = [page for page in sorted(DOCS.glob("*.md")) if "```python" in page.read_text()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page, tmp_path, monkeypatch, standard_promotion):
    monkeypatch.chdir(tmp_path)  # where they save pictures
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(block, names)


def entries():
    """List what the reference describes, by the paths that it gives."""
    pages = sorted((DOCS / "reference").glob("*.md"))
    return [path for page in pages for path in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE)]


def test_reference_has_every_public_name():
    names = {path.rpartition(".")[2] for path in entries()}
    namespaces = {name for name in jaxflow.__all__ if inspect.ismodule(getattr(jaxflow, name))}
    assert set(jaxflow.__all__) - names == {*namespaces, "__version__"}


def test_reference_has_each_name_once():
    names = [path.rpartition(".")[2] for path in entries()]
    assert [name for name in names if names.count(name) > 1] == []


@pytest.mark.parametrize("path", entries())
def test_reference_gives_paths_that_exist(path):
    module, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module)
    except ModuleNotFoundError:
        module = operator.attrgetter(module.removeprefix("jaxflow."))(jaxflow)  # a namespace such as jaxflow.plot
    assert callable(getattr(module, name))


def test_every_page_is_in_the_navigation():
    navigation = (DOCS.parent / "mkdocs.yml").read_text()
    pages = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")]
    assert [page for page in pages if f" {page}\n" not in navigation] == []
